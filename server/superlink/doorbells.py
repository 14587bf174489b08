"""Who waits for something, and is told when it has come."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

__all__ = ["Doorbells"]

Found = TypeVar("Found")


class Doorbells:
    """One bell for each thing that is waited for, as long as somebody waits for it."""

    def __init__(self) -> None:
        self._bells: dict[Hashable, tuple[asyncio.Event, int]] = {}

    def __len__(self) -> int:
        return len(self._bells)

    @contextmanager
    def listening(self, thing: Hashable) -> Iterator[asyncio.Event]:
        """Yield what will be set when the thing has come."""
        bell, listeners = self._bells.get(thing, (asyncio.Event(), 0))
        self._bells[thing] = bell, listeners + 1
        try:
            yield bell
        finally:
            now, listeners = self._bells.get(thing, (bell, 1))
            if now is bell and listeners > 1:
                self._bells[thing] = bell, listeners - 1
            elif now is bell:
                self._bells.pop(thing, None)

    async def wait(
        self,
        thing: Hashable,
        look: Callable[[], Awaitable[Found]],
        missing: Callable[[Found], bool],
        seconds: float,
    ) -> Found:
        """Look for a thing; if it is missing, look again when it has come, or after the time."""
        # Listened for before it is looked for, so that nothing comes in between unheard.
        with self.listening(thing) as bell:
            found = await look()
            if not missing(found):
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await bell.wait()
        return await look()

    def ring(self, thing: Hashable) -> None:
        """Say that the thing has come."""
        bell, _ = self._bells.pop(thing, (None, 0))
        if bell is not None:
            bell.set()
