"""A multipart answer as it streams in: each part a file of its own, none ever whole in memory."""

from contextlib import AbstractContextManager
from types import TracebackType

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError

from client.pacs.receiver import Receiver
from client.pacs.store import Draft
from protocol.errors import TransferError

__all__ = ["Parts"]

DAMAGED = "the archive sends parts that are damaged."


class Parts(AbstractContextManager["Parts"]):
    """Feeds a receiver with the parts of one answer; leaves no draft behind."""

    def __init__(self, boundary: str, receiver: Receiver) -> None:
        self.receiver = receiver
        self.current: Draft | None = None
        self.complete = False
        try:
            self.parser = MultipartParser(
                boundary.encode("latin-1", "replace"),
                {
                    "on_part_begin": self._begin,
                    "on_part_data": self._data,
                    "on_part_end": self._end,
                    "on_end": self._complete,
                },
            )
        except FormParserError as error:
            raise TransferError(DAMAGED) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.current is not None:
            self.current.discard()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer.

        Raises
        ------
        TransferError
            If they cannot be parts.
        """
        # What follows the last part means nothing (RFC 2046, 5.1.1).
        if self.complete:
            return
        try:
            self.parser.write(chunk)
        except FormParserError as error:
            raise TransferError(DAMAGED) from error

    def end(self) -> None:
        """Note that the answer has ended.

        Raises
        ------
        TransferError
            If it ends within a part, or before the last.
        """
        if not self.complete:
            raise TransferError("the archive's answer ends in the middle.")

    def _begin(self) -> None:
        self.current = self.receiver.draft()

    def _data(self, content: bytes, start: int, end: int) -> None:
        if self.current is not None:
            self.current.write(memoryview(content)[start:end])

    def _end(self) -> None:
        if self.current is not None:
            self.receiver.finish(self.current)
            self.current = None

    def _complete(self) -> None:
        self.complete = True
