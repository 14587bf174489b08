"""Numbers as whole multiples of a step, which add exactly and wrap around like masks do.

``x`` becomes ``round(x / step)`` (to the nearest, ties to even) with ``step = 2^-step_bits``, so an
element is off by half a step at most, and a sum over n hospitals by n/2 steps. Sums of the integers
are exact: they are added modulo 2^w as two's complement, and n times the largest allowed magnitude
stays below 2^(w-1). A power of two keeps what already is a multiple of the step (counts) as it is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from protocol.errors import PrivacyError

__all__ = ["FixedPoint", "WordArray", "as_words"]

WordArray = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
WORDS: dict[int, tuple[type, type]] = {32: (np.uint32, np.int32), 64: (np.uint64, np.int64)}


def as_words(array: np.ndarray) -> WordArray:
    """Return a view of signed words as the residues they stand for."""
    unsigned, _ = WORDS[8 * array.dtype.itemsize]
    return array.view(unsigned)


@dataclass(frozen=True)
class FixedPoint:
    """A grid of numbers.

    Attributes
    ----------
    step_bits : int
        The step is ``2^-step_bits``.
    word_bits : {32, 64}
        Width of a word; 32 costs no more bytes than the float32 it stands for.
    """

    step_bits: int
    word_bits: Literal[32, 64]

    @property
    def step(self) -> float:
        return 2.0**-self.step_bits

    def largest(self, num_hospitals: int) -> float:
        """Return the largest magnitude an element may have so that no sum wraps around."""
        return self.step * ((2 ** (self.word_bits - 1) - 1) // num_hospitals)

    def encode(self, values: npt.ArrayLike, num_hospitals: int, what: str) -> WordArray:
        """Return values as residues modulo ``2^word_bits``.

        Parameters
        ----------
        values : float array
        num_hospitals : int
            How many such vectors are added at most.
        what : str
            For the sentence, e.g. ``"The update"``.

        Raises
        ------
        PrivacyError
            If a value is not finite or its magnitude is above `largest`.
        """
        at = np.asarray(values, np.float64)
        limit = self.largest(num_hospitals)
        peak = float(np.abs(at).max(initial=0.0))
        if not peak <= limit:
            raise PrivacyError(
                f"{what} holds {'a NaN' if np.isnan(peak) else f'a magnitude of {peak:g}'}, and a "
                f"secure sum of {num_hospitals} hospitals carries up to {limit:g}; look for a "
                "diverged training run or an unscaled covariate, or let the study use a wider step."
            )
        unsigned, signed = WORDS[self.word_bits]
        # Through int64 and down: the low bits of two's complement are the residue.
        return np.rint(at * 2.0**self.step_bits).astype(np.int64).astype(signed).view(unsigned)

    def decode(self, total: WordArray) -> npt.NDArray[np.float64]:
        """Return what a sum of residues stands for."""
        _, signed = WORDS[self.word_bits]
        return total.view(signed).astype(np.float64) * self.step
