"""A run's rounds as TensorBoard reads them: ``tensorboard --logdir RUN_DIR/tensorboard``.

One folder a hospital, so that TensorBoard overlays the hospitals' curves of one metric; what is of
all hospitals together has a folder of its own. The files are written beside the run and never read
by it: ``progress.jsonl``, the checkpoints and the results are the record.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.results import ALL_TOGETHER

__all__ = ["EventFiles", "scalars"]

MEGABYTE = 2**20
TRAFFIC = {"bytes_down": "mb_down", "bytes_up": "mb_up"}


def scalars(entry: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the numbers of one round by hospital and tag, ``<stage>/<metric>``.

    Parameters
    ----------
    entry : RoundEntry

    Returns
    -------
    dict
        Under `ALL_TOGETHER`: seconds, hospitals counted and left out, norm of the model's change,
        MB (2**20 bytes) down and up where they were measured, and what is known of secure sums.
    """
    together = entry.get("together", {})
    common: dict[str, float] = {
        "seconds": entry["seconds"],
        "update_norm": entry["update_norm"],
        "counted": len(entry["sites"]),
        "left_out": len(entry["excluded"]),
    }
    common |= {name: entry[key] / MEGABYTE for key, name in TRAFFIC.items() if key in entry}
    common |= {key: value for key, value in together.items() if key != "metrics"}
    common |= together.get("metrics", {})
    found = {ALL_TOGETHER: common}
    for site, part in entry["sites"].items():
        if not together:
            found[site] = {"weight": part["weight"], **part["metrics"]}
    return {
        site: {f"{entry['stage']}/{name}": float(value) for name, value in values.items()}
        for site, values in found.items()
    }


class EventFiles:
    """The event files of one stage, one a hospital, open until `close`.

    A stage that is resumed tells its earlier rounds again, so its old files are removed first:
    every round stands once.
    """

    def __init__(self, run_dir: Path, stage: str) -> None:
        self._folder, self._stage = run_dir / "tensorboard", stage
        self._writers: dict[str, Any] = {}
        for old in self._folder.glob(f"*/events.out.tfevents.*.{stage}"):
            old.unlink()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one round; it is on its way to the disk when this returns."""
        # Imported here: it looks for torch, and the server's commands must start quickly.
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        for site, values in scalars(entry).items():
            told = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer = self._writer(site)
            event = Event(step=entry["round"], summary=Summary(value=told))
            event.wall_time = time.time()
            writer.write_event(event)
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, site: str) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        if site not in self._writers:
            folder = self._folder / site
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[site] = EventsWriter(str(folder / "events"), f".{self._stage}")
        return self._writers[site]
