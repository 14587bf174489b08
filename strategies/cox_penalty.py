"""The elastic net on a Cox likelihood, and the quadratic model it is minimised on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.errors import ConfigError

__all__ = ["Penalty"]

FloatArray = npt.NDArray[np.float64]
# Coordinate descent on P <= 200 numbers: ends far earlier unless covariates are near copies.
MAX_SWEEPS = 20_000


@dataclass(frozen=True)
class Penalty:
    """``n strength (l1_ratio |beta|_1 + (1 - l1_ratio) |beta|^2 / 2)``, subtracted from ``l``.

    n is the number of patients, so that ``strength`` keeps its meaning when hospitals join (Zou &
    Hastie 2005; Simon et al. 2011, J Stat Softw 39(5)). Covariates should be standardised with
    common constants, since all are penalised alike.

    Attributes
    ----------
    strength : float
        >= 0; 0 is no penalty.
    l1_ratio : float
        0 ridge .. 1 lasso.
    """

    strength: float = 0.0
    l1_ratio: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength < np.inf:
            raise ConfigError(
                f"Cox penalty strength is {self.strength}, expected a finite number of at least 0; "
                "correct the study file."
            )
        if not 0 <= self.l1_ratio <= 1:
            raise ConfigError(
                f"Cox penalty l1_ratio is {self.l1_ratio}, expected 0 (ridge) to 1 (lasso); "
                "correct the study file."
            )

    @property
    def lasso(self) -> float:
        """Weight of ``|beta|_1`` per patient."""
        return self.strength * self.l1_ratio

    @property
    def ridge(self) -> float:
        """Weight of ``|beta|^2 / 2`` per patient."""
        return self.strength * (1 - self.l1_ratio)

    def value(self, beta: FloatArray, num_patients: int) -> float:
        """Return the penalty at ``beta``; lower is better."""
        size = float(np.abs(beta).sum()), float(beta @ beta)
        return num_patients * (self.lasso * size[0] + self.ridge * size[1] / 2)

    def curvature(self, information: FloatArray, num_patients: int) -> FloatArray:
        """Return the information with the ridge's share added, (P, P)."""
        return np.asarray(information + num_patients * self.ridge * np.eye(len(information)))

    def minimise(
        self, beta: FloatArray, gradient: FloatArray, information: FloatArray, num_patients: int
    ) -> FloatArray:
        """Return where the quadratic model of the penalised likelihood at ``beta`` is best, (P,).

        Without the lasso one linear system (Newton's step); with it, cyclic coordinate descent with
        soft thresholding (Friedman et al. 2010, J Stat Softw 33(1), eq. 10).
        """
        curvature = self.curvature(information, num_patients)
        pull = gradient - num_patients * self.ridge * beta
        if self.lasso == 0:
            return np.asarray(beta + np.linalg.solve(curvature, pull))
        threshold, new = num_patients * self.lasso, beta.copy()
        # Gradient of the model's smooth part at `new`, kept up to date by coordinate.
        slope = pull.copy()
        scale = np.sqrt(np.maximum(np.diag(curvature), 0.0))
        for _ in range(MAX_SWEEPS):
            largest = 0.0
            for j in range(len(new)):
                before = new[j]
                if curvature[j, j] <= 0:
                    continue
                aim = curvature[j, j] * before + slope[j]
                new[j] = np.sign(aim) * max(abs(aim) - threshold, 0.0) / curvature[j, j]
                if new[j] != before:
                    slope -= curvature[:, j] * (new[j] - before)
                    largest = max(largest, abs(new[j] - before) * scale[j])
            if largest <= 1e-12 * (1.0 + float(np.abs(new * scale).max())):
                break
        return new
