"""Rounds of training whose replies the centre sees as one sum.

What a plain round checks of each reply (`server.replies`) the hospitals check themselves; here only
the sum can be looked at. Rules that work on the mean go on as ever; a hospital's loss, counts and
weight are not known, only those of all together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from privacy.secure_sum.packing import COUNTS, METRICS, Packing
from privacy.secure_sum.quantise import FixedPoint
from privacy.updates import PrivateUpdates, epsilon_after, next_clip_norm
from protocol.addressed import with_secure
from protocol.arrays import Arrays, layout
from protocol.config import Study
from protocol.errors import ConfigError, PayloadError
from protocol.payload import Refusal
from server.asking import WALL_CLOCK, Clock
from server.secure_session import SecureSession, open_session
from server.secure_sum import secure_sum
from strategies import RunningMean
from strategies.scaffold import control_of

__all__ = ["SecureFold", "SecureTraining", "Together", "check_summable"]


class Together(TypedDict, total=False):
    """What is known of all hospitals of a round together (JSON values only).

    With noise on the updates nothing is known of counts and losses, as they would be releases of
    their own; instead ``clip_norm`` was the bound, ``next_clip_norm`` is that of the next round,
    and ``epsilon`` at ``delta`` is what all rounds so far cost a hospital, each opened once.
    """

    weight: float
    num_patients: int
    num_events: int
    metrics: dict[str, float]
    clip_norm: float
    next_clip_norm: float
    epsilon: float
    delta: float


@dataclass
class SecureFold:
    """A round's mean, of whom, and what is known of them together."""

    mean: RunningMean
    active: list[str]
    refused: dict[str, Refusal]
    together: Together


@dataclass
class SecureTraining:
    """The secure sums of one stage; keys are agreed on once, and again when a hospital is back.

    Attributes
    ----------
    weight_by : {"patients", "events"}
    max_patients : mapping
        Patients each hospital registered; the largest is what weights are divided by.
    """

    grid: Grid
    nodes: Mapping[str, int]
    study: Study
    stage: Literal["sort", "segment", "prognosis"]
    weight_by: Literal["patients", "events"]
    max_patients: Mapping[str, int]
    clock: Clock = WALL_CLOCK
    session: SecureSession | None = field(default=None, init=False)

    def fold(
        self, number: int, request: RecordDict, arrays: Arrays, last: Together | None
    ) -> SecureFold:
        """Return the mean of the hospitals' models from one secure sum.

        Parameters
        ----------
        number : int
            The round, from 1.
        request : RecordDict
            The plain request of the round, for all.
        arrays : Arrays
            The global model in it.
        last : Together or None
            Of the round before.

        Raises
        ------
        QuorumError
            If too few hospitals send a vector or help to open the sum.
        PrivacyError
            If the shares do not fit together, or the study's noise does not fit the sum.
        PayloadError
            If the sum is impossible.
        """
        session = self._session(number)
        cap = float(max(self.max_patients[site] for site in session.call.cohort))
        packing = Packing(layout(arrays), self._section.step_bits, len(session.call.cohort))
        private = self._private(session, packing, last)
        clip_norm = None if private is None else private.clip_norm
        call = session.round_call(cap, clip_norm)
        total = secure_sum(
            session,
            with_secure(request, call.to_dict()),
            f"train.{self.stage}",
            round_id=call.round_id,
            size=packing.num_words if private is None else private.num_words,
            word_bits=32,
            group=f"{self.stage}-{number}",
        )
        fold = SecureFold(RunningMean(), total.active, total.refused | session.refused, {})
        if private is None:
            self._weighted(fold, packing, total.words, cap, arrays)
        else:
            self._noised(fold, packing, private, total.words, arrays, number)
        return fold

    @property
    def _section(self) -> Any:
        return self.study.secure_aggregation

    def _session(self, number: int) -> SecureSession:
        purpose = f"train.{self.stage}"
        if self.session is None or set(self.session.nodes) != set(self.nodes):
            self.session = open_session(
                self.grid, self.nodes, self.study, purpose, first_round=number, clock=self.clock
            )
        return self.session

    def _private(
        self, session: SecureSession, packing: Packing, last: Together | None
    ) -> PrivateUpdates | None:
        settings = self._section.updates
        if settings is None:
            return None
        clip_norm = settings.clip_norm if last is None else last["next_clip_norm"]
        grid = FixedPoint(self._section.step_bits, 32)
        threshold, n = session.call.threshold, len(session.call.cohort)
        return PrivateUpdates(settings, grid, n, threshold, packing.num_parameters, clip_norm)

    def _weighted(
        self, fold: SecureFold, packing: Packing, words: Any, cap: float, arrays: Arrays
    ) -> None:
        packed = packing.unpack(words)
        counts = {name: packed.counts[name] for name in COUNTS}
        limit = sum(self.max_patients[site] for site in fold.active)
        if not 0 <= counts["weight"] <= limit or counts["num_patients"] > limit:
            raise PayloadError(
                f"The hospitals together claim {counts['num_patients']} patients and a weight of "
                f"{counts['weight']}, expected up to the {limit} registered; a hospital's cohort "
                "has changed or its vector is broken, so repeat the survey."
            )
        fold.together = {
            "weight": float(counts["weight"]),
            "num_patients": counts["num_patients"],
            "num_events": counts["num_events"],
            "metrics": {},
        }
        if counts["weight"] == 0:
            return
        share = counts["weight"] / cap
        fold.together["metrics"] = {name: packed.metrics[name] / share for name in METRICS}
        change = {name: array / share for name, array in packed.update.items()}
        fold.mean.add(_moved(arrays, change), float(counts["weight"]))

    def _noised(
        self,
        fold: SecureFold,
        packing: Packing,
        private: PrivateUpdates,
        words: Any,
        arrays: Arrays,
        number: int,
    ) -> None:
        mean, within = private.unpack(words, len(fold.active))
        settings, bound = private.settings, private.clip_norm
        following = bound if within is None else next_clip_norm(bound, within, settings)
        fold.together = {
            "weight": float(len(fold.active)),
            "metrics": {},
            "clip_norm": bound,
            "next_clip_norm": following,
            "epsilon": epsilon_after(number, private.epsilon(), settings.delta),
            "delta": settings.delta,
        }
        fold.mean.add(_moved(arrays, packing.arrays(mean)), float(len(fold.active)))


def check_summable(state: Arrays, in_turn: bool) -> None:
    """Refuse rules that look at the update of one hospital.

    Parameters
    ----------
    state : Arrays
        The strategy's first state.

    Raises
    ------
    ConfigError
    """
    if control_of(state) or in_turn:
        raise ConfigError(
            "The strategy looks at the update of one hospital, and secure_aggregation shows sums "
            "only; choose another strategy, or leave secure_aggregation out."
        )


def _moved(arrays: Arrays, change: Arrays) -> Arrays:
    return {name: np.asarray(array + change[name]) for name, array in arrays.items()}
