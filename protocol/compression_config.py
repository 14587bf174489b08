"""The section of a study that says in how many bytes models travel."""

from typing import Literal

from pydantic import Field

from protocol.yaml_files import Frozen

__all__ = ["Compression", "Method"]

Method = Literal["none", "bf16", "int8", "top-k"]


class Compression(Frozen):
    """How the change of a model is packed (`protocol.compression`), in either direction.

    Attributes
    ----------
    up : {"none", "bf16", "int8", "top-k"}
        From the hospitals to the centre: the change of the model by a hospital's training. About
        1/2, 1/4 and ``1.5 fraction`` of the bytes; with the last two, what is lost in a round is
        sent in the next.
    down : {"none", "bf16", "int8", "top-k"}
        From the centre to the hospitals: the change of the global model since the round before. A
        hospital that missed that round gets the whole model.
    fraction : float
        Share of the numbers that ``top-k`` sends, in (0, 1].
    """

    up: Method = "none"
    down: Method = "none"
    fraction: float = Field(0.01, gt=0, le=1)

    @property
    def is_used(self) -> bool:
        """Whether anything is compressed."""
        return self.up != "none" or self.down != "none"
