"""What stands in the files and is not kept: tags by their dictionary names, never a value.

The names come from the DICOM dictionary and not from the files, and a private element is counted
without its creator's name, which is text of the file.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from client.intake.headers import UNREADABLE
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from protocol.errors import DataError

__all__ = ["KEPT", "DroppedTags", "dropped_tags"]

# What the kept tensors and their description still say of these: the maker as one of five words,
# the field strength, and where and how large the pixels are. All else of a file is gone.
KEPT = frozenset(
    {
        "BitsAllocated",
        "Columns",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "MagneticFieldStrength",
        "Manufacturer",
        "NumberOfFrames",
        "PixelData",
        "PixelRepresentation",
        "PixelSpacing",
        "PlaneOrientationSequence",
        "PlanePositionSequence",
        "RescaleIntercept",
        "RescaleSlope",
        "Rows",
        "SamplesPerPixel",
    }
)
UNKNOWN = "(not in the dictionary)"
MAX_DEPTH = 8


@dataclass(frozen=True)
class DroppedTags:
    """Kinds of elements that were seen and not kept.

    Attributes
    ----------
    files, looked_at : int
        Files of the folder, and how many of them were read for this list.
    by_name : mapping of str to int
        In how many files an element of this dictionary name stands, at any depth.
    private_groups : int
        Different private groups.
    with_private : int
        Files that hold private elements.
    """

    files: int
    looked_at: int
    by_name: dict[str, int]
    private_groups: int
    with_private: int


def dropped_tags(paths: Sequence[Path], *, most: int = 500, bare: bool = False) -> DroppedTags:
    """Look through files for what is not kept.

    Parameters
    ----------
    paths : sequence of Path
        All image files; at most ``most`` of them, evenly spread, are read.
    bare : bool
        Whether files without a DICOM preamble are read.
    """
    step = max(1, -(-len(paths) // most))
    names: Counter[str] = Counter()
    groups: set[int] = set()
    looked_at = with_private = 0
    for path in paths[::step]:
        found = _in_file(path, bare)
        if found is None:
            continue
        seen, private = found
        looked_at += 1
        names.update(seen - KEPT)
        groups |= private
        with_private += bool(private)
    return DroppedTags(
        len(paths), looked_at, dict(sorted(names.items())), len(groups), with_private
    )


def _in_file(path: Path, bare: bool) -> tuple[set[str], set[int]] | None:
    seen: set[str] = set()
    private: set[int] = set()
    try:
        with open_dicom(path, bare=bare) as (stream, is_bare, _), quietly():
            dataset = dcmread(stream, stop_before_pixels=True, force=is_bare)
            _look(dataset, seen, private, 0)
            _look(dataset.file_meta, seen, private, 0)
    except (DataError, *UNREADABLE):
        return None
    return seen, private


def _look(dataset: Dataset, seen: set[str], private: set[int], depth: int) -> None:
    for tag in sorted(dataset.keys()):
        if tag.is_private:
            private.add(tag.group)
            continue
        seen.add(keyword_for_tag(tag) or UNKNOWN)
        # Only sequences are converted; of all others not even the value is looked at.
        if depth < MAX_DEPTH and _is_sequence(dataset, tag):
            for item in dataset[tag].value or ():
                _look(item, seen, private, depth + 1)


def _is_sequence(dataset: Dataset, tag: object) -> bool:
    element = dataset.get_item(tag)
    vr = element.VR
    return vr == "SQ" or (vr is None and str(keyword_for_tag(tag)).endswith("Sequence"))
