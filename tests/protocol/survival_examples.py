"""Random hospitals with ties, and the odd ones: no event, all events, one patient."""

from dataclasses import dataclass

import numpy as np

from protocol.stats import LifeTable
from protocol.stats.censoring import CensoringCurve


@dataclass(frozen=True)
class Cohort:
    """N patients of one hospital or of all."""

    months: np.ndarray
    event: np.ndarray
    risk: np.ndarray

    def __len__(self) -> int:
        return len(self.months)

    def part(self, chosen: np.ndarray | slice) -> "Cohort":
        return Cohort(self.months[chosen], self.event[chosen], self.risk[chosen])

    def survival(self, times: np.ndarray) -> np.ndarray:
        """S(t | x) of an exponential model that is not quite right, (N, T)."""
        rate = np.exp(2 * self.risk - 1.2) / 40
        return np.exp(-rate[:, None] * np.asarray(times, float)[None, :])


def cohort(
    num_patients: int, rng: np.random.Generator, *, whole_months: bool = True, kind: str = "mixed"
) -> Cohort:
    """Draw patients; scores have two decimals in [0, 1], so that they tie too."""
    risk = np.round(rng.beta(2, 3, num_patients), 2)
    onset = rng.exponential(40 * np.exp(1.2 - 2 * risk))
    end = rng.uniform(5, 90, num_patients)
    months = np.minimum(onset, end)
    months = np.ceil(months) if whole_months else months
    event = {
        "mixed": onset <= end,
        "no event": np.zeros(num_patients, bool),
        "all events": np.ones(num_patients, bool),
    }[kind]
    return Cohort(months, event, risk)


def hospitals(whole: Cohort, number: int, rng: np.random.Generator) -> list[Cohort]:
    """Split patients at random; a hospital may be empty."""
    where = rng.integers(0, number, len(whole))
    return [whole.part(where == index) for index in range(number)]


def exact_grid(months: np.ndarray) -> tuple[float, ...]:
    """A grid on which nothing is rounded: 0 and every time."""
    return (0.0, *(float(value) for value in np.unique(months[months > 0])))


def life_table(patients: Cohort, grid: tuple[float, ...]) -> LifeTable:
    return LifeTable.of(
        patients.months,
        patients.event,
        np.zeros(len(patients), int),
        grid_months=grid,
        names=("all",),
    )


def censoring(patients: Cohort, grid: tuple[float, ...]) -> CensoringCurve:
    return CensoringCurve.from_table(life_table(patients, grid))


def structured(patients: Cohort) -> np.ndarray:
    """Outcomes as scikit-survival wants them."""
    rows = list(zip(patients.event.tolist(), patients.months.tolist(), strict=True))
    return np.array(rows, dtype=[("event", bool), ("months", float)])
