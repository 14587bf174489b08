"""Dice, Hausdorff and surface distance of segmentations, summed over patients."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from protocol.errors import PayloadError
from protocol.stats.moments import Moments
from protocol.stats.sums import Sums, require

__all__ = ["OVERLAP_METRICS", "OverlapCell", "OverlapSums"]

OVERLAP_METRICS = ("dice", "hd95_mm", "assd_mm")


@dataclass(frozen=True)
class OverlapCell:
    """One metric of one class in one phase: defined values, mean, sample standard deviation."""

    n: int
    mean: float
    sd: float


@dataclass(frozen=True, eq=False)
class OverlapSums(Sums):
    """Patient-level overlap by metric, class and phase.

    Dice lies in [0, 1], higher is better; HD95 and ASSD are in mm, lower is better. A value is
    undefined where either mask is empty; undefined values are counted, never imputed.

    Attributes
    ----------
    classes : tuple of str, length C
    phases : tuple of str, length P
    moments : Moments
        Variables ``metric/class/phase``, the metrics in the order of `OVERLAP_METRICS`.
    """

    classes: tuple[str, ...]
    phases: tuple[str, ...]
    moments: Moments

    def _check(self) -> None:
        require(
            self.moments.names == _names(self.classes, self.phases),
            "OverlapSums: the moments must name every metric, class and phase once.",
        )

    @classmethod
    def empty(
        cls,
        classes: tuple[str, ...] = ("LV", "MYO", "RV"),
        phases: tuple[str, ...] = ("ED", "ES"),
    ) -> Self:
        """Return the sums of no patient."""
        return cls(tuple(classes), tuple(phases), Moments.empty(_names(classes, phases)))

    @classmethod
    def of(
        cls,
        dice: npt.ArrayLike,
        hd95_mm: npt.ArrayLike | None = None,
        assd_mm: npt.ArrayLike | None = None,
        *,
        classes: tuple[str, ...] = ("LV", "MYO", "RV"),
        phases: tuple[str, ...] = ("ED", "ES"),
    ) -> Self:
        """Return the sums of one hospital.

        Parameters
        ----------
        dice, hd95_mm, assd_mm : float array (N, C, P)
            One row a patient; nan where undefined. A distance that was not measured may be None.

        Raises
        ------
        PayloadError
            If an array has another shape.
        """
        first = np.asarray(dice, dtype=np.float64)
        columns = []
        for name, values in zip(OVERLAP_METRICS, (dice, hd95_mm, assd_mm), strict=True):
            table = np.full(first.shape, np.nan) if values is None else np.asarray(values, float)
            if table.shape != (len(first), len(classes), len(phases)):
                raise PayloadError(
                    f"{name} has shape {table.shape}; expected (patients, {len(classes)} classes, "
                    f"{len(phases)} phases)."
                )
            columns.append(table.reshape(len(first), len(classes) * len(phases)))
        names = _names(classes, phases)
        table = np.concatenate(columns, axis=1)
        return cls(tuple(classes), tuple(phases), Moments.of(names, table))

    def merge(self, other: Self) -> Self:
        """Join the sums of two sets of patients."""
        same = (self.classes, self.phases) == (other.classes, other.phases)
        require(same, "Overlap sums of different classes or phases cannot be added.")
        return type(self)(self.classes, self.phases, self.moments.merge(other.moments))

    def cell(self, metric: str, class_name: str, phase: str) -> OverlapCell:
        """Return one metric of one class in one phase; mean and sd are nan without a value."""
        index = self.moments.index(f"{metric}/{class_name}/{phase}")
        n = int(self.moments.n[index])
        mean = float(self.moments.mean[index]) if n else float("nan")
        return OverlapCell(n, mean, float(self.moments.sd[index]))

    def pooled_mean(self, metric: str, class_name: str) -> float:
        """Return the mean of one metric of one class over all masks of all phases; nan without."""
        cells = [self.cell(metric, class_name, phase) for phase in self.phases]
        n = sum(cell.n for cell in cells)
        return sum(cell.n * cell.mean for cell in cells if cell.n) / n if n else math.nan

    def suppressed(self, min_cell: int) -> Self:
        """Return sums without counts of 1 .. ``min_cell`` - 1 (see `Moments.suppressed`)."""
        return type(self)(self.classes, self.phases, self.moments.suppressed(min_cell))


def _names(classes: tuple[str, ...], phases: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        f"{metric}/{class_name}/{phase}"
        for metric in OVERLAP_METRICS
        for class_name in classes
        for phase in phases
    )
