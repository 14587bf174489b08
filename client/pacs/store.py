"""The site's own store: images under names that say nothing of whose they are.

``STUDY/IMAGE.dcm``, both 32 hexadecimal digits of a keyed hash of the UID. A file has its name only
when it is whole and on the disk; before, it is a draft beside it.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread

from client.intake.headers import UNREADABLE
from client.intake.opening import open_dicom
from client.intake.quiet import quietly
from client.intake.walking import DRAFT_SUFFIX
from client.pacs.journal import Journal
from protocol.errors import DataError

__all__ = ["Draft", "Store", "identify"]

UIDS = ["StudyInstanceUID", "SOPInstanceUID"]


def identify(path: Path) -> tuple[str, str]:
    """Return the study and instance UID that a file itself states.

    Raises
    ------
    DataError
        If it is no DICOM file, or damaged, or states none.
    """
    try:
        with open_dicom(path) as (stream, _, _), quietly():
            dataset = dcmread(stream, stop_before_pixels=True, specific_tags=UIDS)
            study, image = (str(dataset.get(key) or "").strip("\0 ") for key in UIDS)
    except UNREADABLE as error:
        raise DataError("not a DICOM file") from error
    if not (study and image):
        raise DataError("an image without its UIDs")
    return study, image


class Draft:
    """A file on its way in; removed unless it was kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.num_bytes = path, 0
        self.digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.stream = os.fdopen(descriptor, "wb")

    def write(self, content: bytes | memoryview) -> None:
        self.stream.write(content)
        self.digest.update(content)
        self.num_bytes += len(content)

    def sync(self) -> None:
        """Wait until the disk has the content."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()

    def discard(self) -> None:
        self.stream.close()
        self.path.unlink(missing_ok=True)


class Store:
    """The folder that ``images.path`` names.

    Parameters
    ----------
    root : Path
        The folder; made if it is not there.
    secret : bytes
        The site's key; without it nobody can tell which UID a name stands for.
    journal : Journal
    """

    def __init__(self, root: Path, secret: bytes, journal: Journal) -> None:
        self.root, self.secret, self.journal = root, secret, journal
        self.num_drafts = 0
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What a killed process left behind.
        for draft in root.glob(f"*/.*{DRAFT_SUFFIX}"):
            draft.unlink(missing_ok=True)

    def name(self, uid: str) -> str:
        """Return the name of a study or an image: 32 hexadecimal digits."""
        return hmac.new(self.secret, b"uid\0" + uid.encode(), hashlib.sha256).hexdigest()[:32]

    def path(self, study: str, image: str) -> Path:
        return self.root / self.name(study) / f"{self.name(image)}.dcm"

    def draft(self, study: str) -> Draft:
        """Open a draft for an image of a study."""
        folder = self.root / self.name(study)
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            _sync_folder(self.root)
        self.num_drafts += 1
        return Draft(folder / f".{os.getpid()}-{self.num_drafts}{DRAFT_SUFFIX}")

    def keep(self, draft: Draft, study: str, image: str) -> None:
        """Give a draft, once the disk has it whole, its name; then note it in the journal."""
        path = self.path(study, image)
        draft.sync()
        draft.path.replace(path)
        names = (self.name(study), self.name(image))
        self.journal.note_stored(*names, draft.num_bytes, draft.digest.hexdigest())

    def close(self, study: str) -> None:
        """Wait until the disk has the names of a study's images as well; drop an empty folder.

        Once a study: a name that a failing machine forgets is missed, and fetched again.
        """
        folder = self.root / self.name(study)
        if not folder.is_dir():
            return
        if any(folder.iterdir()):
            _sync_folder(folder)
        else:
            folder.rmdir()

    def present(self, study: str, images: Iterable[str]) -> dict[str, int]:
        """Return which images are there, and their bytes.

        One that the journal does not know (a process was killed between the two) is looked into and
        noted. One of another size than the journal says is damaged, and not counted.
        """
        noted = self.journal.stored.get(self.name(study), {})
        found: dict[str, int] = {}
        for image in images:
            path = self.path(study, image)
            if not path.is_file():
                continue
            size, name = path.stat().st_size, self.name(image)
            if noted.get(name) == size:
                found[image] = size
            elif name not in noted and _states(path, study, image):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                self.journal.note_stored(self.name(study), name, size, content)
                found[image] = size
        return found


def _states(path: Path, study: str, image: str) -> bool:
    try:
        return identify(path) == (study, image)
    except (DataError, OSError):
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
