"""What a history of noised releases has cost: epsilon at a given delta, never below the truth.

The unit is one patient, present or absent (add or remove). The history is any mixture of
Poisson-subsampled Gaussian mechanisms. Three bounds, each above the true epsilon:

* All patients in every release (q = 1): T releases with noise sigma are together one Gaussian
  release with ``mu^2 = sum T / sigma^2``, whose epsilon is known exactly (Balle and Wang, ICML
  2018, theorem 8).
* Otherwise the upper end of the numerical composition of privacy loss random variables (PRV; Gopi,
  Lee and Wutschitz, NeurIPS 2021, theorem 5.5), by the parts of Opacus.
* Renyi DP (Mironov, Talwar and Zhang 2019, with the conversion of Balle et al. 2020, theorem 21),
  where the PRVs cannot be composed, or where it happens to be lower.

Gaussian DP's central limit (`_central_limit`) is no bound, it lies below the truth, and is used for
one thing: to choose how fine the PRVs' mesh must be.

Epsilon must not fall when something is appended. The truth cannot, and all that the numerical
composition adds to it (its error bound, `_mesh`) follows from quantities that only grow with a
history, in steps that are larger than what the mesh itself can err. The ledger besides never
reports less than it once did.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.special import log_ndtr

from protocol.errors import PrivacyError

__all__ = ["ORDERS", "Spend", "epsilon", "renyi_epsilon", "renyi_orders"]

FloatArray = npt.NDArray[np.float64]

# Fractional orders for large epsilon, integers up to 512 for small; Opacus's own end at 63, where a
# history of very noisy releases is overcharged.
ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(64.0, 80.0, 96.0, 128.0, 160.0, 192.0, 256.0, 384.0, 512.0),
)
RELATIVE_ERROR = 0.005  # half the width of the PRVs' error band, of epsilon
SMALLEST_ERROR = 5e-5
LARGEST_ERROR = 0.25
MAX_POINTS = 2**22
# Beyond these the sums of the PRVs lose their digits; once a history is beyond it stays beyond.
MIN_DELTA = 1e-10
MAX_EPSILON = 300.0


@dataclass(frozen=True)
class Spend:
    """Releases of one kind: a sum with Gaussian noise over a Poisson sample of the patients.

    Attributes
    ----------
    noise_multiplier : float
        sigma > 0: standard deviation of the noise over the L2 sensitivity of the sum to one
        patient.
    sampling_rate : float
        q in (0, 1]; 1 is every patient.
    num_steps : int
        How many such releases, at least 1.

    Raises
    ------
    PrivacyError
        If a value is out of its range.
    """

    noise_multiplier: float
    sampling_rate: float
    num_steps: int

    def __post_init__(self) -> None:
        sigma, rate, steps = self.noise_multiplier, self.sampling_rate, self.num_steps
        good = 0 < sigma < math.inf and 0 < rate <= 1
        if not good or type(steps) is not int or steps < 1:
            raise PrivacyError(
                f"noise_multiplier {sigma}, sampling_rate {rate} and num_steps {steps} cannot be "
                "accounted for; the first must be above 0, the second in (0, 1], the third a whole "
                "number of at least 1."
            )


class _History(NamedTuple):
    """A history without its order, in which composition takes no interest."""

    sampled: tuple[tuple[float, float, int], ...]  # (sigma, q < 1, number of releases), sorted
    mu: float  # of all releases with q = 1 together

    @property
    def num_parts(self) -> int:
        return sum(steps for _, _, steps in self.sampled) + (self.mu > 0)


def epsilon(history: Sequence[Spend], delta: float) -> float:
    """Return an upper bound of the epsilon that a history has cost at ``delta``; 0 if it is empty.

    Within 1 % (or 0.001) of the truth where the PRVs could be composed, and exact where every
    release was of all patients.

    Raises
    ------
    PrivacyError
        If delta is not in (0, 1).
    """
    _check(delta)
    return _epsilon(_merge(history), delta)


def renyi_epsilon(history: Sequence[Spend], delta: float) -> float:
    """Return the bound by Renyi DP alone, 5 to 20 % above `epsilon` as a rule."""
    _check(delta)
    return _from_renyi(_renyi(_merge(history)), delta)


def renyi_orders(history: Sequence[Spend]) -> FloatArray:
    """Return the Renyi divergence of a history at each of `ORDERS`."""
    return _renyi(_merge(history))


def _check(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta {delta} is not in (0, 1); choose one below 1 / patients.")


def _merge(history: Sequence[Spend]) -> _History:
    steps: Counter[tuple[float, float]] = Counter()
    for spend in history:
        steps[float(spend.noise_multiplier), float(spend.sampling_rate)] += spend.num_steps
    sampled = tuple((s, q, n) for (s, q), n in sorted(steps.items()) if q < 1)
    whole = [n / (s * s) for (s, q), n in sorted(steps.items()) if q == 1]
    return _History(sampled, math.sqrt(math.fsum(whole)))


@lru_cache(maxsize=4096)
def _epsilon(history: _History, delta: float) -> float:
    if not history.sampled:
        return _gaussian_epsilon(history.mu, delta)
    renyi = _from_renyi(_renyi(history), delta)
    if delta < MIN_DELTA or renyi > MAX_EPSILON:
        return renyi
    return min(renyi, _prv_epsilon(history, delta, renyi))


# --- all patients in every release ---------------------------------------------------------------


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon with Phi(mu/2 - e/mu) - exp(e) Phi(-mu/2 - e/mu) <= delta."""
    if mu == 0:
        return 0.0

    def holds(eps: float) -> bool:
        first = log_ndtr(mu / 2 - eps / mu)
        # In logarithms: exp(eps) alone overflows.
        second = eps + log_ndtr(-mu / 2 - eps / mu)
        return bool(np.exp(first) * -np.expm1(min(second - first, 0.0)) <= delta)

    return _smallest(holds)


def _smallest(holds: Callable[[float], bool]) -> float:
    # The ends are halves of halves of powers of two, so two histories are compared on one grid.
    if holds(0.0):
        return 0.0
    high = 2.0**-20
    while not holds(high):
        high *= 2
    low = high / 2 if high > 2.0**-20 else 0.0
    for _ in range(44):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


# --- Renyi DP ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _renyi_of_one(sigma: float, rate: float) -> FloatArray:
    # Importing opacus takes seconds, and most commands account for nothing.
    from opacus.accountants.analysis.rdp import compute_rdp

    def at(order: float) -> float:
        try:
            value = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=order)
        # The series for fractional orders does not converge for very little noise; the bound then
        # does without this order.
        except (ValueError, OverflowError):
            return math.inf
        return float(value) if value >= 0 else math.inf

    return np.array([at(order) for order in ORDERS])


def _renyi(history: _History) -> FloatArray:
    total = np.array(ORDERS) * history.mu**2 / 2
    for sigma, rate, steps in history.sampled:
        total = total + steps * _renyi_of_one(sigma, rate)
    return total


def _from_renyi(divergences: FloatArray, delta: float) -> float:
    orders = np.array(ORDERS)
    bounds = divergences + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(bounds.min()))


# --- privacy loss random variables ---------------------------------------------------------------


class _Mesh(NamedTuple):
    """How finely the losses are cut; each part grows, or stays, when a history grows."""

    error: float  # half the width of the error band of epsilon
    delta_error: float
    width: float  # losses from -width to width, and to the next size that is fast to transform
    step: float
    num_points: int


def _central_limit(history: _History) -> float:
    # Bu, Dong, Long and Su 2020, equation (5): mu = q sqrt(T (exp(1/sigma^2) - 1)).
    sampled = sum(n * q * q * math.expm1(min(1 / s**2, 50.0)) for s, q, n in history.sampled)
    return math.sqrt(sampled + history.mu**2)


def _up(value: float, steps_per_octave: int) -> float:
    """Round up to a power of 2^(1/steps_per_octave)."""
    return float(2 ** (math.ceil(math.log2(value) * steps_per_octave - 1e-9) / steps_per_octave))


def _mesh(history: _History, delta: float, renyi: float) -> _Mesh:
    delta_error = delta / 1000
    parts = _up(history.num_parts, 1)
    size = min(renyi, _gaussian_epsilon(_central_limit(history), delta))
    error = min(RELATIVE_ERROR * _up(max(size, 1e-6), 4), LARGEST_ERROR)
    # Gopi et al., remark 5.6: wide enough for the whole and for each part, as Opacus does it.
    width = _from_renyi(_renyi(history), delta_error / 4)
    for sigma, rate, _ in history.sampled:
        one = _from_renyi(_renyi_of_one(sigma, rate), delta_error / (8 * parts))
        width = max(width, one)
    if history.mu:
        width = max(width, _gaussian_epsilon(history.mu, delta_error / (8 * parts)))
    width = _up(width + 3, 4)
    # Theorem 5.5 the other way round: mesh = error / sqrt(parts log(12 / delta_error) / 2).
    spread = math.sqrt(parts * math.log(12 / delta_error) / 2)
    error = max(error, SMALLEST_ERROR, 2 * width / MAX_POINTS * spread)
    step = error / spread
    # Where another mesh or width begins, what the mesh errs by changes too: by up to 8e-4 of the
    # band for the mesh and 4e-5 for the width, as measured. The band widens there by more.
    wider = 1 + 3e-3 * math.log2(parts) + 1e-3 * math.log2(width)
    num_points = 2 * next_fast_len(math.ceil(width / step) + 1, real=True)
    return _Mesh(error * wider, delta_error, width, step, num_points)


def _prv_epsilon(history: _History, delta: float, renyi: float) -> float:
    """Return the upper end of the PRVs' error band; infinite where they cannot be composed."""
    from opacus.accountants.analysis import prv

    mesh = _mesh(history, delta, renyi)
    parts = [*history.sampled, *([(1 / history.mu, 1.0, 1)] if history.mu else [])]
    try:
        # Opacus takes logarithms of 0 and exponentials beyond range on purpose, where a bound of
        # the loss makes them void, and scipy warns of integrals that are accurate enough.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            half = mesh.num_points // 2
            domain = prv.Domain((1 - half) * mesh.step, half * mesh.step, mesh.num_points)
            losses = [
                prv.discretize(
                    prv.TruncatedPrivacyRandomVariable(
                        prv.PoissonSubsampledGaussianPRV(rate, sigma), domain.t_min, domain.t_max
                    ),
                    domain,
                )
                for sigma, rate, _ in parts
            ]
            composed = prv.compose_heterogeneous(losses, [steps for _, _, steps in parts])
            _, _, upper = composed.compute_epsilon(delta, mesh.delta_error, mesh.error)
    except (RuntimeError, ValueError, FloatingPointError, MemoryError):
        return math.inf
    return max(0.0, float(upper)) if math.isfinite(upper) else math.inf
