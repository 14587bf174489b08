"""Claim: ten thousand damaged DICOM files give a reason or pixels each; none crashes or hangs.

    python benchmarks/intake_fuzz.py [--count 10000] [--seed 1]

Real files of every kind (classic, enhanced, run-length, JPEG, JPEG-LS, JPEG 2000, deflated, big
endian) are mutated: bytes flipped, the end cut off, elements removed, lengths made huge, sequences
nested hundreds deep, matrices made enormous. Each mutant goes through the header pass and, if that
accepts it, its first frame through the decoder. The worst time a file and the largest memory of
this process and of the decoder's are printed; the claim is at most 5 s (6 with the decoder's own
limit) and 2 GiB.
"""

import argparse
import os
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.intake.decoder import Decoder
from client.intake.headers import read_header
from protocol.errors import DataError

DATA = Path(os.environ.get("CONCORS_DATA", "../shared/data")) / "dicom_edge"
SOURCES = (
    "pydicom/MR_small.dcm",
    "pydicom/MR_small_implicit.dcm",
    "pydicom/MR_small_expb.dcm",
    "pydicom/MR_small_RLE.dcm",
    "pydicom/MR_small_jpeg_ls_lossless.dcm",
    "dcm_qa_ts/5.dcm",
    "dcm_qa_ts/9.dcm",
    "dcm_qa_enh/Siemens/XA10/6_1.dcm",
    "pydicom_data/emri_small_big_endian.dcm",
)
HEADER_BYTES = 6000
MAX_S, MAX_BYTES = 6.0, 2 << 30
Mutation = Callable[[bytes, np.random.Generator], bytes]


def flip(whole: bytes, rng: np.random.Generator) -> bytes:
    """Change one to eight bytes, mostly of the header."""
    mutant = bytearray(whole)
    end = min(len(whole), HEADER_BYTES) if rng.random() < 0.8 else len(whole)
    for at in rng.integers(132, end, rng.integers(1, 9)):
        mutant[at] = rng.integers(256)
    return bytes(mutant)


def truncate(whole: bytes, rng: np.random.Generator) -> bytes:
    """Cut the end off."""
    return whole[: int(rng.integers(0, len(whole)))]


def delete(whole: bytes, rng: np.random.Generator) -> bytes:
    """Remove a run of bytes of the header: an element, or the half of two."""
    at = int(rng.integers(132, min(len(whole), HEADER_BYTES)))
    return whole[:at] + whole[at + int(rng.integers(1, 200)) :]


def lengthen(whole: bytes, rng: np.random.Generator) -> bytes:
    """Make four or two bytes, which may be a length, enormous."""
    at = int(rng.integers(132, min(len(whole), HEADER_BYTES) - 4))
    huge = rng.choice(np.array([0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x40000000], np.uint64))
    if rng.random() < 0.5:
        return whole[:at] + struct.pack("<I", int(huge)) + whole[at + 4 :]
    return whole[:at] + b"\xff\xff" + whole[at + 2 :]


def nest(whole: bytes, rng: np.random.Generator) -> bytes:
    """Put a sequence of hundreds of sequences before the first element of group 0020."""
    at = max(whole.find(b"\x20\x00\x0d\x00"), 132)
    depth = int(rng.integers(50, 3000))
    level = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return whole[:at] + (level + item) * depth + whole[at:]


def enlarge(whole: bytes, rng: np.random.Generator) -> bytes:
    """State an enormous matrix, or very many frames."""
    mutant = bytearray(whole)
    for tag in (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00"):
        at = whole.find(tag)
        if at > 0:
            size = int(rng.choice(np.array([2048, 8192, 65535])))
            mutant[at + 8 : at + 10] = struct.pack("<H", size)
    at = whole.find(b"\x28\x00\x08\x00")
    if at > 0 and rng.random() < 0.5:
        mutant[at + 8 : at + 10] = b"99"
    return bytes(mutant)


MUTATIONS: tuple[Mutation, ...] = (flip, flip, truncate, delete, lengthen, nest, enlarge)


def sources() -> list[bytes]:
    """Return the files to mutate, and one of them deflated."""
    whole = [(DATA / name).read_bytes() for name in SOURCES]
    dataset = dcmread(BytesIO(whole[0]))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer)
    return [*whole, buffer.getvalue()]


def outcome(path: Path, decoder: Decoder) -> str:
    """Return what intake says of one file: a reason, or ``pixels``."""
    frames = read_header(path)
    if isinstance(frames, str):
        return frames
    frame = frames[0]
    if frame.pixels.offset >= 0:
        return "uncompressed frames"
    try:
        decoder.plane(path, frame.frame_index, (frame.rows, frame.cols))
    except DataError as error:
        return error.sentence
    return "pixels"


def fuzz(count: int, seed: int) -> tuple[Counter[str], float]:
    """Return how often each outcome came, and the longest time of a file, s."""
    rng = np.random.default_rng(seed)
    originals = sources()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        path = Path(folder) / "mutant.dcm"
        decoder.plane(DATA / SOURCES[3], 0, (64, 64))
        for _ in range(count):
            whole = originals[int(rng.integers(len(originals)))]
            path.write_bytes(MUTATIONS[int(rng.integers(len(MUTATIONS)))](whole, rng))
            begin = time.monotonic()
            outcomes[outcome(path, decoder)] += 1
            slowest = max(slowest, time.monotonic() - begin)
    return outcomes, slowest


def main() -> int:
    """Print the outcomes; exit with 1 if the claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    outcomes, slowest = fuzz(asked.count, asked.seed)
    for reason, number in outcomes.most_common():
        print(f"{number:7d}  {reason}")
    here, child = (
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"{outcomes.total()} files, slowest {slowest:.2f} s,", end=" ")
    print(f"memory {here / 2**20:.0f} MiB, decoder {child / 2**20:.0f} MiB")
    return 0 if slowest <= MAX_S and max(here, child) <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
