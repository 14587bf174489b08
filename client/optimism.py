"""The hospital's half of a bootstrap of the Cox regression: its own draws, weights, pair counts.

What a reader learns. The draws come from the hospital's secret, so that nobody else knows who was
drawn how often, and a resample of fewer than ``min_cell`` different patients or events is drawn
again. Of a refitted model two totals of pairs leave, on the resample and on the patients as they
are. The latter, at many coefficients, tell in which share of pairs each of many scores agrees with
the outcome, never which pair; `MAX_REPLICATES` bounds how many.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.cox import linear_predictor
from client.hospital import Hospital
from client.survival_table import SurvivalTable
from protocol.errors import DataError
from protocol.payload import Answer, Question
from protocol.stats import PairCounts

__all__ = ["MAX_REPLICATES", "concordance", "draw_counts", "resampled"]

IntArray = npt.NDArray[np.int64]
MAX_REPLICATES = 1000
# A hospital whose resamples are too small so often has too few events for this.
MAX_DRAWS = 200


def draw_counts(
    happened: npt.NDArray[np.bool_], rng: np.random.Generator, *, min_cell: int
) -> IntArray:
    """Return how often each of N patients is drawn, N times with replacement.

    Parameters
    ----------
    happened : bool array (N,)
        Who had the event.
    min_cell : int
        Above 1, whoever would count as fewer than ``min_cell`` different patients, or fewer
        different events (or all of them, where there are fewer), is drawn again as a whole.

    Raises
    ------
    DataError
        If no resample of `MAX_DRAWS` is large enough.
    """
    size = len(happened)
    if not size:
        return np.zeros(0, np.int64)
    enough = min(min_cell, size), min(min_cell, int(happened.sum()))
    for _ in range(MAX_DRAWS):
        times = rng.multinomial(size, np.full(size, 1 / size)).astype(np.int64)
        drawn = times > 0
        large = int(drawn.sum()) >= enough[0] and int((drawn & happened).sum()) >= enough[1]
        if large or min_cell <= 1:
            return times
    raise DataError(
        f"None of {MAX_DRAWS} resamples held as many different patients and events as the "
        f"hospital's minimum of {min_cell}; leave the hospital or the design bootstrap out."
    )


def resampled(hospital: Hospital, question: Question, table: SurvivalTable) -> SurvivalTable:
    """Return the patients as the replicate that was asked for weighs them; replicate 0 as they are.

    A patient drawn k times weighs k. That is the likelihood of the resample without the ties that
    copies of one patient would make, which no rule for ties was meant for.

    Raises
    ------
    DataError
        If the replicate is beyond `MAX_REPLICATES` or no resample is large enough.
    """
    times = _times(hospital, question, table)
    if times is None:
        return table
    drawn = times > 0
    return replace(table.take(drawn), weight=times[drawn].astype(np.float64))


def concordance(hospital: Hospital, question: Question, table: SurvivalTable) -> Answer:
    """Answer how a refitted model ranks the resample it was fitted to and the patients themselves.

    Parameters
    ----------
    table : SurvivalTable
        The patients as they are.

    Returns
    -------
    Answer
        ``drawn`` and ``original`` (PairCounts without replicates), truncated where the models are
        judged; of a patient drawn k times and another drawn m times ``drawn`` counts k m pairs.
        Empty counts where fewer than ``min_cell`` different patients had an event.

    Raises
    ------
    DataError
        If some came under observation after time zero, where Harrell's pairs are not defined.
    """
    if bool((table.start_months > 0).any()):
        raise DataError(
            f"{hospital.name} has patients who came under observation after time zero, for whom "
            "Harrell's C is not defined; leave the design bootstrap out."
        )
    asked, min_cell = question.agreed["cox"], hospital.config.min_cell
    tau_months = float(
        question.agreed.get("horizon_months", question.study.regression.horizon_months)
    )
    risk = linear_predictor(table, asked["beta"])
    counts = {}
    times = _times(hospital, question, table)
    for name, often in (("drawn", times), ("original", None)):
        often = np.ones(len(table), np.int64) if often is None else often
        judged = (often > 0) & table.event & (table.months < tau_months)
        at = np.repeat(np.arange(len(table)), often)
        pairs = PairCounts.of(table.months[at], table.event[at], risk[at], tau_months=tau_months)
        if int(judged.sum()) < min_cell:
            pairs = PairCounts.empty(tau_months)
        counts[name] = pairs.suppressed(min_cell).to_dict()
    return Answer(counts)


def _times(hospital: Hospital, question: Question, table: SurvivalTable) -> IntArray | None:
    replicate = question.agreed["cox"].get("replicate", 0)
    if type(replicate) is not int or not 0 <= replicate <= MAX_REPLICATES:
        raise DataError(
            f"A bootstrap replicate beyond {MAX_REPLICATES} was asked for; lower "
            "validate.optimism_replicates."
        )
    if not replicate:
        return None
    rng = hospital.private_generator(f"{question.study.name}/optimism/{replicate}")
    return draw_counts(table.event, rng, min_cell=hospital.config.min_cell)
