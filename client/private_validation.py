"""Judging the survival network at a hospital with a privacy policy: noised histograms, no pairs.

The concordance index, survival by risk group and the curve of censoring all follow from one table
of risk group x time x status, of which a patient fills one cell: one vector of sensitivity 1. It
has few cells on purpose: the detail that more of them would add is lost in their noise
(`benchmarks/private_statistics.py`).

Axes: N patients, G groups of risk, T spans of time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.cohort import Patient
from client.hospital import Hospital
from client.kept_answers import Told, tell_once
from client.prediction import network_outputs, predicted_survival
from client.survey import had_event, has_outcome, validation_patients
from privacy.consistency import in_multiples, nearest_table, whole_counts
from privacy.noised_sums import Block, one_cell
from privacy.policy import PrivacyPolicy
from protocol.arrays import fingerprint
from protocol.errors import PayloadError, PrivacyError
from protocol.evaluation import SCORE_BINS, EvaluationPlan, group_names, horizon_key
from protocol.payload import Answer, Question
from protocol.stats import Histogram, LifeTable, ScoreTable, monthly_grid, risk_group
from protocol.stats.score_table import COLUMNS
from protocol.stats.sums import FloatArray, IntArray

__all__ = [
    "noised_table",
    "score_blocks",
    "scores",
    "table_blocks",
    "time_spans",
    "validate",
]

TIME_SPANS = 4
MAX_HORIZONS = 6  # of `protocol.validation_config`
COARSE_BINS = 25
FINER = SCORE_BINS // COARSE_BINS


def scores(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    """Answer noised histograms of the training patients' predicted risks.

    One histogram a horizon, so a patient's entry is as long as the root of their number; 25 bins,
    each spread over 8 of the 200 that all hospitals add up.

    Returns
    -------
    Answer
        ``scores`` of the risk by the agreed horizon, ``scores_at`` by each named horizon.
    """
    agreed = question.agreed
    _require_few(len(agreed["horizons_months"]), MAX_HORIZONS, "horizons")
    times = tuple(sorted({float(agreed["horizon_months"]), *agreed["horizons_months"]}))
    patients = has_outcome(hospital.training)
    asked = {**_asked(question), "times": list(times)}

    def blocks() -> dict[str, Block]:
        return score_blocks(1 - _survival(hospital, question, patients, times), times)

    told = tell_once(hospital, question.study, terms, "query.scores", asked, blocks)
    found = {key: _histogram(sums, hospital.config.min_cell) for key, sums in told.sums.items()}
    at = {
        horizon_key(horizon): found[horizon_key(horizon)] for horizon in agreed["horizons_months"]
    }
    return Answer({"scores": found[horizon_key(float(agreed["horizon_months"]))], "scores_at": at})


def score_blocks(risk: FloatArray, times: Sequence[float]) -> dict[str, Block]:
    """Return the bin each patient's risk (N, times) fills, by time."""
    bins = np.clip(np.floor(risk * COARSE_BINS), 0, COARSE_BINS - 1).astype(np.int64)
    return {horizon_key(t): one_cell(bins[:, at], COARSE_BINS) for at, t in enumerate(times)}


def _histogram(sums: FloatArray, min_cell: int) -> dict[str, Any]:
    total = max(float(np.rint(sums.sum())), 0.0)
    counts = whole_counts(nearest_table(sums, total)).astype(np.float64)
    coarse = Histogram(0.0, 1.0, counts).suppressed(min_cell)
    return Histogram(0.0, 1.0, np.repeat(coarse.counts / FINER, FINER)).to_dict()


def validate(hospital: Hospital, question: Question, terms: PrivacyPolicy) -> Answer:
    """Answer survival by risk group and the score table, from one noised table.

    Returns
    -------
    Answer
        ``life_table`` and ``evaluation`` with a ``score_table``, both suppressed after the noise;
        both say over which spans their counts were taken together. Nothing else.

    Raises
    ------
    PrivacyError
        If the hospital's outcomes have a column of late entry, which the network does not know.
    BudgetError
        If the answer costs more than the caps leave.
    """
    _require_from_zero(hospital)
    study, agreed = question.study, question.agreed
    _require_few(len(agreed["risk_cuts"]) + 1, study.validate_.risk_groups, "groups of risk")
    plan = EvaluationPlan.from_dict(agreed.get("evaluation"))
    # Groups end where a bin of the common score table does, so that no bin is of two groups.
    aligned = _nearest(tuple(agreed["risk_cuts"]), plan.score_edges)
    cuts, horizon = tuple(sorted(set(aligned))), float(agreed["horizon_months"])
    patients = validation_patients(hospital, study)
    asked = {
        **_asked(question),
        "cuts": list(cuts),
        "horizon": horizon,
        "external": hospital.name in study.hospitals.external,
    }

    def blocks() -> dict[str, Block]:
        months = np.array([patient.months for patient in patients], np.float64)
        event = np.array([had_event(patient, study) for patient in patients], bool)
        risk = 1 - _survival(hospital, question, patients, (horizon,))[:, 0]
        return table_blocks(months, event, risk, cuts=cuts, spans=time_spans(horizon))

    told = tell_once(hospital, study, terms, "evaluate.prognosis", asked, blocks)
    min_cell = hospital.config.min_cell
    table = noised_table(told, cuts, time_spans(horizon), min_cell)
    boxes = _onto(table.suppressed(min_cell), plan.score_edges, plan.grid_months)
    by_group = _by_group(table, aligned, min_cell)
    return Answer(
        {"life_table": by_group.to_dict(), "evaluation": {"score_table": boxes.to_dict()}}
    )


def _nearest(cuts: tuple[float, ...], edges: tuple[float, ...]) -> tuple[float, ...]:
    """Return the edge nearest to each cut point; the cut points where there is no edge."""
    known = np.asarray(edges)
    return tuple(float(known[np.abs(known - cut).argmin()]) for cut in cuts) if edges else cuts


def time_spans(horizon_months: float) -> tuple[float, ...]:
    """Return 0 and the ends of the spans in which times are told, whole months but the last."""
    grid = monthly_grid(horizon_months)
    at = np.rint(np.linspace(0, len(grid) - 1, TIME_SPANS + 1)).astype(int)
    return tuple(grid[index] for index in sorted(set(at.tolist())))


def table_blocks(
    months: FloatArray,
    event: np.ndarray,
    risk: FloatArray,
    *,
    cuts: tuple[float, ...],
    spans: tuple[float, ...],
) -> dict[str, Block]:
    """Return the cell of the (group, event by span then censored by span) table each one fills."""
    num_spans = len(spans) - 1
    group = risk_group(risk, cuts)
    span = np.maximum(np.searchsorted(np.asarray(spans), months, side="left") - 1, 0)
    counted = np.asarray(event, bool) & (months <= spans[-1])
    column = np.where(counted, span, num_spans + span)
    width = 2 * num_spans + 1
    return {"table": one_cell(group * width + column, (len(cuts) + 1) * width)}


def _require_few(number: int, most: int, what: str) -> None:
    """Bound what the centre asks before a table of it is made for every patient."""
    if number > most:
        raise PayloadError(
            f"The centre asks about {number} {what}, where the study has {most} at most; both ends "
            "must run the same version."
        )


def _require_from_zero(hospital: Hospital) -> None:
    # Asked of the settings: whether any patient came late would be an exact answer.
    outcomes = hospital.config.outcomes
    if outcomes is not None and outcomes.start is not None:
        raise PrivacyError(
            f"{hospital.name} has outcomes with a column of late entry, and the noised table has "
            "no place for it; judge the network at other hospitals."
        )


def _asked(question: Question) -> dict[str, Any]:
    """Return what the predictions depend on beside the patients."""
    study = question.study
    names = ("cuts_months", "scales", "baseline", "segmentation")
    return {
        "model": fingerprint(question.arrays or {}),
        "agreed": {name: question.agreed.get(name) for name in names},
        "prognosis": study.prognosis.model_dump(mode="json"),
        "holdout": study.holdout.model_dump(),
        "seed": study.seed,
    }


def _survival(
    hospital: Hospital, question: Question, patients: list[Patient], times: Sequence[float]
) -> FloatArray:
    if not patients:
        return np.ones((0, len(times)))
    outputs = network_outputs(hospital, question, patients)
    return np.asarray(predicted_survival(question, outputs, times), np.float64)


def noised_table(
    told: Told, cuts: tuple[float, ...], spans: tuple[float, ...], min_cell: int
) -> ScoreTable:
    """Return the noised table on its own few cells, each of a multiple of ``min_cell`` patients.

    Joined into larger boxes instead (`ScoreTable.suppressed`), 66 patients would leave an index
    that misses by .18 where the noise alone misses by .05 (`benchmarks/private_statistics.py`).
    """
    noised = told.sums["table"].reshape(len(cuts) + 1, -1)
    total = max(float(np.rint(noised.sum())), 0.0)
    counts = whole_counts(nearest_table(noised, total))
    num_spans = len(spans) - 1
    # Events, then censorings, up and down the groups in turn, so that neighbours stay neighbours.
    for part in (counts[:, :num_spans], counts[:, num_spans:]):
        part[1::2] = part[1::2, ::-1]
        part[:] = in_multiples(part.ravel(), min_cell).reshape(part.shape)
        part[1::2] = part[1::2, ::-1]
    rows = []
    for group, column in np.argwhere(counts > 0).tolist():
        status = int(column < num_spans)
        span = column if status else column - num_spans
        rows.append([group, group, span, span, status, int(counts[group, column])])
    return ScoreTable(cuts, spans, _sorted(rows), 0)


def _sorted(rows: list[list[int]]) -> IntArray:
    return np.array(sorted(rows), np.int64).reshape(-1, COLUMNS) if rows else np.zeros(0, np.int64)


def _onto(
    table: ScoreTable, edges: tuple[float, ...], grid_months: tuple[float, ...]
) -> ScoreTable:
    """Return the same boxes on finer bins: each spans all bins its patients may be in."""
    low = np.array((-np.inf, *table.edges))
    high = np.array((*table.edges, np.inf))
    start, stop = np.array(table.grid_months), np.array((*table.grid_months[1:], np.inf))
    grid, beyond = np.asarray(grid_months), len(grid_months) - 1
    blank = ScoreTable.empty(edges, grid_months)
    found = ScoreTable(edges, grid_months, blank.boxes, table.withheld)
    for first, last, early, late, status, count in table.boxes.reshape(-1, COLUMNS).tolist():
        bins = (
            int(np.searchsorted(edges, low[first], side="right")),
            int(np.searchsorted(edges, high[last], side="left")),
        )
        times = (
            int(np.searchsorted(grid, start[early], side="right")) - 1,
            min(int(np.searchsorted(grid, stop[late], side="left")) - 1, beyond - status),
        )
        box = np.array([[bins[0], max(bins), *times, status, count]], np.int64)
        found = found.merge(ScoreTable(edges, grid_months, box, 0))
    return found


def _by_group(table: ScoreTable, risk_cuts: tuple[float, ...], min_cell: int) -> LifeTable:
    """Return the life table by the study's risk groups, spread over months."""
    spans, names = table.grid_months, group_names(len(risk_cuts) + 1)
    blank = LifeTable.empty(spans, names)
    events, censored = blank.events.copy(), blank.censored.copy()
    # Where two cut points are one, the group between them is empty.
    place = [0, *np.searchsorted(risk_cuts, table.edges, side="right").tolist()]
    for group, _, span, _, status, count in table.boxes.reshape(-1, COLUMNS).tolist():
        (events if status else censored)[place[group], span] += count
    coarse = LifeTable(spans, names, events, censored, blank.withheld, 0.0).suppressed(min_cell)
    return _monthly(coarse)


def _monthly(table: LifeTable) -> LifeTable:
    """Return a table on spans as one on months: counts are spread evenly over their span."""
    grid, spans = monthly_grid(table.grid_months[-1]), np.asarray(table.grid_months)
    # Column of the span each month lies in, and how many months share it.
    of = np.searchsorted(spans, np.asarray(grid[1:]), side="left") - 1
    share = np.bincount(of, minlength=len(spans) - 1)[of]
    events = table.events[:, of] / share
    inside = table.censored[:, of] / share
    censored = np.concatenate([inside, table.censored[:, -1:]], axis=1)
    coarse = max(table.coarse_months, float(np.diff(spans).max()))
    return LifeTable(grid, table.names, events, censored, table.withheld, coarse)
