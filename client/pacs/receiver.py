"""Where everything that an archive sends for one study arrives, and is let in or not."""

import threading
from collections import Counter
from collections.abc import Callable, Collection

from client.pacs.store import Draft, Store, identify
from client.pacs.watch import Watch
from protocol.errors import DataError

__all__ = ["Receiver"]

# Of what was not asked for; a few are a misunderstanding, many are not.
MIN_STRANGE = 20


class Receiver:
    """Lets in what was asked for, once, and counts the rest.

    Parameters
    ----------
    store : Store
    watch : Watch
    study : str
        UID of the study.
    missing : collection of str
        UIDs of the images that may come.
    tell : callable
        Called after each image that was stored.

    Attributes
    ----------
    stored : set of str
        UIDs of what came.
    num_bytes : int
        Of what was stored.
    repeated : int
        How often an image came again; only the first is kept.
    refused : Counter
        Reason to how many files.
    """

    def __init__(
        self,
        store: Store,
        watch: Watch,
        study: str,
        missing: Collection[str],
        tell: Callable[[], None],
    ) -> None:
        self.store, self.watch, self.study, self.tell = store, watch, study, tell
        self.missing = frozenset(missing)
        self.stored: set[str] = set()
        self.num_bytes = self.repeated = 0
        self.refused: Counter[str] = Counter()
        # An archive that calls back may do so over several connections.
        self.lock = threading.Lock()

    def draft(self) -> Draft:
        """Open a draft; `finish` or `Draft.discard` ends it."""
        with self.lock:
            return self.store.draft(self.study)

    def finish(self, draft: Draft) -> bool:
        """Keep a whole draft if it is what was asked for; return whether the archive did right.

        Raises
        ------
        Stop
            If too much came that was not asked for.
        """
        self.watch.settle(draft.num_bytes)
        try:
            draft.stream.flush()
            study, image = identify(draft.path)
            with self.lock:
                right = self._keep(draft, study, image)
        except DataError as error:
            self.refused[error.sentence] += 1
            right = False
        finally:
            draft.discard()
        strange = self.refused.total() + self.repeated
        if strange > max(MIN_STRANGE, len(self.missing)):
            raise self.watch.fail("the archive keeps sending what was not asked for; ask why.")
        if right:
            self.watch.file_done()
        return right

    def _keep(self, draft: Draft, study: str, image: str) -> bool:
        if study != self.study or image not in self.missing:
            raise DataError("an image that was not asked for")
        if image in self.stored:
            self.repeated += 1
            return True
        self.store.keep(draft, study, image)
        self.stored.add(image)
        self.num_bytes += draft.num_bytes
        self.tell()
        return True
