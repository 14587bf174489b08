"""Statistics of a hospital with a privacy policy: what one patient changes, and what is told."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client import kept_answers, private_answers, private_validation
from client.cohort import Cohort, Patient
from client.dictionary import COVARIATES
from client.holdout import held_out
from client.hospital import Hospital
from client.kept_answers import Told, tell_once
from client.policy import load_policy, site_ledger
from client.private_answers import NOISED, REFUSED, private_answer
from client.private_moments import overlap_blocks
from client.private_survey import survey, survey_blocks
from client.private_validation import noised_table, score_blocks, table_blocks, time_spans
from client.quantities import MEASUREMENTS
from client.site import SiteConfig
from client.site_sections import Images, Outcomes
from client.survey import covariate_matrix, had_event, has_outcome
from client.survey import survey as exact_survey
from privacy.noised_sums import (
    FINENESS,
    Block,
    noised_sums,
    one_cell,
    squared_sensitivity,
)
from privacy.policy import PrivacyPolicy
from protocol.config import Study
from protocol.errors import BudgetError, PayloadError, PrivacyError
from protocol.payload import Question
from protocol.public_ranges import PUBLIC_RANGES, public_ranges
from protocol.stats import LifeTable, Moments, PairCounts
from protocol.stats.missingness import Missingness
from protocol.stats.table_concordance import harrell_c
from protocol.survey_grid import survey_grid

STUDY = Study.model_validate(
    {
        "name": "s",
        "seed": 1,
        "hospitals": {"train": ["alder"]},
        "stages": ["survey", "prognosis"],
        "prognosis": {"covariates": ["age", "sex", "gene"], "max_horizon_months": 36},
        "ranges": {"gene": [-3, 3]},
    }
)
EXACT, USELESS = 1e-4, 1e4
Sums = dict[str, np.ndarray]


def terms(noise: float, **changes: float) -> PrivacyPolicy:
    return PrivacyPolicy(
        **{
            "noise_multiplier": 1.0,
            "clip_norm": 1.0,
            "sampling_rate": 0.1,
            "steps_per_round": 5,
            "max_rounds": 5,
            "delta": 1e-3,
            "study_epsilon": 1e30,
            "lifetime_epsilon": 1e30,
            "statistics_noise": noise,
            **changes,
        }
    )


def seeded(seed: int) -> Callable[[int], int]:
    return random.Random(seed).randrange  # noqa: S311 - the same draws in every run


def hospital(patients: list[Patient], folder: Path = Path(), min_cell: int = 1) -> Hospital:
    """Return a hospital of these patients, split as one with a policy is."""
    patients = sorted(patients, key=lambda patient: patient.key)
    aside = held_out(patients, STUDY.holdout, STUDY.seed, "alder", each_alone=True)
    config = SiteConfig(
        name="alder",
        images=Images(format="dicom", path="dicom"),
        outcomes=Outcomes(path="o.csv", patient="id", months="m", event="e", causes=2),
        min_cell=min_cell,
    )
    sides = [tuple(p for p, out in zip(patients, aside, strict=True) if out == s) for s in (0, 1)]
    return Hospital(folder, config, (Cohort("alder", (), (), "f" * 64),), *sides)


@pytest.fixture
def patients(make_patient: Callable[..., Patient]) -> list[Patient]:
    rng = np.random.default_rng(0)
    return [
        replace(
            make_patient(i, masks=i % 2 == 0, event=int(i % 3 == 0)),
            months=float(rng.uniform(1, 80)),
            vendor="ge" if i < 30 else "siemens",
            covariates={
                "age": float(rng.normal(60, 10)),
                "sex": float(i % 2),
                "gene": np.nan if i % 5 == 0 else float(rng.normal()),
            },
        )
        for i in range(120)
    ]


def adversaries(patient: Patient) -> Iterator[Patient]:
    """Yield patients that are as far out as any can be, on either side of the split."""
    numbers = (np.nan, -np.inf, np.inf, -1e300, 1e300, 18.0, 95.0, 0.0, 1.0)
    times = (0.0, 6.0, 6.001, 36.0, 36.001, 1e9, np.nan)
    for at, (months, event) in enumerate(product(times, (-1, 0, 1, 2))):
        value = numbers[at % len(numbers)]
        yield replace(
            patient,
            key=f"{7919 * at + 5:016x}",
            months=months,
            event=event,
            vendor=("siemens", "canon", "other")[at % 3],
            field_strength_t=(1.5, 2.89, 7.0, np.nan)[at % 4],
            covariates=dict.fromkeys(("age", "sex", "gene"), value),
        )


def change(more: Mapping[str, Block], fewer: Mapping[str, Block]) -> int:
    """Return the squared length of what separates two neighbours' sums."""
    differences = [more[name].rows.sum(axis=0) - fewer[name].rows.sum(axis=0) for name in fewer]
    return int(sum((difference**2).sum() for difference in differences))


def test_one_patient_changes_the_survey_by_no_more_than_its_sensitivity(
    patients: list[Patient], make_patient: Callable[..., Patient]
) -> None:
    fewer = survey_blocks(hospital(patients), STUDY)
    changes = []
    for masks in (False, True):
        for strange in adversaries(make_patient(0, masks=masks)):
            more = survey_blocks(hospital([*patients, strange]), STUDY)
            assert squared_sensitivity(more) == squared_sensitivity(fewer)
            changes.append(change(more, fewer))
    bound = squared_sensitivity(fewer)
    # Side, status, table, vendor, field strength, masks, and three covariates.
    assert bound == FINENESS**2 * (1 + 1 + 4 + 1 + 1 + 1 + 3 * 5 / 4)
    # The bound is no larger than it must be: somebody reaches it.
    assert max(changes) == bound


def test_dealt_in_turn_one_patient_would_change_far_more(patients: list[Patient]) -> None:
    def sides(chosen: list[Patient], *, each_alone: bool) -> dict[str, bool]:
        chosen = sorted(chosen, key=lambda p: p.key)
        mask = held_out(chosen, STUDY.holdout, 1, "alder", each_alone=each_alone)
        return {p.key: bool(out) for p, out in zip(chosen, mask, strict=True)}

    for each_alone in (False, True):
        all_but_one = sides(patients[1:], each_alone=each_alone)
        everybody = sides(patients, each_alone=each_alone)
        moved = sum(everybody[key] != side for key, side in all_but_one.items())
        assert (moved == 0) is each_alone
    folds = [
        held_out(patients, STUDY.holdout.model_copy(update={"fold": k}), 1, "a", each_alone=True)
        for k in range(5)
    ]
    assert np.sum(folds, axis=0).tolist() == [1] * len(patients)
    assert all(10 < fold.sum() < 40 for fold in folds)


def test_one_patient_changes_the_other_answers_by_no_more_than_theirs() -> None:
    rng = np.random.default_rng(1)
    cuts, spans, times = (0.3, 0.6), time_spans(37.5), (12.0, 24.0)
    dice = rng.random((30, 6))
    months, event, risk = rng.uniform(0, 50, 30), rng.random(30) < 0.5, rng.random((30, 2))
    score = {"cuts": cuts, "spans": spans}
    answers: list[tuple[Mapping[str, Block], Iterator[Mapping[str, Block]], float]] = [
        (
            overlap_blocks(dice),
            (overlap_blocks(np.vstack([dice, np.full(6, v)])) for v in (0, 0.5, 1, np.nan, 9)),
            1 + 6 * 5 / 4,
        ),
        (
            table_blocks(months, event, risk[:, 0], **score),
            (
                table_blocks(
                    np.append(months, m), np.append(event, e), np.append(risk[:, 0], r), **score
                )
                for m, e, r in product((0.0, 12, 37.5, 38, 1e9), (False, True), (0.0, 0.3, 0.6, 1))
            ),
            1.0,
        ),
        (
            score_blocks(risk, times),
            (
                score_blocks(np.vstack([risk, [a, b]]), times)
                for a, b in product((0, 0.04, 1), repeat=2)
            ),
            2.0,
        ),
    ]
    for fewer, neighbours, bound in answers:
        changes = [change(more, fewer) for more in neighbours]
        assert squared_sensitivity(fewer) == bound * FINENESS**2
        assert max(changes) == squared_sensitivity(fewer)


def test_with_next_to_no_noise_the_survey_is_the_exact_one(
    patients: list[Patient], tmp_path: Path
) -> None:
    site = hospital(patients, tmp_path)
    question = Question(STUDY, "survey")
    told = survey(site, question, terms(EXACT)).document
    exact = exact_survey(site, question).document
    assert told.pop("noise_sd") == pytest.approx(EXACT * np.sqrt(12.75))
    assert set(told) == set(exact)
    same = ("patients", "events", "competing_events", "can_train", "units", "min_cell")
    assert {key: told[key] for key in same} == {key: exact[key] for key in same}
    assert LifeTable.from_dict(told["life_table"]) == LifeTable.from_dict(exact["life_table"])
    assert told["vendors"] == exact["vendors"]
    assert told["field_strengths_t"] == {"1.5": 120}
    ours, theirs = (Moments.from_dict(each["covariates"]) for each in (told, exact))
    assert ours.n.tolist() == theirs.n.tolist() and ours.missing.tolist() == theirs.missing.tolist()
    # Clamped to the ranges, within half a unit of 1 / 1024 of their widths.
    values = covariate_matrix(site.training, STUDY.covariates).clip([18, 0, -3], [95, 1, 3])
    clipped = Moments.of(STUDY.covariates, values)
    assert ours.mean == pytest.approx(clipped.mean, abs=0.05)
    assert ours.sd == pytest.approx(clipped.sd, rel=0.01)
    counts, exact_counts = (Missingness.from_dict(each["missingness"]) for each in (told, exact))
    assert counts.missing.tolist() == exact_counts.missing.tolist()
    assert (counts.zeros[1], counts.binary[1]) == (exact_counts.zeros[1], 1)
    # Middles of the half-years, and nobody is followed beyond the 36 months.
    followed = np.minimum([p.months for p in patients], 36)
    assert told["person_years"] == pytest.approx(followed.sum() / 12, rel=0.03)
    assert told["median_followup_months"] == min(exact["median_followup_months"], 36)


def test_with_very_much_noise_it_says_nothing_and_still_has_its_form(
    patients: list[Patient], tmp_path: Path
) -> None:
    documents = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        site = hospital(patients, tmp_path / run, min_cell=5)
        documents.append(survey(site, Question(STUDY, "survey"), terms(USELESS)).document)
    assert documents[0] != documents[1]
    for told in documents:
        moments = Moments.from_dict(told["covariates"])
        assert ((moments.mean >= -3) & (moments.mean <= 95)).all()
        Missingness.from_dict(told["missingness"])
        LifeTable.from_dict(told["life_table"])
        assert told["patients"] is None or told["patients"] >= 5
        assert all(number >= 1 for number in told["can_train"].values())


@pytest.mark.parametrize("noise", [EXACT, 3.0])
def test_suppression_comes_after_the_noise(
    patients: list[Patient], tmp_path: Path, noise: float
) -> None:
    few = [replace(p, vendor="canon" if i < 3 else "ge") for i, p in enumerate(patients)]
    for run in range(8):
        (tmp_path / str(run)).mkdir()
        site = hospital(few, tmp_path / str(run), min_cell=5)
        told = survey(site, Question(STUDY, "survey"), terms(noise)).document
        counts = [told[key] for key in ("patients", "events", "competing_events")]
        counts += [*told["vendors"].values(), *told["field_strengths_t"].values()]
        assert all(count is None or count == 0 or count >= 5 for count in counts)
        moments = Moments.from_dict(told["covariates"])
        assert (moments.n % 5 == 0).all() and (moments.missing % 5 == 0).all()
        assert told["refused"] == {}
        if noise == EXACT:
            assert told["vendors"] == {"canon": None, "ge": None}


def test_the_same_question_has_the_same_answer_and_is_charged_once(
    patients: list[Patient], tmp_path: Path
) -> None:
    site, policy = hospital(patients, tmp_path), terms(2.0)
    first = survey(site, Question(STUDY, "survey"), policy).document
    entries = list(site_ledger(tmp_path).entries())
    assert survey(site, Question(STUDY, "survey"), policy).document == first
    later = STUDY.model_copy(update={"rounds": STUDY.rounds.model_copy(update={"join_s": 9.0})})
    assert survey(site, Question(later, "survey"), policy).document == first
    assert list(site_ledger(tmp_path).entries()) == entries and len(entries) == 1
    spend = entries[0].spend
    assert (spend.noise_multiplier, spend.sampling_rate, spend.num_steps) == (2.0, 1.0, 1)
    assert (entries[0].study, entries[0].purpose, entries[0].committed) == ("s", "survey", True)
    # Another grid, another study or other data are another question.
    section = STUDY.prognosis.model_copy(update={"max_horizon_months": 24.0})
    assert survey(site, Question(STUDY.model_copy(update={"prognosis": section}), "x"), policy)
    survey(site, Question(STUDY.model_copy(update={"name": "t"}), "survey"), policy)
    changed = replace(site, cohorts=(Cohort("alder", (), (), "e" * 64),))
    assert survey(changed, Question(STUDY, "survey"), policy).document != first
    assert len(list(site_ledger(tmp_path).entries())) == 4


def test_beyond_the_budget_no_patient_is_looked_at(tmp_path: Path) -> None:
    def blocks() -> dict[str, Block]:
        raise AssertionError("the patients were looked at")

    site = hospital([], tmp_path)
    with pytest.raises(BudgetError, match="declined: budget"):
        tell_once(site, STUDY, terms(1.0, study_epsilon=0.1), "survey", {}, blocks)
    assert not (tmp_path / ".concors/studies/s/told").exists()


def test_a_crash_costs_the_reservation_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, policy = hospital([], tmp_path), terms(1.0)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_answers, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        tell_once(site, STUDY, policy, "survey", {}, lambda: {"a": one_cell([0], 1)})
    monkeypatch.undo()
    tell_once(site, STUDY, policy, "survey", {}, lambda: {"a": one_cell([0], 1)})
    committed = [entry.committed for entry in site_ledger(tmp_path).entries()]
    assert committed == [False, True]


def event_days(months: np.ndarray, survival: np.ndarray) -> np.ndarray:
    """Return the days on which a published curve falls: the attack on Kaplan-Meier curves."""
    return np.rint(months[np.diff(survival, prepend=1.0) < 0] * 30.4375)


def test_no_event_day_can_be_read_off_the_curve(patients: list[Patient], tmp_path: Path) -> None:
    # An event on a grid point would be read by whoever guesses the grid points.
    rng = np.random.default_rng(4)
    patients = [
        replace(p, months=6 * (i % 7) + float(rng.uniform(0.2, 5.8)))
        for i, p in enumerate(patients)
    ]
    site = hospital(patients, tmp_path)
    rows = [p for p in has_outcome(site.training) if had_event(p, STUDY) and p.months < 36]
    days = {round(p.months * 30.4375) for p in rows}
    # The attack is one: of the exact curve every day is read.
    times = np.array(sorted(p.months for p in rows))
    exact = event_days(times, 1 - np.arange(1, len(times) + 1) / len(times))
    assert set(exact) == days and len(days) > 20
    told = survey(site, Question(STUDY, "survey"), terms(3.0)).document
    curve = LifeTable.from_dict(told["life_table"]).curve(0)
    assert not days & set(event_days(np.asarray(curve.months), curve.survival))


def test_who_knows_everybody_else_does_not_learn_when_the_last_one_had_the_event(
    patients: list[Patient],
) -> None:
    """The strongest reader: all others known, two half-years left to choose from."""
    target = replace(patients[0], event=1)
    while held_out([target], STUDY.holdout, 1, "alder", each_alone=True)[0]:
        target = replace(target, key=f"{int(target.key, 16) + 1000:016x}")
    either = [
        survey_blocks(hospital([*patients[1:], replace(target, months=m)]), STUDY)
        for m in (3.0, 33.0)
    ]
    sums = [np.concatenate([b.rows.sum(axis=0) for b in each.values()]) for each in either]

    source = seeded(8)

    def share_right(noise: float) -> float:
        right = 0
        for run in range(100):
            truth = run % 2
            told = noised_sums(either[truth], noise, source)
            seen = np.concatenate(list(told.values())) * FINENESS
            guess = int(np.linalg.norm(seen - sums[1]) < np.linalg.norm(seen - sums[0]))
            right += guess == truth
        return right / 100

    assert share_right(0.05) == 1.0
    # Phi(sqrt(2) / (3 * 3.57)) = .55 of them; the rest is the luck of 100 draws.
    assert 0.4 < share_right(3.0) < 0.7


def test_the_index_follows_from_the_noised_table() -> None:
    source = seeded(8)
    rng = np.random.default_rng(2)
    risk = rng.random(400)
    time, end = rng.exponential(40 * np.exp(-2 * (risk - 0.5))), rng.uniform(6, 72, 400)
    months, event = np.minimum(time, end), time <= end
    cuts, spans = (1 / 3, 2 / 3), time_spans(48.0)
    blocks = table_blocks(months, event, risk, cuts=cuts, spans=spans)
    exact = PairCounts.of(months, event, risk, tau_months=48.0, replicates=0, rng=rng).c_index

    def index(noise: float, min_cell: int) -> float:
        told = Told(noised_sums(blocks, noise, source), noise)
        table = noised_table(told, cuts, spans, min_cell)
        boxes = table.boxes.reshape(-1, 6)
        assert (boxes[:, 5] >= min_cell).all()
        return harrell_c(table).value

    assert index(EXACT, 1) == pytest.approx(exact, abs=0.03)
    assert index(EXACT, 5) == pytest.approx(exact, abs=0.05)
    near = [abs(index(300.0, 1) - exact) < 0.05 for _ in range(10)]
    assert sum(near) < 5
    assert spans == (0.0, 12.0, 24.0, 36.0, 48.0)
    assert time_spans(2.5) == (0.0, 1.0, 2.0, 2.5)


def test_every_question_the_app_knows_is_noised_or_refused() -> None:
    text = (Path(private_answers.__file__).parent / "app.py").read_text()
    kinds = [
        f"{kind}.{name}"
        for kind in ("query", "evaluate")
        for name in (part.split('"')[0] for part in text.split(f'@app.{kind}("')[1:])
    ]
    # About papers, keys and masks; none opens a patient's data.
    others = ["query.hello", "query.manifest", "query.secure_open", "query.secure_tell"]
    assert sorted([*NOISED, *REFUSED, *others]) == sorted(kinds)
    assert not set(NOISED) & set(REFUSED)


@pytest.mark.parametrize("asked", [*REFUSED, "query.something_new"])
def test_what_cannot_be_noised_is_refused_in_one_sentence(asked: str, tmp_path: Path) -> None:
    site = hospital([], tmp_path)
    with pytest.raises(PrivacyError) as caught:
        private_answer(site, Question(STUDY, "survey"), terms(1.0), asked)
    sentence = caught.value.sentence
    assert sentence.startswith(f"alder answers with noise only and declines '{asked}', which asks")
    assert sentence.count(". ") == 0 and str(tmp_path) not in sentence
    assert not (tmp_path / ".concors").exists()


def test_a_table_of_more_groups_than_the_study_has_is_not_made(tmp_path: Path) -> None:
    site = hospital([], tmp_path)
    agreed = {"risk_cuts": [0.1, 0.2, 0.3], "horizons_months": [float(m) for m in range(1, 8)]}
    with pytest.raises(PayloadError, match="asks about 4 groups of risk, where the study has 3"):
        private_validation.validate(site, Question(STUDY, "x", agreed), terms(1.0))
    with pytest.raises(PayloadError, match="asks about 7 horizons, where the study has 6 at most"):
        private_validation.scores(site, Question(STUDY, "x", agreed), terms(1.0))
    late = site.config.outcomes.model_copy(update={"start": "begun"})
    config = site.config.model_copy(update={"outcomes": late})
    with pytest.raises(PrivacyError, match="alder has outcomes with a column of late entry"):
        question = Question(STUDY, "x", agreed)
        private_validation.validate(replace(site, config=config), question, terms(1.0))
    assert not site_ledger(tmp_path).entries()


def test_ranges_are_public_and_a_study_may_state_its_own() -> None:
    assert set(PUBLIC_RANGES) == {*COVARIATES, *MEASUREMENTS}
    for name, (low, high) in PUBLIC_RANGES.items():
        entry = COVARIATES.get(name)
        assert low < high and (entry is None or entry.low <= low < high <= entry.high)
    own = STUDY.model_copy(update={"ranges": {"gene": (0.0, 9.0), "age": (60.0, 80.0)}})
    assert public_ranges(("age", "gene", "bmi"), own) == [(60, 80), (0, 9), (15, 50)]
    bare = STUDY.model_copy(update={"ranges": {}})
    with pytest.raises(PrivacyError, match=r"'gene' has no public range.*'ranges: \{gene: \[low"):
        public_ranges(("age", "gene"), bare)
    with pytest.raises(ValueError, match=r"ranges\.gene does not rise"):
        Study.model_validate({**STUDY.model_dump(by_alias=True), "ranges": {"gene": [3, 3]}})


def test_the_policy_is_read_beside_the_site(tmp_path: Path) -> None:
    content: dict[str, Any] = {"privacy": terms(3.0).model_dump()}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(content))
    policy = load_policy(tmp_path, hospital([]).config).privacy
    assert policy is not None and policy.statistics_noise == 3.0
    assert survey_grid(STUDY)[-1] == 36
