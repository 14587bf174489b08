"""A noised answer is given once: charged, written down, and repeated to whoever asks it again.

Two answers to one question would be two draws of noise, and their mean is nearer to the truth. So
what was told lies on the hospital's disk, in the study's folder, and the same question of the same
patients in the same study gets the same numbers and costs nothing. A question about another model,
at other cut points, or after the hospital's data or noise have changed is another one.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.hospital import Hospital
from client.policy import site_ledger
from privacy.accountant import Spend
from privacy.noised_sums import FINENESS, Block, noised_sums, squared_sensitivity
from privacy.policy import PrivacyPolicy
from protocol.config import Study
from protocol.stats.sums import FloatArray

__all__ = ["Told", "tell_once"]


@dataclass(frozen=True)
class Told:
    """What was told.

    Attributes
    ----------
    sums : dict of str to float array
        The noised sums of each block, in patients.
    noise_sd : float
        Standard deviation of the noise on every one of them.
    """

    sums: dict[str, FloatArray]
    noise_sd: float


def tell_once(
    hospital: Hospital,
    study: Study,
    terms: PrivacyPolicy,
    purpose: str,
    asked: Mapping[str, Any],
    blocks: Callable[[], Mapping[str, Block]],
) -> Told:
    """Return the noised sums of a question, the same ones as before if it was asked before.

    The spend is reserved before the patients are looked at, and the answer is on the disk before it
    is committed; between the two a crash costs the reservation and tells nobody anything.

    Parameters
    ----------
    terms : PrivacyPolicy
        Of this hospital in this study.
    purpose : str
        What the ledger calls it, e.g. ``"survey"``.
    asked : mapping
        All that the sums depend on beside the patients; JSON values.
    blocks : callable
        Makes the rows; called only where noise is to be drawn.

    Raises
    ------
    BudgetError
        If the answer would cost more than the policy's caps leave.
    """
    file = _file(hospital, study, purpose, {**asked, "noise": terms.statistics_noise})
    if file.is_file():
        return _read(file)
    ledger = site_ledger(hospital.directory)
    spend = Spend(noise_multiplier=terms.statistics_noise, sampling_rate=1.0, num_steps=1)
    reservation = ledger.reserve(study.name, purpose, spend, terms)
    rows = blocks()
    sums = noised_sums(rows, terms.statistics_noise)
    noise_sd = terms.statistics_noise * math.sqrt(squared_sensitivity(rows)) / FINENESS
    told = Told(sums, noise_sd)
    _write(file, told)
    ledger.commit(reservation)
    return told


def _file(hospital: Hospital, study: Study, purpose: str, asked: Mapping[str, Any]) -> Path:
    content = json.dumps({**asked, "patients": hospital.fingerprint}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    return hospital.workspace(study) / "told" / f"{purpose}-{digest}.json"


def _read(file: Path) -> Told:
    values = json.loads(file.read_text(encoding="utf-8"))
    sums = {name: np.array(told, np.float64) for name, told in values["sums"].items()}
    return Told(sums, float(values["noise_sd"]))


def _write(file: Path, told: Told) -> None:
    file.parent.mkdir(exist_ok=True)
    scratch = file.with_suffix(".new")
    sums = {name: values.tolist() for name, values in told.sums.items()}
    with scratch.open("w", encoding="utf-8") as stream:
        json.dump({"sums": sums, "noise_sd": told.noise_sd}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(file)
