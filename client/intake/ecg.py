"""Electrocardiograms: WFDB records and DICOM waveforms as millivolts by lead.

Of a file's text only the names of leads get through, and only those that every cardiologist knows;
a header names its signal files, which must lie beside it.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.intake.headers import UNREADABLE
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.segmentations import index_segmentations
from protocol.errors import DataError

__all__ = ["Electrocardiogram", "read_dicom_ecg", "read_ecgs", "read_wfdb"]

DICOM_ECG = tuple(f"1.2.840.10008.5.1.4.1.1.9.1.{kind}" for kind in (1, 2, 3))
MAX_VALUES, MAX_LEADS, MAX_HEADER_BYTES = 50_000_000, 64, 1 << 20
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6",
         "VX", "VY", "VZ", "MLI", "MLII", "MLIII")  # fmt: skip
BY_NAME = {name.lower(): name for name in LEADS}
# The number at the end of a lead's code, in MDC (2:61) and in SCP-ECG (5.6.3-9-61) alike.
BY_CODE = {1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6"}
BY_CODE |= {61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
SIGNAL = re.compile(r"(?P<gain>[0-9.eE+-]+)?(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>[A-Za-z]+))?$")


@dataclass(frozen=True)
class Electrocardiogram:
    """One record.

    Attributes
    ----------
    millivolts : ndarray
        float32 (leads, samples); NaN where the record says a sample is invalid.
    leads : tuple of str
        Standard names; ``lead7`` for the seventh, where its name is not one.
    rate_hz : float
    """

    millivolts: np.ndarray
    leads: tuple[str, ...]
    rate_hz: float


def read_ecgs(
    root: Path, form: str, refused: Counter[tuple[str, str]]
) -> dict[str, Electrocardiogram]:
    """Read a folder of records by patient number; what cannot be read is counted in ``refused``.

    Parameters
    ----------
    form : {"wfdb", "dicom"}
        ``wfdb``: ``NUMBER.hea`` with its signal files beside it. ``dicom``: any names.
    """
    if form == "dicom":
        by_patient, others = index_segmentations(root, DICOM_ECG)
        refused[("ecg", "file is not an electrocardiogram")] += others
    else:
        by_patient = {}
        for path in sorted(root.rglob("*.hea")):
            by_patient.setdefault(path.stem, []).append(path)
    found = {}
    for patient, paths in sorted(by_patient.items()):
        if len(paths) > 1:
            # Of several, the one beside the CMR is wanted; without dates that cannot be said.
            refused[("ecg", "several records of one patient; keep the one of the CMR")] += 1
            continue
        try:
            found[patient] = (read_dicom_ecg if form == "dicom" else read_wfdb)(paths[0])
        except DataError as error:
            refused[("ecg", error.sentence)] += 1
    return found


def _lead(name: str, number: int) -> str:
    return BY_NAME.get(name.strip().lower(), f"lead{number}")


def read_wfdb(path: Path) -> Electrocardiogram:
    """Read a WFDB record of formats 16 and 212 from its header file.

    The format is that of the WFDB Programmer's Guide (signal(5), header(5)); the header's checksum
    of every signal is verified.

    Raises
    ------
    DataError
        If the record is damaged, of another format, or too long.
    """
    try:
        return _wfdb(path)
    except UNREADABLE as error:
        raise DataError("electrocardiogram is damaged") from error


def _wfdb(path: Path) -> Electrocardiogram:
    if path.is_symlink() or path.stat().st_size > MAX_HEADER_BYTES:
        raise DataError("electrocardiogram is damaged")
    lines = [line for line in path.read_text("ascii").splitlines() if line and line[0] != "#"]
    record = lines[0].split()
    num_leads, rate = int(record[1]), float(record[2].split("/")[0].split("(")[0])
    num_samples = int(record[3])
    if "/" in record[0] or not 1 <= num_leads <= MAX_LEADS or not 0 < rate <= 100_000:
        raise DataError("electrocardiogram of several segments or with an impossible header")
    if not 1 <= num_samples <= MAX_VALUES // num_leads:
        raise DataError("electrocardiogram of an implausible length")
    signals = [line.split(maxsplit=8) for line in lines[1 : num_leads + 1]]
    rows: list[np.ndarray] = []
    # Signals of one file are interleaved, in the header's order.
    for name in dict.fromkeys(signal[0] for signal in signals):
        group = [signal for signal in signals if signal[0] == name]
        rows += list(_stored(path, name, group, num_samples))
    order = sorted(range(num_leads), key=lambda i: [s[0] for s in signals].index(signals[i][0]))
    ordered = [signals[i] for i in order]
    volts = [_scaled(row, signal) for row, signal in zip(rows, ordered, strict=True)]
    names = tuple(_lead(s[8] if len(s) > 8 else "", i + 1) for i, s in enumerate(ordered))
    return Electrocardiogram(np.stack(volts), names, rate)


def _stored(path: Path, name: str, group: list[list[str]], num_samples: int) -> np.ndarray:
    """Return the stored values of the signals of one file, int32 (signals, samples)."""
    if not SAFE_NAME.fullmatch(name):
        raise DataError("electrocardiogram whose header names a file elsewhere")
    file = path.with_name(name)
    count = num_samples * len(group)
    forms = {signal[1] for signal in group}
    if file.is_symlink() or len(forms) != 1:
        raise DataError("electrocardiogram is damaged")
    form = forms.pop()
    if form not in ("16", "212"):
        raise DataError("electrocardiogram of a format other than 16 and 212")
    size = count * 2 if form == "16" else -(-count * 3 // 2)
    with file.open("rb") as stream:
        data = np.frombuffer(stream.read(size), np.uint8)
    if len(data) != size:
        raise DataError("electrocardiogram shorter than its header says")
    values = data.view("<i2").astype(np.int32) if form == "16" else _unpack_212(data, count)
    return values.reshape(num_samples, len(group)).T


def _unpack_212(data: np.ndarray, count: int) -> np.ndarray:
    """Two 12-bit values in three bytes: low byte, both high nibbles, low byte."""
    padded = np.zeros(-(-len(data) // 3) * 3, np.int32)
    padded[: len(data)] = data
    low, high, second = padded.reshape(-1, 3).T
    values = np.stack([low | (high & 0x0F) << 8, second | (high & 0xF0) << 4], axis=1).ravel()
    values = values[:count]
    return np.where(values >= 2048, values - 4096, values)


def _scaled(stored: np.ndarray, signal: list[str]) -> np.ndarray:
    match = SIGNAL.match(signal[2]) if len(signal) > 2 else None
    if match is None:
        raise DataError("electrocardiogram is damaged")
    gain = float(match["gain"] or 0) or 200.0
    zero = int(signal[4]) if len(signal) > 4 else 0
    baseline = int(match["baseline"]) if match["baseline"] is not None else zero
    unit = MILLIVOLTS.get((match["unit"] or "mV").lower())
    if unit is None or not math.isfinite(gain):
        raise DataError("electrocardiogram in a unit that is no voltage")
    if len(signal) > 6 and (int(stored.sum()) - int(signal[6])) % 65_536:
        raise DataError("electrocardiogram whose checksum is wrong")
    invalid = -32_768 if signal[1] == "16" else -2_048
    volts = ((stored - baseline) / gain * unit).astype(np.float32)
    volts[stored == invalid] = np.nan
    return volts


def read_dicom_ecg(path: Path) -> Electrocardiogram:
    """Read the longest waveform group of a DICOM ECG (PS3.3 C.10.9).

    Raises
    ------
    DataError
        If the file is damaged, too long, or not in volts.
    """
    try:
        with open_dicom(path, bare=True) as (stream, is_bare, _), quietly():
            dataset = dcmread(stream, force=is_bare)
            return _longest_group(dataset)
    except UNREADABLE as error:
        raise DataError("electrocardiogram is damaged") from error


def _longest_group(dataset: Dataset) -> Electrocardiogram:
    groups = list(dataset.WaveformSequence)
    sizes = [int(g.NumberOfWaveformSamples) for g in groups]
    at = int(np.argmax(sizes))
    group = groups[at]
    channels = group.ChannelDefinitionSequence
    if not 1 <= len(channels) <= MAX_LEADS or not 1 <= sizes[at] <= MAX_VALUES // len(channels):
        raise DataError("electrocardiogram of an implausible length")
    values = dataset.waveform_array(at).T
    scale = np.array([_unit(channel) for channel in channels])
    names = tuple(_coded_lead(channel, i + 1) for i, channel in enumerate(channels))
    rate = float(group.SamplingFrequency)
    if not 0 < rate <= 100_000 or len(values) != len(channels):
        raise DataError("electrocardiogram is damaged")
    return Electrocardiogram((values * scale[:, None]).astype(np.float32), names, rate)


def _unit(channel: Dataset) -> float:
    # Without a sensitivity the stored numbers have no unit, and pydicom leaves them as they are.
    units = channel.get("ChannelSensitivityUnitsSequence")
    code = str(units[0].CodeValue).lower() if units else ""
    if code not in MILLIVOLTS or "ChannelSensitivity" not in channel:
        raise DataError("electrocardiogram in a unit that is no voltage")
    return MILLIVOLTS[code]


def _coded_lead(channel: Dataset, number: int) -> str:
    sources: Mapping[str, object] = channel.ChannelSourceSequence[0]
    code = re.search(r"(\d+)$", str(sources.get("CodeValue", "")))
    return BY_CODE.get(int(code[1]) if code else -1, f"lead{number}")
