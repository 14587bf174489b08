"""The log of the server's database, emptied when no run is under way.

What is dropped from the database is overwritten there (`server.superlink.prepared_store`), but
stays readable in SQLite's write-ahead log until that has gone round: after a run, what hospitals
sent, for weeks.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["empty", "keep_empty"]

LOOK_S = 30.0
# The server's own threads wait for the database longer (5 s); this only tries again later.
PATIENCE_S = 0.5


def empty(database: Path) -> bool:
    """Empty the log unless a run is under way or the database is busy; say whether it is empty."""
    place = f"{database.resolve().as_uri()}?mode=rw"
    unfinished = "SELECT EXISTS (SELECT 1 FROM task WHERE finished_at IS NULL)"
    try:
        with closing(sqlite3.connect(place, PATIENCE_S, uri=True)) as connection:
            if connection.execute(unfinished).fetchone()[0]:
                return False
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.DatabaseError:
        # Not made yet, or busy: there is a next time.
        return False
    return not busy


async def keep_empty(database: Path) -> None:
    """Empty it now and then, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(empty, database)
