"""A training reply in fewer bytes; what was lost in one round is kept here and sent in the next.

The residual (``e`` in `protocol.compression`) is the hospital's own and never travels: a file a
round, ``.concors/studies/STUDY/uplink/STAGE/round-00003.safetensors``. A round starts from the
newest one before it. So a round that is asked again gives the same bytes, a hospital that missed
rounds goes on with what it had left, and round 1 of a study starts from zero. A residual that is
damaged, or of another study of that name, is let go of: it is worth less than a round.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.hospital import Hospital
from protocol.arrays import Arrays, check_finite, check_layout, fingerprint, layout
from protocol.compression import (
    DELTA,
    Codec,
    change_of,
    encode,
    encode_with_feedback,
    no_residual,
)
from protocol.documents import digest
from protocol.errors import PayloadError
from protocol.payload import TrainReply, TrainRequest
from shared_models.weights import load, save

__all__ = ["packed_reply"]

log = logging.getLogger(__name__)

# The centre keeps two checkpoints, so it may ask the round before the last again, which starts
# from the residual of the one before that.
KEEP = 3
PATTERN = "round-*.safetensors"


def packed_reply(hospital: Hospital, request: TrainRequest, reply: TrainReply) -> TrainReply:
    """Return the reply as the study has it travel: whole, or as the packed change of the model.

    Raises
    ------
    PayloadError
        If the reply is not of the model that was sent, or not finite.
    """
    compression = request.study.rounds.compression
    codec = Codec.of(compression.up, compression.fraction)
    if codec is None:
        return reply
    where = "This hospital's update"
    check_layout(reply.arrays, layout(request.arrays), where)
    check_finite(reply.arrays, where)
    change = change_of(reply.arrays, request.arrays)
    if not codec.feeds_back:
        return replace(reply, arrays={DELTA: encode(change, codec)})
    residuals = _Residuals.of(hospital, request)
    payload, lost = encode_with_feedback(change, residuals.before(), codec)
    residuals.keep(lost)
    return replace(reply, arrays={DELTA: payload})


@dataclass(frozen=True)
class _Residuals:
    """The residuals of one stage of one study at one hospital.

    Attributes
    ----------
    folder : Path
    study : str
        Hash of what the residuals are of.
    request : TrainRequest
    """

    folder: Path
    study: str
    request: TrainRequest

    @classmethod
    def of(cls, hospital: Hospital, request: TrainRequest) -> "_Residuals":
        kinds = {"name", "seed", "hospitals", request.stage}
        study = request.study.model_dump(mode="json", include=kinds)
        compression = request.study.rounds.compression.model_dump()
        folder = hospital.workspace(request.study) / "uplink" / request.stage
        return cls(folder, digest({"study": study, "compression": compression}), request)

    def before(self) -> Arrays:
        """Return what was lost before this round; zeros if nothing intact is kept."""
        zeros = no_residual(self.request.arrays)
        earlier = [file for file in self._files() if file.name < self._file.name]
        if not earlier:
            return zeros
        try:
            arrays, told = load(earlier[-1])
        except PayloadError:
            arrays, told = {}, {}
        good = told.get("study") == self.study and told.get("sha256") == fingerprint(arrays)
        if good and layout(arrays) == layout(zeros):
            return arrays
        log.warning(
            "What the compression of an earlier round of %s left over is damaged or of another "
            "study; round %d starts without it.",
            self.request.stage,
            self.request.round_index,
        )
        return zeros

    def keep(self, lost: Arrays) -> None:
        """Write what this round lost, and let go of what no checkpoint of the centre needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = {"study": self.study, "sha256": fingerprint(lost)}
        save(self._file, {name: np.asarray(array) for name, array in lost.items()}, told)
        kept = [file for file in self._files() if file.name <= self._file.name][-KEEP:]
        for file in set(self._files()) - set(kept):
            file.unlink()

    @property
    def _file(self) -> Path:
        return self.folder / f"round-{self.request.round_index:05d}.safetensors"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(PATTERN))
