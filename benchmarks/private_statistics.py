"""What noise costs a hospital's statistics: agreed scales, survey counts, and the C-index.

``python benchmarks/private_statistics.py`` draws hospitals of 66 patients and answers the survey
and the evaluation at ``statistics_noise`` 1, 3 and 10 many times; printed is the root mean square
error against the exact answer, as it reaches the centre (suppressed by a minimum cell of 5, or with
1 not at all), and the epsilon of each answer. Four such hospitals together agree scales and a time
grid. The last tables are why the table of risk and time has three groups by four spans, and why its
small cells are not joined.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client.cohort import Cohort, Patient
from client.hospital import Hospital
from client.kept_answers import Told
from client.private_survey import survey_blocks, survey_document
from client.private_validation import noised_table, table_blocks, time_spans
from client.site import SiteConfig
from client.site_sections import Outcomes
from client.survey import survey
from privacy.accountant import Spend, epsilon
from privacy.noised_sums import FINENESS, Block, noised_sums, squared_sensitivity
from protocol.config import Study
from protocol.errors import QuorumError
from protocol.payload import Question
from protocol.stats import LifeTable, Moments, PairCounts, ScoreTable
from protocol.stats.table_concordance import harrell_c
from server.agreement import merge_moments, scales, supported_months

HORIZON_MONTHS, DELTA = 48.0, 1e-3
NOISES = (1.0, 3.0, 10.0)
NAMES = ("age", "sex", "sbp")
# Groups of risk, spans of time, minimum cell, and whether small cells are joined.
FORMS = (
    (3, 4, 1, False),
    (3, 4, 5, False),
    (3, 4, 5, True),
    (2, 2, 5, False),
    (2, 4, 5, False),
    (5, 4, 5, False),
    (7, 5, 5, False),
    (10, 10, 5, False),
)
STUDY = Study.model_validate(
    {
        "name": "noise",
        "seed": 1,
        "hospitals": {"train": ["one"]},
        "stages": ["survey", "prognosis"],
        "prognosis": {"covariates": list(NAMES), "max_horizon_months": HORIZON_MONTHS},
    }
)


def make_hospital(rng: np.random.Generator, size: int, min_cell: int) -> Hospital:
    """Draw a hospital of tables: about half the patients have the event, a fifth is held out."""
    config = SiteConfig(
        name="one",
        outcomes=Outcomes(path="outcomes.csv", patient="id", months="m", event="e"),
        min_cell=min_cell,
    )
    patients = [_patient(rng, index) for index in range(size)]
    cohort = Cohort("one", tuple(patients), (), "f" * 64)
    aside = size // 5
    return Hospital(Path(), config, (cohort,), tuple(patients[aside:]), tuple(patients[:aside]))


def _patient(rng: np.random.Generator, index: int) -> Patient:
    age, sex = rng.normal(60, 12), float(rng.random() < 0.6)
    time = rng.exponential(45 * math.exp(-0.06 * (age - 60)))
    end = rng.uniform(6, 72)
    nothing = np.zeros((2, 0, 0, 0), np.float32)
    return Patient(
        key=f"{index:016x}",
        cine=nothing,
        labels=None,
        lge=None,
        lge_present=np.zeros(0, bool),
        spacing_mm=(math.nan,) * 3,
        vendor="other",
        field_strength_t=math.nan,
        months=min(time, end),
        event=int(time <= end),
        covariates={"age": age, "sex": sex, "sbp": rng.normal(135, 20)},
    )


def told(blocks: dict[str, Block], noise: float) -> Told:
    """Return what is told, without a ledger: nobody's data are here."""
    noise_sd = noise * math.sqrt(squared_sensitivity(blocks)) / FINENESS
    return Told(noised_sums(blocks, noise), noise_sd)


def survey_errors(noise: float, *, num_hospitals: int, repeats: int, min_cell: int) -> np.ndarray:
    """Return errors (repeats, 6): patients, events, age mean and SD, sex share, agreed end."""
    rng, rows = np.random.default_rng(7), []
    for _ in range(repeats):
        sites = [make_hospital(rng, 66, min_cell) for _ in range(num_hospitals)]
        exact = [survey(site, Question(STUDY, "survey")).document for site in sites]
        noised = [
            survey_document(told(survey_blocks(site, STUDY), noise), site, STUDY) for site in sites
        ]
        rows.append(np.subtract(_agreed(noised), _agreed(exact)))
    return np.array(rows)


def _agreed(documents: Sequence[dict]) -> list[float]:
    moments = merge_moments([Moments.from_dict(each["covariates"]) for each in documents])
    tables = [LifeTable.from_dict(each["life_table"]) for each in documents]
    found = scales(moments)
    try:
        end = supported_months(tables)
    except QuorumError:
        end = math.nan
    counts = [float(sum(each[key] or 0 for each in documents)) for key in ("patients", "events")]
    return [*counts, *found["age"], found["sex"][0], end]


def index_errors(
    noise: float,
    *,
    size: int,
    groups: int,
    spans: int,
    repeats: int,
    min_cell: int,
    joined: bool = False,
) -> np.ndarray:
    """Return the error of the C-index from the noised table, (repeats,).

    ``joined``: suppressed by joining small cells into larger boxes, as exact tables are.
    """
    rng, errors = np.random.default_rng(11), []
    cuts = tuple(np.arange(1, groups) / groups)
    times = time_spans(HORIZON_MONTHS)
    if spans != len(times) - 1:
        times = tuple(np.linspace(0, HORIZON_MONTHS, spans + 1).tolist())
    for _ in range(repeats):
        score = rng.normal(0, 1, size)
        time, end = rng.exponential(45 * np.exp(-0.8 * score)), rng.uniform(6, 72, size)
        months, event = np.minimum(time, end), time <= end
        # Ranks of the whole population, as risk cuts of the training hospitals are.
        risk = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in score])
        exact = PairCounts.of(
            months, event, risk, tau_months=HORIZON_MONTHS, replicates=0, rng=rng
        ).c_index
        blocks = table_blocks(months, event, risk, cuts=cuts, spans=times)
        table = _table(told(blocks, noise), cuts, times, min_cell, joined=joined)
        found = harrell_c(table).value
        errors.append((found if math.isfinite(found) else 0.5) - exact)
    return np.array(errors)


def _table(
    answer: Told,
    cuts: tuple[float, ...],
    spans: tuple[float, ...],
    min_cell: int,
    *,
    joined: bool,
) -> ScoreTable:
    if joined:
        return noised_table(answer, cuts, spans, 1).suppressed(min_cell)
    return noised_table(answer, cuts, spans, min_cell)


def _rms(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.nanmean(np.square(errors), axis=0))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    print(f"epsilon at delta {DELTA:g}: of one answer; of survey, scores and evaluation")
    for noise in NOISES:
        one = [Spend(noise_multiplier=noise, sampling_rate=1.0, num_steps=1)]
        costs = (epsilon(one, DELTA), epsilon(one * 3, DELTA))
        print(f"  noise {noise:4g}  {costs[0]:6.2f} {costs[1]:6.2f}")
    for number in (1, 4):
        for min_cell in (1, 5):
            print(f"survey of {number} x 66 patients, min_cell {min_cell}: RMS error of")
            print("  noise   patients  events  age mean  age SD  male share  grid end, months")
            for noise in NOISES:
                errors = survey_errors(
                    noise, num_hospitals=number, repeats=repeats, min_cell=min_cell
                )
                text = "  ".join(f"{value:8.3f}" for value in _rms(errors))
                lost = int(np.isnan(errors[:, -1]).sum())
                print(f"  {noise:4g}  {text}   no grid in {lost} of {repeats}")
    for size in (66, 150, 300):
        print(f"C-index of {size} patients from the noised table: RMS error at noise 1, 3, 10")
        for groups, spans, min_cell, joined in FORMS:
            found = [
                _rms(
                    index_errors(
                        noise,
                        size=size,
                        groups=groups,
                        spans=spans,
                        repeats=repeats,
                        min_cell=min_cell,
                        joined=joined,
                    )
                )
                for noise in NOISES
            ]
            text = "  ".join(f"{value:.3f}" for value in found)
            how = f"min_cell {min_cell}{', joined' if joined else ''}"
            print(f"  {groups:2d} groups x {spans:2d} spans, {how}:  {text}")


if __name__ == "__main__":
    main()
