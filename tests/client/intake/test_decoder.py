"""Compressed pixels: the same values in every syntax, and a bad file ends a child process only."""

import csv
import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.intake.decoder import Decoder
from client.intake.headers import read_header
from protocol.errors import DataError


def test_every_syntax_of_real_mr_gives_the_known_pixels(shared_data: Path) -> None:
    folder = shared_data / "dicom_edge"
    with (folder / "manifest.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if r["pixels"] == "ok" and r["modality"] == "MR"]
    seen = set()
    with Decoder() as decoder:
        for row in rows:
            frames = read_header(folder / row["file"])
            if isinstance(frames, str):
                continue
            shape = (frames[0].rows, frames[0].cols)
            planes = [decoder.plane(Path(f.pixels.path), f.frame_index, shape) for f in frames]
            stored = np.stack(planes).astype("<i8")
            assert (
                hashlib.md5(stored.tobytes(), usedforsecurity=False).hexdigest()
                == row["md5_le_int64"]
            ), row["file"]
            seen.add(row["transfer_syntax"])
    assert len(seen) >= 7 and "1.2.840.10008.1.2.4.70" in seen


def test_a_deflated_image_is_read_and_a_bomb_is_not(shared_data: Path, tmp_path: Path) -> None:
    dataset = dcmread(shared_data / "dicom_edge" / "pydicom" / "MR_small.dcm")
    path = tmp_path / "deflated.dcm"
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    frames = read_header(path)
    assert isinstance(frames, tuple) and frames[0].pixels.offset == -1
    with Decoder() as decoder:
        found = decoder.plane(path, 0, (64, 64))
    np.testing.assert_array_equal(found, dataset.pixel_array)
    dataset.Rows = dataset.Columns = 2000
    dataset.PixelData = bytes(8_000_000)
    dataset.save_as(path)
    assert path.stat().st_size < 20_000
    assert read_header(path) == "deflated content unfolds to an implausible size"
    path.write_bytes(path.read_bytes()[:400] + b"rubbish" * 20)
    assert read_header(path) in ("deflated content is damaged", "damaged header")


def test_a_decoder_that_dies_or_hangs_costs_one_file(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared_data / "dicom_edge" / "pydicom" / "MR_small_RLE.dcm"
    with Decoder() as decoder:
        first = decoder.plane(path, 0, (64, 64))
        os.kill(decoder.child.pid, signal.SIGKILL)
        with pytest.raises(DataError, match="pixels crash the decoder"):
            decoder.plane(path, 0, (64, 64))
        np.testing.assert_array_equal(decoder.plane(path, 0, (64, 64)), first)
        os.kill(decoder.child.pid, signal.SIGSTOP)
        monkeypatch.setattr("client.intake.decoder.PLANE_S", 0.2)
        with pytest.raises(DataError, match="more than 5 s"):
            decoder.plane(path, 0, (64, 64))
        monkeypatch.undo()
        np.testing.assert_array_equal(decoder.plane(path, 0, (64, 64)), first)
        child = decoder.child
    assert not child.is_alive()


def test_what_cannot_be_decoded_is_said(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "dicom_edge" / "pydicom" / "MR_small_jpeg_ls_lossless.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: len(whole) - 2500])
    with Decoder() as decoder:
        with pytest.raises(DataError, match="damaged or cannot be decoded"):
            decoder.plane(path, 0, (64, 64))
        # The header said another size than the pixels have.
        path.write_bytes(whole)
        with pytest.raises(DataError, match="damaged or cannot be decoded"):
            decoder.plane(path, 0, (64, 65))
        dataset = dcmread(path)
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 500, 2000, 2000
        dataset.save_as(path)
        with pytest.raises(DataError, match="implausible size"):
            decoder.plane(path, 0, (2000, 2000))
