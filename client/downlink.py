"""The model of a request made whole, where it came as the packed change of an earlier one.

The models a hospital was sent lie in ``.concors/studies/STUDY/downlink/STAGE``, one file a round.
The centre names the one it starts from by round and fingerprint, and the one it gives; both are
compared, so a hospital never trains another model than the centre believes it does. What is not
there or damaged is no failure: the hospital says so by a code, and is sent the whole model.
"""

from dataclasses import replace
from pathlib import Path

from client.hospital import Hospital
from protocol.arrays import Arrays, ArraySpec, check_finite, check_layout, fingerprint, layout
from protocol.compression import DELTA, Codec, apply_change, decode, encoded_size
from protocol.errors import MissingModelError, PayloadError
from protocol.payload import Base, TrainRequest
from shared_models.weights import load, save

__all__ = ["whole_request"]

# The centre keeps two checkpoints, so it may ask the round before the last again, whose model is
# the change of the one before that.
KEEP = 3
PATTERN = "round-*.safetensors"
WHERE = "The centre's model"


def whole_request(hospital: Hospital, request: TrainRequest) -> TrainRequest:
    """Return the request with its model whole, and keep that model where the study needs it.

    Raises
    ------
    MissingModelError
        If the hospital does not have, intact, the model of which the change came.
    PayloadError
        If a change came that the study does not announce, or that is none of such a model.
    """
    compression = request.study.rounds.compression
    codec = Codec.of(compression.down, compression.fraction)
    if codec is None:
        if request.base is not None:
            raise PayloadError(f"{WHERE} is packed and the study does not say so; correct it.")
        return request
    folder = hospital.workspace(request.study) / "downlink" / request.stage
    model = request.arrays
    if request.base is not None:
        model = _unpacked(folder, request.base, model, codec)
    _keep(folder, request.round_index, model)
    return replace(request, arrays=model, base=None)


def _unpacked(folder: Path, base: Base, packed: Arrays, codec: Codec) -> Arrays:
    before = _held(folder, base)
    model = layout(before)
    check_layout(packed, {DELTA: ArraySpec((encoded_size(model, codec),), "uint8")}, WHERE)
    arrays = apply_change(before, decode(packed[DELTA], model, codec, WHERE))
    check_finite(arrays, WHERE)
    if fingerprint(arrays) != base.after:
        raise MissingModelError(
            "The change that was sent does not give the centre's model here; the whole model is "
            "needed, and if this returns, both ends must run the same version of numpy."
        )
    return arrays


def _held(folder: Path, base: Base) -> Arrays:
    try:
        arrays, told = load(_file(folder, base.round_index))
    except PayloadError:
        arrays, told = {}, {}
    if fingerprint(arrays) != base.before:
        raise MissingModelError(
            f"This hospital does not hold the model of round {base.round_index}, of which the "
            "change was sent; the whole model is needed."
        )
    # A file sorts its arrays; the model keeps the order of its network.
    order = [name for name in told.get("names", "").split() if name in arrays]
    return {name: arrays[name] for name in (*order, *arrays)}


def _file(folder: Path, round_index: int) -> Path:
    return folder / f"round-{round_index:05d}.safetensors"


def _keep(folder: Path, round_index: int, model: Arrays) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = _file(folder, round_index)
    save(file, model, {"names": " ".join(model)})
    kept = sorted(other for other in folder.glob(PATTERN) if other.name <= file.name)[-KEEP:]
    for other in set(folder.glob(PATTERN)) - set(kept):
        other.unlink()
