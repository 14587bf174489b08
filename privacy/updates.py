"""Privacy of whole hospitals: bounded updates, and noise that nobody knows all of.

One hospital's update (the change of every number of the model, times its weight of at most 1) is
clipped to an L2 norm of C, rounded to whole steps, and noised with discrete Gaussian noise; then it
is masked. What the centre opens is the sum with the noise of all, the distributed discrete Gaussian
mechanism of Kairouz, Liu & Steinke 2021 (ICML): private against the centre as well, which in
central differential privacy adds the noise itself.

**How much each adds.** Noise is counted on as far as it is sure to be in the sum and unknown to the
centre: that of ``m = t - c`` hospitals, t the threshold of the secure sum and c those that may tell
the centre theirs. Each adds ``s = z D / sqrt(m)``; whoever more is active adds for nothing.

**What that guarantees.** Rounding to the nearest step moves a vector of d numbers by
``sqrt(d) / 2`` steps at most, so in whole steps ``D = C / step + sqrt(d) / 2``. A sum of m discrete
Gaussians is not one; by their theorem 1 it satisfies ``epsilon^2 / 2`` concentrated differential
privacy with ::

    epsilon = min( sqrt(D^2 / (m s^2) + tau d / 2),  D / (sqrt(m) s) + tau sqrt(d) )
    tau     = 10 sum_{k=1}^{m-1} exp(-2 pi^2 s^2 k / (k + 1))

and tau is 0 in double precision from s = 5 on. Over rounds these add up; epsilon at a delta is read
off the Renyi curve ``alpha epsilon^2 / 2`` by Opacus. Neighbouring federations differ in one
hospital's vector, present or zero; that it took part is no secret.

**What it is worth.** With ten hospitals and d numbers the noise on the mean has a norm of about
``z C sqrt(d) / 10``: at d = 500,000 and z = 1 seventy times the largest update. That is no use. It
is offered for federations of many small practices, and to say so in numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.secure_sum.quantise import FixedPoint, WordArray
from privacy.update_noise import RandomBytes, discrete_gaussian_vector
from protocol.errors import PrivacyError
from protocol.secure_config import UpdatePrivacy

__all__ = ["PrivateUpdates", "clip", "epsilon_after", "next_clip_norm", "zcdp_epsilon"]

FloatArray = npt.NDArray[np.float64]
ORDERS = [1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(11, 513)]
# The number of hospitals within the bound, as multiples of 2^-16.
WITHIN = FixedPoint(16, 32)
# Standard deviations of room between what a sum may hold and where it would wrap around.
ROOM = 12.0


def clip(change: FloatArray, clip_norm: float) -> tuple[FloatArray, bool]:
    """Return a vector scaled down to an L2 norm of ``clip_norm`` at most, and if it was within.

    Raises
    ------
    PrivacyError
        If it holds a number that is not finite: a NaN is within no bound.
    """
    norm = float(np.linalg.norm(change))
    if not math.isfinite(norm):
        raise PrivacyError(
            "The update to be clipped holds a number that is not finite; look for a diverged "
            "training run here."
        )
    return change * min(1.0, clip_norm / norm) if norm > 0 else change, norm <= clip_norm


def zcdp_epsilon(sensitivity: float, sd: float, parts: int, size: int) -> float:
    """Return the epsilon of ``epsilon^2 / 2`` concentrated DP of a sum of discrete Gaussians.

    Parameters
    ----------
    sensitivity : float
        D, in steps.
    sd : float
        s of each part, in steps.
    parts : int
        m, how many parts the adversary does not know.
    size : int
        d, numbers of the vector.
    """
    tau = 10 * sum(math.exp(-2 * math.pi**2 * sd**2 * k / (k + 1)) for k in range(1, parts))
    ratio = sensitivity / (math.sqrt(parts) * sd)
    return min(math.sqrt(ratio**2 + tau * size / 2), ratio + tau * math.sqrt(size))


@dataclass(frozen=True)
class PrivateUpdates:
    """The vector of a noised update: the clipped change, and whether the bound held.

    Attributes
    ----------
    settings : UpdatePrivacy
    grid : FixedPoint
        Of the change.
    num_hospitals, threshold : int
        Of the secure sum.
    size : int
        d, numbers of the model.
    clip_norm : float
        C of this round.
    """

    settings: UpdatePrivacy
    grid: FixedPoint
    num_hospitals: int
    threshold: int
    size: int
    clip_norm: float

    @property
    def num_words(self) -> int:
        return self.size + (self.settings.adaptive is not None)

    @property
    def parts(self) -> int:
        """Hospitals whose noise is in every sum and unknown to the centre."""
        return self.threshold - self.settings.colluding

    @property
    def sensitivity(self) -> float:
        return self.clip_norm / self.grid.step + math.sqrt(self.size) / 2

    @property
    def update_multiplier(self) -> float:
        """Noise on the update, so that with the noise on the count it makes the study's.

        ``z_update = (z^-2 - (2 sigma_b)^-2)^(-1/2)`` (Andrew et al. 2021, theorem 1).
        """
        z, adaptive = self.settings.noise_multiplier, self.settings.adaptive
        if adaptive is None:
            return z
        left = z**-2 - (2 * adaptive.count_noise) ** -2
        if left <= 0:
            raise PrivacyError(
                f"The noise of {adaptive.count_noise:g} on the number within the bound is more of "
                f"a release than a noise multiplier of {z:g} allows in all; raise "
                "secure_aggregation.updates.adaptive.count_noise."
            )
        return float(left**-0.5)

    @property
    def noise_sd(self) -> float:
        """Return s of each hospital, in steps."""
        return self.update_multiplier * self.sensitivity / math.sqrt(self.parts)

    def epsilon(self) -> float:
        """Return the epsilon of concentrated DP of one round, the count within the bound included.

        Raises
        ------
        PrivacyError
            If too few hospitals add noise, or the sum has no room for it.
        """
        if self.parts < 1:
            raise PrivacyError(
                f"{self.settings.colluding} hospitals may tell their noise and a sum needs "
                f"{self.threshold}; nobody's noise is sure to be unknown."
            )
        largest = self.grid.largest(self.num_hospitals)
        if self.clip_norm + ROOM * self.noise_sd * self.grid.step > largest:
            raise PrivacyError(
                f"A bound of {self.clip_norm:g} and its noise do not fit the {largest:g} a secure "
                "sum carries; lower secure_aggregation.step_bits or the bound."
            )
        change = zcdp_epsilon(self.sensitivity, self.noise_sd, self.parts, self.size)
        adaptive = self.settings.adaptive
        if adaptive is None:
            return change
        half = 0.5 / WITHIN.step
        count = zcdp_epsilon(half, self._count_sd(adaptive.count_noise), self.parts, 1)
        return math.hypot(change, count)

    def _count_sd(self, count_noise: float) -> float:
        return count_noise / WITHIN.step / math.sqrt(self.parts)

    def pack(
        self, change: FloatArray, share: float, random_bytes: RandomBytes | None = None
    ) -> WordArray:
        """Return a hospital's noised vector, to be masked.

        Parameters
        ----------
        change : float array (d,)
            Of the model, unclipped.
        share : float
            The hospital's weight in [0, 1].

        Raises
        ------
        PrivacyError
            If the change is not finite, the weight out of range, or as `epsilon`.
        """
        self.epsilon()
        if not 0 <= share <= 1:
            raise PrivacyError(f"A hospital's weight is {share:g}, expected 0 to 1; cap it.")
        draws = {} if random_bytes is None else {"random_bytes": random_bytes}
        clipped, within = clip(change, self.clip_norm)
        # Beyond the clip nothing can be out of range, so the sum over n is not looked at here.
        words = self.grid.encode(clipped * share, 1, "The clipped update").copy()
        words += _residues(discrete_gaussian_vector(self.noise_sd, self.size, **draws))
        if self.settings.adaptive is None:
            return words
        told = WITHIN.encode([float(within) - 0.5], 1, "The count").copy()
        sd = self._count_sd(self.settings.adaptive.count_noise)
        told += _residues(discrete_gaussian_vector(sd, 1, **draws))
        return np.concatenate([words, told])

    def unpack(self, total: WordArray, num_active: int) -> tuple[FloatArray, float | None]:
        """Return the mean change (d,) and the noised share of hospitals within the bound.

        The mean is over the active hospitals, whatever they weigh: a sum of weights would be a
        release of its own.
        """
        mean = self.grid.decode(total[: self.size]) / num_active
        if self.settings.adaptive is None:
            return mean, None
        count = float(WITHIN.decode(total[self.size :])[0]) + num_active / 2
        return mean, count / num_active


def _residues(noise: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    return noise.astype(np.int32).view(np.uint32)


def next_clip_norm(clip_norm: float, within: float, settings: UpdatePrivacy) -> float:
    """Return the bound of the next round: ``C exp(-eta (b - gamma))`` (Andrew et al. 2021, eq. 3).

    Parameters
    ----------
    within : float
        Noised share b of the hospitals whose update was within the bound.
    """
    if settings.adaptive is None:
        return clip_norm
    off = min(max(within, 0.0), 1.0) - settings.adaptive.quantile
    return clip_norm * math.exp(-settings.adaptive.learning_rate * off)


def epsilon_after(rounds: int, per_round: float, delta: float) -> float:
    """Return epsilon at ``delta`` after so many rounds, each of ``per_round^2 / 2`` zCDP.

    The Renyi curve ``alpha rounds per_round^2 / 2``, converted by Opacus (Balle et al. 2020).
    """
    # Opacus takes seconds to import, and only a report needs it.
    from opacus.accountants.analysis import rdp

    rho = rounds * per_round**2 / 2
    curve = [order * rho for order in ORDERS]
    return float(rdp.get_privacy_spent(orders=ORDERS, rdp=curve, delta=delta)[0])
