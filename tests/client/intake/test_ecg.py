"""Electrocardiograms: golden samples of public records, and what is refused.

PTB s0010_re (format 16, 1000 Hz) and MIT-BIH 100 (format 212, 360 Hz; PhysioNet), whose headers
state initial values and checksums; a DICOM 12-lead ECG of the pydicom project (Mortara).
"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.intake.ecg import LEADS, read_dicom_ecg, read_ecgs, read_wfdb
from protocol.errors import DataError


def test_ptb_has_twelve_leads_in_millivolts(shared_data: Path) -> None:
    ecg = read_wfdb(shared_data / "ecg" / "s0010_re.hea")
    assert ecg.leads == LEADS[:15] and ecg.rate_hz == 1000.0
    assert ecg.millivolts.shape == (15, 38_400) and ecg.millivolts.dtype == np.float32
    # The header's initial values of the first three leads, over its gain of 2000 a millivolt.
    lines = (shared_data / "ecg" / "s0010_re.hea").read_text().splitlines()[1:4]
    initial = [int(line.split()[5]) / 2000 for line in lines]
    np.testing.assert_allclose(ecg.millivolts[:3, 0], initial, atol=1e-6)
    # Einthoven: II = I + III; aVR, aVL and aVF add up to nothing.
    one, two, three, right, left, foot = ecg.millivolts[:6]
    np.testing.assert_allclose(one + three, two, atol=0.002)
    np.testing.assert_allclose(right + left + foot, 0, atol=0.003)


def test_mit_bih_has_two_leads(shared_data: Path) -> None:
    ecg = read_wfdb(shared_data / "ecg" / "100.hea")
    assert ecg.leads == ("MLII", "V5") and ecg.rate_hz == 360.0
    assert ecg.millivolts.shape == (2, 650_000)
    # (995 - 1024) / 200 and (1011 - 1024) / 200.
    np.testing.assert_allclose(ecg.millivolts[:, 0], [-0.145, -0.065], atol=1e-6)
    # The record has 2,273 beats in 30.1 minutes: 75.5 a minute.
    lead = ecg.millivolts[0, : 360 * 60]
    beats = ((lead[1:] > 0.4) & (lead[:-1] <= 0.4)).sum()
    assert abs(beats - 75.5) < 3


def test_dicom_gives_the_rhythm_and_not_the_median_beat(shared_data: Path) -> None:
    path = shared_data / "ecg" / "12lead_ecg.dcm"
    ecg = read_dicom_ecg(path)
    assert ecg.leads == LEADS[:12] and ecg.rate_hz == 1000.0
    assert ecg.millivolts.shape == (12, 10_000)
    one, two, three = ecg.millivolts[:3]
    np.testing.assert_allclose(one + three, two, atol=0.01)
    assert 0.1 < np.abs(ecg.millivolts).max() < 10
    raw = np.frombuffer(dcmread(path).WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    channel = dcmread(path).WaveformSequence[0].ChannelDefinitionSequence[0]
    scale = float(channel.ChannelSensitivity) / 1000
    np.testing.assert_allclose(one, raw[:, 0] * scale, rtol=1e-5)


def test_a_folder_is_read_by_patient(shared_data: Path, tmp_path: Path) -> None:
    for name in ("s0010_re.hea", "s0010_re.dat", "s0010_re.xyz"):
        shutil.copy(shared_data / "ecg" / name, tmp_path / name)
    refused: Counter[tuple[str, str]] = Counter()
    assert list(read_ecgs(tmp_path, "wfdb", refused)) == ["s0010_re"] and not +refused
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "s0010_re.hea", tmp_path / "again")
    assert read_ecgs(tmp_path, "wfdb", refused) == {}
    assert refused["ecg", "several records of one patient; keep the one of the CMR"] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("s0010_re.dat", "../s0010_re.dat"), "names a file elsewhere"),
        (("s0010_re.dat", "/etc/passwd"), "names a file elsewhere"),
        (("38400", "99999999999"), "of an implausible length"),
        (("38400", "38500"), "shorter than its header says"),
        ((".dat 16 ", ".dat 80 "), "other than 16 and 212"),
        (("15 1000", "0 1000"), "impossible header"),
        (("15 1000", "fifteen 1000"), "is damaged"),
        ((".dat 16 2000 ", ".dat 16 2000/mmHg "), "unit that is no voltage"),
    ],
)
def test_a_wrong_header_is_refused(
    shared_data: Path, tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    for name in ("s0010_re.dat", "s0010_re.xyz"):
        shutil.copy(shared_data / "ecg" / name, tmp_path / name)
    text = (shared_data / "ecg" / "s0010_re.hea").read_text()
    assert change[0] in text
    (tmp_path / "s0010_re.hea").write_text(text.replace(*change))
    with pytest.raises(DataError, match=sentence):
        read_wfdb(tmp_path / "s0010_re.hea")


def test_a_changed_sample_does_not_pass_the_checksum(shared_data: Path, tmp_path: Path) -> None:
    for name in ("100.hea", "100.dat"):
        shutil.copy(shared_data / "ecg" / name, tmp_path / name)
    data = bytearray((tmp_path / "100.dat").read_bytes())
    data[3000] ^= 4
    (tmp_path / "100.dat").write_bytes(data)
    with pytest.raises(DataError, match="checksum is wrong"):
        read_wfdb(tmp_path / "100.hea")


def test_damaged_dicom_is_refused(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "ecg" / "12lead_ecg.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for size in (0, 200, 2_000, 100_000):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            read_dicom_ecg(path)
