"""What a series of a cardiac MR study can be: the names that both sides agree on."""

__all__ = ["SEQUENCES", "VIEWS"]

# t1_weighted: the images that a T1 map is fitted to, and T1-weighted spin echo.
SEQUENCES = (
    "cine",
    "lge_magnitude",
    "lge_psir",
    "t1_map",
    "t1_weighted",
    "perfusion",
    "flow",
    "localizer",
    "other",
)
# 2ch_rv is the two-chamber view of the right heart: parallel to 2ch, but beside the left ventricle.
VIEWS = (
    "sax",
    "2ch",
    "3ch",
    "4ch",
    "lvot",
    "rvot",
    "2ch_rv",
    "axial",
    "coronal",
    "sagittal",
    "other",
)
