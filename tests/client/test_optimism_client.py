"""Resampling at the hospital: draws, weights, pair counts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from client.cox import stratified_sums
from client.hospital import Hospital, open_hospital
from client.optimism import MAX_REPLICATES, concordance, draw_counts, resampled
from client.survival_table import SurvivalTable
from protocol.config import Study
from protocol.errors import DataError
from protocol.payload import Question
from protocol.stats import PairCounts


def table(size: int = 40, *, seed: int = 1, late: bool = False) -> SurvivalTable:
    rng = np.random.default_rng(seed)
    # Whole months, so that there are ties.
    months = rng.integers(1, 30, size).astype(float)
    event, x = rng.random(size) < 0.6, rng.normal(size=(size, 2))
    start = months / 2 if late else None
    return SurvivalTable.of(("a", "b"), months, event, x, start_months=start)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Hospital]:
    def open_one(min_cell: int) -> Hospital:
        folder: Path = tmp_path_factory.mktemp("site")
        rows = [f"P{i},{i + 1},{i % 2},{50 + i}" for i in range(20)]
        (folder / "outcomes.csv").write_text("\n".join(["id,fu,ev,age", *rows]))
        outcomes = {"path": "outcomes.csv", "patient": "id", "months": "fu", "event": "ev"}
        content = {"name": "h", "outcomes": outcomes, "min_cell": min_cell}
        (folder / "site.yaml").write_text(yaml.safe_dump(content))
        return open_hospital(folder, STUDY)

    return open_one


STUDY = Study.model_validate(
    {
        "name": "boot",
        "seed": 1,
        "hospitals": {"train": ["h"]},
        "stages": ["survey", "regression"],
        "regression": {"covariates": ["a", "b"], "horizon_months": 24},
    }
)


def question(replicate: object, beta: tuple[float, ...] = (0.4, -0.2)) -> Question:
    return Question(STUDY, "cox", {"cox": {"replicate": replicate, "beta": list(beta)}}, None)


@given(size=st.integers(0, 60), events=st.integers(0, 60), min_cell=st.integers(1, 6))
def test_a_resample_has_as_many_patients_and_not_too_few_different_ones(
    size: int, events: int, min_cell: int
) -> None:
    happened = np.arange(size) < events
    times = draw_counts(happened, np.random.default_rng(size), min_cell=min_cell)
    assert times.sum() == size == len(times)
    if min_cell > 1:
        drawn = times > 0
        assert drawn.sum() >= min(min_cell, size)
        assert (drawn & happened).sum() >= min(min_cell, happened.sum())


def test_without_a_minimum_the_draw_is_the_plain_one() -> None:
    times = draw_counts(np.arange(50) < 1, np.random.default_rng(4), min_cell=1)
    plain = np.random.default_rng(4).multinomial(50, np.full(50, 1 / 50))
    assert (times == plain).all()


def test_a_hospital_whose_resamples_stay_too_small_says_so() -> None:
    # Twenty different patients of twenty: 20! / 20^20, one draw in 43 million.
    with pytest.raises(DataError, match=r"None of 200 resamples held .* minimum of 20"):
        draw_counts(np.ones(20, bool), np.random.default_rng(0), min_cell=20)


def test_a_weight_is_a_copy_under_breslows_ties(hospital: Callable[[int], Hospital]) -> None:
    patients, site = table(), hospital(1)
    weighted = resampled(site, question(3), patients)
    rng = site.private_generator("boot/optimism/3")
    times = draw_counts(patients.event, rng, min_cell=1)
    copies = patients.take(np.repeat(np.arange(40), times))
    beta = np.array([0.3, -0.5])
    ours = stratified_sums(weighted, beta, ties="breslow", min_cell=1)
    theirs = stratified_sums(copies, beta, ties="breslow", min_cell=1)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(ours.gradient, theirs.gradient, atol=1e-9)
    np.testing.assert_allclose(ours.information, theirs.information, atol=1e-9)
    # Who was drawn twice is still one person, for the hospital's minimum.
    assert ours.num_patients == (times > 0).sum() < 40


def test_replicate_0_is_the_patients_as_they_are(hospital: Callable[[int], Hospital]) -> None:
    patients, site = table(), hospital(1)
    assert resampled(site, question(0), patients) is patients
    answer = concordance(site, question(0), patients).document
    assert answer["drawn"] == answer["original"]
    risk = patients.x @ [0.4, -0.2]
    plain = PairCounts.of(patients.months, patients.event, risk, tau_months=24)
    assert answer["original"] == plain.to_dict()


def test_pairs_of_a_resample_one_by_one(hospital: Callable[[int], Hospital]) -> None:
    patients, site = table(), hospital(1)
    drawn = PairCounts.from_dict(concordance(site, question(7), patients).document["drawn"])
    times = draw_counts(patients.event, site.private_generator("boot/optimism/7"), min_cell=1)
    risk, months = patients.x @ [0.4, -0.2], patients.months
    happened = patients.event & (months < 24)
    concordant = comparable = 0
    for i in range(40):
        for j in range(40):
            later = months[i] < months[j] or (months[i] == months[j] and not happened[j])
            if happened[i] and later:
                comparable += times[i] * times[j]
                concordant += times[i] * times[j] * (risk[i] > risk[j])
    assert (drawn.comparable, drawn.concordant) == (comparable, concordant)


def test_few_different_events_before_the_horizon_are_not_told(
    hospital: Callable[[int], Hospital],
) -> None:
    rng = np.random.default_rng(2)
    months = np.r_[rng.uniform(1, 20, 4), np.full(36, 30.0)]
    late = SurvivalTable.of(("a", "b"), months, np.ones(40), rng.normal(size=(40, 2)))
    answer = concordance(hospital(5), question(2), late).document
    # Drawn several times, four patients may be five events; they are four patients.
    assert answer["drawn"]["num_patients"] == answer["original"]["num_patients"] == 0


def test_late_entry_has_no_pairs(hospital: Callable[[int], Hospital]) -> None:
    with pytest.raises(DataError, match="h has patients who came under observation after time"):
        concordance(hospital(1), question(1), table(late=True))


@pytest.mark.parametrize("replicate", [MAX_REPLICATES + 1, -1, 1.5, True])
def test_a_replicate_out_of_range_is_refused(
    hospital: Callable[[int], Hospital], replicate: object
) -> None:
    with pytest.raises(DataError, match="replicate beyond 1000 was asked for"):
        resampled(hospital(1), question(replicate), table())
