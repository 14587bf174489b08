"""FLamby's TCGA-BRCA: six regions, the fixed split, and what was published for it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines.utils import concordance_index

DATA = Path(os.environ.get("CONCORS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
DAYS_A_MONTH = 365.25 / 12
REGIONS = 6
REPLICATES = 1000
SEEDS = (42, 43, 44, 45, 46)
"""The seeds of the published runs."""


@dataclass(frozen=True)
class Patients:
    """Covariates (N, P), months (N,) and event 0/1 (N,)."""

    x: np.ndarray
    months: np.ndarray
    event: np.ndarray

    def __len__(self) -> int:
        return len(self.months)

    def standardised(self, mean: np.ndarray, deviation: np.ndarray) -> "Patients":
        """Return the same patients with covariates in standard units."""
        return Patients((self.x - mean) / deviation, self.months, self.event)

    def followed(self) -> "Patients":
        """Leave out whom nobody saw for a day: they are at risk at no event."""
        seen = self.months > 0
        return Patients(self.x[seen], self.months[seen], self.event[seen])


@dataclass(frozen=True)
class Tcga:
    """Training patients of each region, all test patients, names of the covariates."""

    names: tuple[str, ...]
    training: tuple[Patients, ...]
    test: Patients

    def standardised(self) -> "Tcga":
        """Return both parts in the training patients' units, as hospitals' summed moments give."""
        x = np.concatenate([region.x for region in self.training])
        mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
        training = tuple(region.standardised(mean, deviation) for region in self.training)
        return Tcga(self.names, training, self.test.standardised(mean, deviation))


def read(data: Path) -> Tcga:
    """Read the patients as FLamby gives them: age in years, everything else 0/1."""
    folder = data / "survival" / "tcga_brca_6regions"
    split = pd.read_csv(folder / "train_test_split.csv")
    rows = pd.read_csv(folder / "brca.csv").merge(split, on="pid")
    names = tuple(rows.columns[1:40])

    def patients(part: pd.DataFrame) -> Patients:
        months = part["T"].to_numpy(float) / DAYS_A_MONTH
        return Patients(part[list(names)].to_numpy(float), months, part["E"].to_numpy(float))

    training = [patients(rows[rows["fold2"] == f"train_{region}"]) for region in range(REGIONS)]
    return Tcga(names, tuple(training), patients(rows[rows["fold"] == "test"]))


def published(data: Path) -> dict[str, np.ndarray]:
    """Return the published pooled-test C-index of each method, one a seed."""
    folder = data / "survival" / "published_results"
    rows = pd.concat([pd.read_csv(folder / f"tcga_seed{seed}.csv") for seed in SEEDS])
    rows = rows[rows["Test"] == "Pooled Test"].sort_values("seed", kind="stable")
    found = rows.groupby("Method")["Metric"]
    return {name.removesuffix("100"): values.to_numpy(float) for name, values in found}


def c_index(test: Patients, score: np.ndarray) -> float:
    """Return Harrell's C of a score, higher for worse."""
    return float(concordance_index(test.months, -score, test.event))


def bootstrap_sd(test: Patients, scores: Sequence[np.ndarray]) -> float:
    """Return the SD of the mean C of some scores over test sets drawn with replacement.

    A draw is how often each patient was drawn, ``n``: with the pairs that can be compared ``A`` and
    those in the right order ``B``, its C is ``n B n / n A n``.
    """
    rng = np.random.default_rng(1)
    often = rng.multinomial(len(test), np.full(len(test), 1 / len(test)), REPLICATES).astype(float)
    later = test.months[None, :] > test.months[:, None]
    tied = (test.months[None, :] == test.months[:, None]) & (test.event[None, :] == 0)
    pairs = ((later | tied) & (test.event[:, None] == 1)).astype(float)
    total = np.einsum("ri,ij,rj->r", often, pairs, often, optimize=True)
    drawn = np.zeros(REPLICATES)
    for score in scores:
        right = pairs * (np.sign(score[:, None] - score[None, :]) + 1) / 2
        drawn += np.einsum("ri,ij,rj->r", often, right, often, optimize=True) / total
    return float(np.std(drawn / len(scores)))
