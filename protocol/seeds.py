"""Every random stream of a study, derived from what it is for.

A generator is named by (study seed, purpose, round, site), so that a run can be repeated, resumed
or audited without replaying what came before. There is no global generator in the project.
"""

import hashlib

import numpy as np

__all__ = ["derive_seed", "generator"]


def derive_seed(study_seed: int, purpose: str, *, round_index: int = 0, site: str = "") -> int:
    """Return a 63-bit seed for one purpose.

    Parameters
    ----------
    study_seed : int
        The seed in the study's configuration.
    purpose : str
        What the stream is for, e.g. ``"segment/batches"``.
    round_index : int
        Federated round, counted from 1; 0 where there is none.
    site : str
        Hospital name; empty at the centre.

    Returns
    -------
    int
        The first 63 bits of SHA-256 over the four fields, in [0, 2**63).
    """
    # Length-prefixed fields: ("ab", "c") and ("a", "bc") must not share a stream.
    fields = (str(study_seed), purpose, str(round_index), site)
    message = "".join(f"{len(field)}:{field}" for field in fields)
    return int.from_bytes(hashlib.sha256(message.encode()).digest()[:8], "big") >> 1


def generator(
    study_seed: int, purpose: str, *, round_index: int = 0, site: str = ""
) -> np.random.Generator:
    """Return a numpy generator (PCG64) on the stream named by `derive_seed`."""
    return np.random.default_rng(
        derive_seed(study_seed, purpose, round_index=round_index, site=site)
    )
