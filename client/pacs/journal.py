"""What was fetched, one line each, on the disk before the next: ``.concors/fetch.jsonl``.

The lines are those of `protocol.audit`: chained by hashes, appended under a lock, waited for until
the disk has them. Studies and images stand in it by keyed hash; no identifier of either does.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from protocol.audit import append
from protocol.documents import decode
from protocol.errors import DataError, PayloadError

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "fetch.jsonl"


class Journal:
    """The journal of one site.

    Attributes
    ----------
    stored : dict
        Study to image to the number of bytes, of every image that was stored; names of the store.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises
        ------
        DataError
            If a line other than a last one that a crash cut short is damaged.
        """
        self.path = path
        self.stored: dict[str, dict[str, int]] = {}
        for event, detail in _lines(path):
            if event == "stored":
                images = self.stored.setdefault(str(detail["study"]), {})
                images[str(detail["image"])] = int(detail["bytes"])

    def note(self, event: str, detail: Mapping[str, Any]) -> None:
        """Append a line and wait until the disk has it."""
        append(self.path, event, dict(detail), sync=True)

    def note_stored(self, study: str, image: str, num_bytes: int, sha256: str) -> None:
        """Append the line of one image."""
        self.note("stored", {"study": study, "image": image, "bytes": num_bytes, "sha256": sha256})
        self.stored.setdefault(study, {})[image] = num_bytes


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = decode(raw.decode("utf-8"), "The line")
                event, detail = line["event"], line["detail"]
                if event == "stored":
                    detail = {**detail, "bytes": int(detail["bytes"])}
                    detail["study"], detail["image"]
            except (PayloadError, ValueError, LookupError, TypeError) as error:
                raise DataError(
                    f"line {number} of .concors/{JOURNAL} is damaged; move the file away, and the "
                    "next start takes stock of the store anew."
                ) from error
            yield event, detail
