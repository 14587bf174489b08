"""The limits beyond which a hospital sets a study or a mask aside: the sections of ``site.yaml``.

What is limited is measured in `client.quality` and `client.mask_quality`; a process that only reads
a site's settings needs neither.
"""

from pydantic import BaseModel, ConfigDict, Field

from client.intake.stacks import StackLimits

__all__ = ["MaskLimits", "QualityLimits"]


class MaskLimits(BaseModel):
    """The section ``quality.masks`` of ``site.yaml``: where a mask is set aside.

    Attributes
    ----------
    min_pixels : int
        Of each class, at each phase, over the stack.
    min_lv_slices : int
        Neighbouring slices with left ventricle at end-diastole.
    min_largest_part : float
        Share of the left ventricle of a slice that is one piece, least over slices with 50 pixels
        or more, in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_pixels: int = Field(10, ge=1)
    min_lv_slices: int = Field(5, ge=1)
    min_largest_part: float = Field(0.8, ge=0, le=1)


class QualityLimits(BaseModel):
    """The section ``quality`` of ``site.yaml``: where a study is set aside.

    Attributes
    ----------
    min_slices : int
        Short-axis slices.
    min_extent_mm : float
        Number of slices times their distance; a left ventricle is 70 to 110 mm long.
    slice_distance_mm, pixel_mm : tuple of float
        Accepted ranges.
    min_signal_to_noise, min_contrast_to_noise : float
        See `client.quality.Quality`.
    max_misalignment_mm : float
        In-plane jump of one slice against its neighbours.
    max_mistriggered : float
        Share of moving slices whose contraction differs from that of the others, in [0, 1].
    max_missing_slices : int
        Gaps between slices that are filled from their neighbours, in slices.
    max_missing_phases : float
        Share of the usual number of cardiac phases that a slice may lack, in [0, 1).
    max_unevenness : float
        By how much the distance of two slices may differ from a multiple of the usual one, as a
        share of it, in [0, .5).
    max_text_characters : int
        Characters in a line of text burned into the pixels, of the cine or of late enhancement.
    masks : MaskLimits
        Limits on expert masks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_slices: int = Field(5, ge=1)
    min_extent_mm: float = Field(40.0, ge=0)
    slice_distance_mm: tuple[float, float] = (3.0, 20.0)
    pixel_mm: tuple[float, float] = (0.4, 4.0)
    min_signal_to_noise: float = Field(4.0, ge=0)
    min_contrast_to_noise: float = Field(2.0, ge=0)
    max_misalignment_mm: float = Field(12.0, ge=0)
    max_mistriggered: float = Field(0.5, ge=0, le=1)
    max_missing_slices: int = Field(0, ge=0)
    max_missing_phases: float = Field(0.5, ge=0, lt=1)
    max_unevenness: float = Field(0.2, ge=0, lt=0.5)
    max_text_characters: int = Field(3, ge=0)
    masks: MaskLimits = MaskLimits()

    @property
    def stack(self) -> StackLimits:
        """The limits on how incomplete a stack may be."""
        return StackLimits(self.max_missing_slices, self.max_missing_phases, self.max_unevenness)
