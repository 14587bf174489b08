"""Studies from the archive into the store: what is missing, until nothing is."""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.pacs.archive import Archive, Series, StudyQuery, Wanted
from client.pacs.classic import ClassicArchive
from client.pacs.journal import JOURNAL, Journal
from client.pacs.receiver import Receiver
from client.pacs.settings import PacsSettings
from client.pacs.store import Store
from client.pacs.wanted import Entry, matches, unique
from client.pacs.watch import Watch
from client.pacs.web import WebArchive
from client.pseudonyms import load_secret
from client.site import SITE_FILE, SiteConfig, load_site
from protocol.errors import ConfigError, DataError, TransferError

__all__ = ["Summary", "fetch"]

PROTOCOLS: dict[str, Callable[[PacsSettings, Path, Watch], Archive]] = {
    "c-get": ClassicArchive,
    "c-move": ClassicArchive,
    "dicomweb": WebArchive,
}
PAUSE_S = 1.0
# An archive that fails so many studies on end has a fault of its own.
MAX_FAILURES = 5

#: Called with (studies done, studies in all, images done, images in all of the study at hand).
Progress = Callable[[int, int, int, int], None]


@dataclass
class Summary:
    """What a fetch did; nothing in it names a patient or a study.

    Attributes
    ----------
    wanted : int
        Studies.
    complete : int
        Studies of which all images are in the store.
    incomplete : list of tuple
        (the study's folder in the store, why) of the others.
    absent : list of int
        Lines of the list that the archive knows nothing of.
    stored, present, repeated, num_bytes : int
        Images that came, were there before, came again; bytes that were stored.
    refused : Counter
        Reason to how many files were not let in.
    """

    wanted: int = 0
    complete: int = 0
    incomplete: list[tuple[str, str]] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    stored: int = 0
    present: int = 0
    repeated: int = 0
    num_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        """Whether everything wanted is in the store."""
        return not self.absent and self.complete == self.wanted


def fetch(
    site_dir: Path,
    wanted: Sequence[Entry] | StudyQuery,
    tell: Progress | None = None,
    pause_s: float = PAUSE_S,
) -> Summary:
    """Bring studies into the folder that ``images.path`` names; repeat nothing that is there.

    Parameters
    ----------
    site_dir : Path
        Directory with ``site.yaml``.
    wanted : sequence of Entry, or StudyQuery
        A list, or what to ask the archive for.
    tell : callable, optional
        Called after each image.
    pause_s : float
        Before the first repetition of a study that broke off; doubled each time.

    Raises
    ------
    ConfigError
        If ``site.yaml`` or what it points to is wrong, or another fetch of this site runs.
    DataError
        If the store cannot be written, the journal is damaged, or nothing matches the query.
    TransferError
        If the archive does not answer a query.
    """
    site_dir = site_dir.resolve()
    config = load_site(site_dir)
    settings, root = _settings(config), _store_root(site_dir, config)
    secret = load_secret(site_dir, config.secret)
    folder = site_dir / ".concors"
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        with _alone(folder / "fetch.lock"):
            journal = Journal(folder / JOURNAL)
            watch = Watch(settings)
            with PROTOCOLS[settings.protocol](settings, site_dir, watch) as archive:
                store = Store(root, secret, journal)
                task = _Fetch(settings, archive, store, watch, tell or _tell_nobody, pause_s)
                return task.run(wanted)
    except OSError as error:
        raise DataError(
            f"the store cannot be written ({error.strerror}); make room or mend its rights."
        ) from error


def _tell_nobody(studies: int, of_studies: int, images: int, of_images: int) -> None:
    pass


def _settings(config: SiteConfig) -> PacsSettings:
    if config.pacs is None:
        raise ConfigError(f"{SITE_FILE} has no section pacs; say there where the archive is.")
    if config.images is None or config.images.format != "dicom":
        raise ConfigError(
            f"{SITE_FILE}: images of format dicom say where the store is; give images.path."
        )
    return config.pacs


def _store_root(site_dir: Path, config: SiteConfig) -> Path:
    root = (site_dir / (config.images.path if config.images else "")).resolve()
    if not root.is_relative_to(site_dir) or root == site_dir:
        raise ConfigError(f"{SITE_FILE}: images.path is no folder below the site's directory.")
    return root


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError("another fetch of this site runs; wait until it has ended.") from error
    try:
        yield
    finally:
        os.close(descriptor)


@dataclass
class _Fetch:
    """One run, from the question to the summary."""

    settings: PacsSettings
    archive: Archive
    store: Store
    watch: Watch
    tell: Progress
    pause_s: float
    summary: Summary = field(default_factory=Summary)

    def run(self, wanted: Sequence[Entry] | StudyQuery) -> Summary:
        journal, summary = self.store.journal, self.summary
        journal.note("start", {"protocol": self.settings.protocol})
        try:
            lines = self._listed(wanted)
            summary.wanted += len(lines)
            failures = 0
            for number, (study, line) in enumerate(lines.items()):
                name = self.store.name(study)
                if failures >= MAX_FAILURES:
                    reason = f"not tried: {MAX_FAILURES} studies before it failed on end."
                else:
                    reason, came = self._study(study, number, len(lines), line)
                    failures = failures + 1 if reason and not came else 0
                if not reason:
                    summary.complete += 1
                elif line not in summary.absent:
                    summary.incomplete.append((name, reason))
                outcome = {"study": name} | ({"reason": reason} if reason else {})
                journal.note("incomplete" if reason else "complete", outcome)
        except KeyboardInterrupt:
            journal.note("interrupted", {"stored": summary.stored})
            raise
        journal.note("end", {"wanted": summary.wanted, "complete": summary.complete})
        return summary

    def _listed(self, wanted: Sequence[Entry] | StudyQuery) -> dict[str, int]:
        """Return the UIDs of the studies, each with its line of the list (0: a query's)."""
        if isinstance(wanted, StudyQuery):
            found = self._found(wanted)
            if not found:
                raise DataError("the archive has no study that matches; widen the query.")
            return dict.fromkeys(found, 0)
        lines: dict[str, int] = {}
        for entry in wanted:
            if entry.uid:
                lines.setdefault(entry.uid, entry.line)
                continue
            try:
                found = self._found(StudyQuery(accession=entry.accession))
            except TransferError as error:
                self.summary.wanted += 1
                self.summary.incomplete.append((f"line {entry.line}", error.sentence))
                continue
            if not found:
                self.summary.wanted += 1
                self.summary.absent.append(entry.line)
            for study in found:
                lines.setdefault(study, entry.line)
        return lines

    def _found(self, query: StudyQuery) -> list[str]:
        with self.watch.transfer():
            found = unique(s for s in self.archive.find(query) if matches(s, query))
        if len(found) > self.settings.max_studies:
            raise TransferError(
                f"{len(found)} studies match, more than pacs.max_studies allows; ask for fewer."
            )
        return found

    def _study(self, study: str, number: int, of: int, line: int) -> tuple[str, bool]:
        """Fetch one study; return why it is not complete, and whether the archive sent anything."""
        reason, before = "", self.summary.stored
        for attempt in range(1 + self.settings.retries):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                with self.watch.transfer(self.settings.max_study_bytes):
                    series = self.archive.series(study)
                    if not any(each.announced for each in series):
                        if line:
                            self.summary.absent.append(line)
                        return "the archive lists no series of pacs.modalities for it.", True
                    reason = self._missing(study, series, number, of, first=attempt == 0)
            except TransferError as error:
                reason = error.sentence
            if not reason or self.watch.final:
                break
        return reason, self.summary.stored > before

    def _missing(
        self, study: str, series: Sequence[Series], number: int, of: int, *, first: bool
    ) -> str:
        """Have sent what is not in the store yet; return what is missing still, as a sentence."""
        listed = {image.uid for each in series for image in each.images}
        announced = sum(each.announced for each in series)
        if announced > self.settings.max_study_files:
            raise self.watch.fail(
                f"the archive announces more than {self.settings.max_study_files} images; raise "
                "pacs.max_study_files if they are wanted.",
                final=True,
            )
        there = self.store.present(study, sorted(listed))
        if first:
            self.summary.present += len(there)
        self.watch.total += sum(there.values())
        wanted = _wanted(series, there)
        receiver = Receiver(
            self.store,
            self.watch,
            study,
            listed - set(there),
            lambda: self.tell(number, of, len(there) + len(receiver.stored), announced),
        )
        self.tell(number, of, len(there), announced)
        try:
            if wanted:
                self.archive.retrieve(study, wanted, receiver)
        finally:
            self.summary.stored += len(receiver.stored)
            self.summary.num_bytes += receiver.num_bytes
            self.summary.repeated += receiver.repeated
            self.summary.refused.update(receiver.refused)
            self.store.close(study)
        missing = announced - len(there) - len(receiver.stored)
        return f"{missing} of {announced} images that the archive announces did not come." * (
            missing > 0
        )


def _wanted(series: Sequence[Series], there: dict[str, int]) -> list[Wanted]:
    wanted = []
    for each in series:
        images = tuple(image for image in each.images if image.uid not in there)
        if images:
            whole = len(images) == len(each.images) == each.announced
            wanted.append(Wanted(each.uid, images, whole))
    return wanted
