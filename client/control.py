"""A hospital's control variate, the c_i of SCAFFOLD: a file on its own disk that never travels.

There is one file a round, ``.concors/studies/STUDY/control/STAGE/round-00003.safetensors``. The
centre says after which round it last counted this hospital, and that round's variate is the one to
go on from: a round that is asked again, or whose reply was lost or refused, starts from what it
started from before, and the centre's ``c`` stays the mean of what the hospitals hold.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from client.hospital import Hospital
from protocol.arrays import Arrays, check_finite, check_layout, layout
from protocol.control import control_change, moved, no_control
from protocol.errors import DataError, PayloadError
from protocol.payload import TrainRequest
from shared_models.weights import load, save

__all__ = ["Control", "open_control"]

# The centre keeps two checkpoints, so it may go back by one round more than the last.
KEEP = 2
PATTERN = "round-*.safetensors"


@dataclass(frozen=True)
class Control:
    """What one round of one stage needs of the control variates.

    Attributes
    ----------
    path : Path
        Where this round's variate goes.
    request : TrainRequest
        With ``x`` and ``c``.
    own : Arrays
        ``c_i`` before this round.
    """

    path: Path
    request: TrainRequest
    own: Arrays

    def correction(self) -> dict[str, Tensor]:
        """Return ``c - c_i``, which is added to the gradient of every step."""
        return {name: torch.from_numpy(c - self.own[name]) for name, c in self._central().items()}

    def settle(self, trained: Arrays, rate_sum: float) -> None:
        """Keep the variate of this round and let go of those that no checkpoint needs.

        Parameters
        ----------
        trained : Arrays
            The model that is replied.
        rate_sum : float
            Sum of the learning rates of the steps taken.
        """
        where = "The control variate of this round"
        change = control_change(self.request.arrays, trained, self._central(), rate_sum, where)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save(self.path, moved(self.own, change), {"stage": self.request.stage})
        counted = _file(self.path.parent, self.request.control_round)
        older = sorted(f for f in self.path.parent.glob(PATTERN) if f.name <= counted.name)
        for file in set(self.path.parent.glob(PATTERN)) - {self.path, *older[-KEEP:]}:
            file.unlink()

    def _central(self) -> Arrays:
        return self.request.control or {}


def _file(folder: Path, round_index: int) -> Path:
    return folder / f"round-{round_index:05d}.safetensors"


def open_control(hospital: Hospital, request: TrainRequest) -> Control | None:
    """Return the control variates of a round; None where the strategy has none.

    Raises
    ------
    PayloadError
        If the centre's variate is not one of the model that came with it.
    DataError
        If the hospital no longer has its own from the round that the centre names.
    """
    if request.control is None:
        return None
    zeros = no_control(request.arrays)
    where = "The centre's control variate"
    check_layout(request.control, layout(zeros), where)
    check_finite(request.control, where)
    folder = hospital.workspace(request.study) / "control" / request.stage
    path = _file(folder, request.round_index)
    if request.control_round == 0:
        return Control(path, request, zeros)
    try:
        own, _ = load(_file(folder, request.control_round))
        check_layout(own, layout(zeros), "The hospital's own")
        check_finite(own, "The hospital's own")
    except PayloadError as error:
        raise DataError(
            f"{hospital.name} has no intact control variate of round {request.control_round} of "
            f"{request.stage}; restore .concors from a backup, or start the study under another "
            "name."
        ) from error
    return Control(path, request, own)
