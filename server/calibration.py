"""Several calibration curves fitted in the same rounds: all roles, horizons and forms at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from protocol.errors import PayloadError
from protocol.evaluation import AskedCurve, Role, horizon_key
from protocol.stats import merge_all
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_fit import CalibrationFit, calibration_rounds
from protocol.stats.calibration_step import CalibrationStep
from server.evaluation_results import CalibrationResult

__all__ = ["Answers", "Key", "Outcome", "calibration_starts", "fit_together"]

Key = tuple[Role, float, str]
# By role, the steps of each of its hospitals.
Answers = dict[Role, list[list[object]]]
Ask = Callable[[list[AskedCurve]], Answers | None]


@dataclass(frozen=True)
class Outcome:
    """The result of one fit, and the fitted curve as a hospital is asked about it."""

    result: CalibrationResult
    asked: AskedCurve | None


def calibration_starts(
    roles: Sequence[Role], horizons: Sequence[float], knots: Mapping[str, tuple[float, ...]]
) -> dict[Key, CalibrationCurve]:
    """Return the ideal curve of every role, horizon and form; no spline without knots."""
    starts: dict[Key, CalibrationCurve] = {}
    for role in roles:
        for horizon in horizons:
            for form in ("intercept", "linear"):
                starts[role, horizon, form] = CalibrationCurve.ideal(form)
            places = knots.get(horizon_key(horizon), ())
            if places:
                starts[role, horizon, "spline"] = CalibrationCurve.ideal("spline", places)
    return starts


def fit_together(ask: Ask, starts: Mapping[Key, CalibrationCurve]) -> dict[Key, Outcome]:
    """Fit all curves; those that have settled are no longer asked about.

    Parameters
    ----------
    ask : callable
        Sends curves to the hospitals and returns by role the steps of each one, for the curves of
        that role in their order; None if the hospitals are no longer the same.

    Returns
    -------
    dict
        One outcome a start, in their order; with the reason where there is no maximum.
    """
    rounds = {key: calibration_rounds(start) for key, start in starts.items()}
    curves = {key: next(each) for key, each in rounds.items()}
    done: dict[Key, Outcome] = {}
    while curves:
        keys = list(curves)
        answers = ask([AskedCurve(key[0], key[1], curves[key]) for key in keys])
        if answers is None:
            why = "a hospital left during the fit, and sums of others do not go on from its own"
            done |= {key: _failed(key, curves[key], why) for key in keys}
            break
        for key in keys:
            curve = curves.pop(key)
            try:
                total = _total(key, keys, answers.get(key[0], []), curve)
                curves[key] = rounds[key].send(total)
            except StopIteration as settled:
                done[key] = _settled(key, settled.value)
            except PayloadError as error:
                done[key] = _failed(key, curve, error.sentence)
    return {key: done[key] for key in starts}


def _total(
    key: Key, keys: Sequence[Key], answers: Sequence[list[object]], curve: CalibrationCurve
) -> CalibrationStep:
    """Add the steps of one curve over the hospitals of its role."""
    own = [other for other in keys if other[0] == key[0]]
    parts = [CalibrationStep.empty(curve, key[1])]
    for steps in answers:
        if len(steps) != len(own):
            raise PayloadError(
                f"A hospital answered {len(steps)} of {len(own)} calibration curves; both ends "
                "must run the same version."
            )
        parts.append(CalibrationStep.from_dict(steps[own.index(key)]))
    return merge_all(parts)


def _settled(key: Key, fit: CalibrationFit) -> Outcome:
    result = CalibrationResult(
        horizon_months=key[1],
        form=key[2],
        knots=fit.curve.knots,
        coefficients=fit.curve.coefficients,
        covariance=tuple(tuple(row) for row in fit.covariance.tolist()),
        patients=fit.total.num_patients,
        cases=fit.total.num_cases,
        controls=fit.total.num_controls,
        rounds=fit.rounds,
    )
    return Outcome(result, AskedCurve(key[0], key[1], fit.curve))


def _failed(key: Key, curve: CalibrationCurve, why: str) -> Outcome:
    result = CalibrationResult(horizon_months=key[1], form=key[2], knots=curve.knots, why=why)
    return Outcome(result, None)
