"""Calibration curve of all hospitals by Newton's method, one round of sums a step."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from protocol.errors import PayloadError
from protocol.stats.calibration_curve import CalibrationCurve
from protocol.stats.calibration_step import CalibrationStep
from protocol.stats.sums import FloatArray, require

__all__ = ["MAX_ROUNDS", "CalibrationFit", "calibration_rounds", "fit_calibration"]

MAX_ROUNDS = 25


@dataclass(frozen=True)
class CalibrationFit:
    """A fitted curve.

    Attributes
    ----------
    curve : CalibrationCurve
        At the maximum of the weighted likelihood.
    covariance : float array (P, P)
        Robust (sandwich), G taken as known.
    total : CalibrationStep
        The sums of the last round, with the numbers of patients, cases and controls.
    rounds : int
        Times the hospitals were asked.
    """

    curve: CalibrationCurve
    covariance: FloatArray
    total: CalibrationStep
    rounds: int

    @property
    def standard_errors(self) -> FloatArray:
        """Of the coefficients, (P,)."""
        return np.sqrt(np.diag(self.covariance))


def calibration_rounds(
    start: CalibrationCurve,
) -> Generator[CalibrationCurve, CalibrationStep, CalibrationFit]:
    """Yield the curve of each round, take the total of the hospitals' steps, return the fit.

    As a generator, so that several fits can share their rounds; for one fit see `fit_calibration`,
    also for what it raises.
    """
    best, step, curve = None, np.zeros(len(start.coefficients)), start
    for rounds in range(1, MAX_ROUNDS + 1):
        total = yield curve
        require(
            min(total.num_cases, total.num_controls) > 0,
            "Calibration needs patients with and without the event by the horizon; "
            "choose a horizon that more hospitals can answer.",
        )
        slack = 1e-12 * (1 + abs(total.log_likelihood))
        if best is not None and not total.log_likelihood >= best.log_likelihood - slack:
            step = step / 2
        else:
            best, step = total, _newton_step(total)
            if float(np.abs(step).max()) < 1e-6:
                # Newton doubles the digits, so the last step needs no round of its own.
                bread = np.linalg.inv(total.information)
                covariance = bread @ total.squared @ bread
                return CalibrationFit(_moved(total, step), covariance, total, rounds)
        curve = _moved(best, step)
    raise PayloadError(
        f"The calibration curve did not settle in {MAX_ROUNDS} rounds; the predictions separate "
        "cases from controls, so report the groups of predicted risk instead."
    )


def fit_calibration(
    ask: Callable[[CalibrationCurve], CalibrationStep], start: CalibrationCurve
) -> CalibrationFit:
    """Maximise the weighted likelihood by Newton's method with step halving.

    Parameters
    ----------
    ask : callable
        Sends a curve to the hospitals and returns the total of their steps: one round.
    start : CalibrationCurve
        `CalibrationCurve.ideal` of the wanted form.

    Raises
    ------
    PayloadError
        If no case or no control was sent, the predictions do not vary, or the maximum is not
        reached within 25 rounds (cases and controls are separated).
    """
    rounds = calibration_rounds(start)
    curve = next(rounds)
    while True:
        try:
            curve = rounds.send(ask(curve))
        except StopIteration as done:
            fitted: CalibrationFit = done.value
            return fitted


def _moved(total: CalibrationStep, step: FloatArray) -> CalibrationCurve:
    values = np.asarray(total.coefficients) + step
    return CalibrationCurve(total.form[0], total.knots, tuple(float(value) for value in values))


def _newton_step(total: CalibrationStep) -> FloatArray:
    scale = np.sqrt(np.diag(total.information))
    usable = bool((scale > 0).all())
    if usable:
        usable = bool(np.linalg.cond(total.information / np.outer(scale, scale)) < 1e14)
    require(usable, "The predictions do not vary enough to fit a calibration curve.")
    return np.asarray(np.linalg.solve(total.information, total.gradient))
