"""Sequences by tags and words, one frame set at a time."""

import math
from dataclasses import replace

import pytest

from client.intake.frame import Frame, Pixels
from client.intake.sequences import sequence_of, text_sequence, text_view
from client.intake.tags import NO_TAGS, Tags, read_tags

CINE = Tags(scanning=("GR",), variant=("SS",), flip_deg=60.0, phases=20.0)
BASE = Frame(
    patient_id="p", study_uid="s", series_uid="1", series_number=1, sop_uid="i", frame_index=0,
    vendor="ge", field_strength_t=1.5, image_type=("ORIGINAL", "PRIMARY", "M"), text="",
    inversion_recovery=False, inversion_ms=0.0, position_mm=(0.0, 0.0, 0.0),
    orientation=(0.8, 0.6, 0.0, 0.0, 0.0, -1.0), pixel_spacing_mm=(1.5, 1.5), thickness_mm=8.0,
    trigger_ms=0.0, temporal_index=math.nan, rows=64, cols=64, slope=1.0, intercept=0.0,
    pixels=Pixels("", -1, 16, False, 1), tags=CINE,
)  # fmt: skip


def _sequence(frames: list[Frame], *, survey: bool = False, has_phase: bool = False) -> str:
    return sequence_of([frames], survey=survey, has_phase=has_phase).label


def _over_the_beat(num: int = 12, **fields: object) -> list[Frame]:
    return [replace(BASE, trigger_ms=40.0 * t, **fields) for t in range(num)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "sequence"),
    [
        (_over_the_beat(), "cine"),
        (_over_the_beat(image_type=("ORIGINAL", "PRIMARY", "P")), "flow"),
        (_over_the_beat(text="tagging grid"), "other"),
        (_over_the_beat(text="flow aorta"), "flow"),
        ([replace(BASE, inversion_ms=300.0)], "lge_magnitude"),
        ([replace(BASE, inversion_ms=300.0, text="psir")], "lge_psir"),
        ([replace(BASE, inversion_ms=300.0, text="psir_mag")], "lge_magnitude"),
        ([replace(BASE, inversion_recovery=True, image_type=("ORIGINAL", "R"))], "lge_psir"),
        ([replace(BASE, inversion_ms=100.0 * i + 90) for i in range(8)], "t1_weighted"),
        (_over_the_beat(25, inversion_ms=90.0), "other"),
        ([replace(BASE, image_type=("DERIVED", "PRIMARY", "T1 MAP"))], "t1_map"),
        ([replace(BASE, image_type=("DERIVED", "PRIMARY", "T2 MAP"))], "other"),
        ([replace(BASE, tags=Tags(scanning=("SE",), echo_ms=80.0))], "other"),
        ([replace(BASE, tags=Tags(scanning=("SE",), echo_ms=9.0, repetition_ms=800.0))],
         "t1_weighted"),
        ([replace(BASE, trigger_ms=90.0, tags=replace(CINE, acquired_s=float(i)))
          for i in range(30)], "perfusion"),
        ([replace(BASE, tags=NO_TAGS, text="scout")], "localizer"),
        ([replace(BASE, tags=NO_TAGS)], "other"),
    ],
)  # fmt: skip
def test_sequences(frames: list[Frame], sequence: str) -> None:
    assert _sequence(frames) == sequence


def test_company_tells_what_a_series_alone_does_not() -> None:
    assert _sequence(_over_the_beat(), has_phase=True) == "flow"
    assert _sequence([replace(BASE, tags=NO_TAGS)], survey=True) == "localizer"


def test_many_inversion_times_are_a_scout() -> None:
    frames = [replace(BASE, inversion_ms=80.0 + 25 * i, trigger_ms=25.0 * i) for i in range(25)]
    assert _sequence(frames) == "other"


def test_words() -> None:
    assert text_sequence("ti_scout | *tfi") == "other"
    assert text_sequence("aahead_scout") == "localizer"
    assert text_sequence("lge_psir_sax_mag") == "lge_magnitude"
    assert text_view("cine 4ch") == "4ch" and text_view("sbtfe_bh sa") == "sax"
    assert text_view("lvot 3ch") == "lvot" and text_view("unknown") is None


def test_tags_that_are_no_numbers_are_left_out() -> None:
    values = {"RepetitionTime": ("x",), "FlipAngle": ("60",), "AcquisitionTime": ("101112.5",)}
    tags = read_tags(lambda keyword: values.get(keyword, ()))
    assert math.isnan(tags.repetition_ms) and tags.flip_deg == 60.0
    assert tags.acquired_s == 10 * 3600 + 11 * 60 + 12.5
    assert not tags.contrast_agent
