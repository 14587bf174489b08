"""Sorting by geometry: whatever the numbering, the cutting into series and the order of files."""

import math
from dataclasses import replace

import numpy as np
import pytest

from client.intake.frame import Frame, Pixels
from client.intake.planes import planes
from client.intake.sorting import sort_study
from client.intake.stacks import BASE_TO_APEX, plan_stack
from protocol.errors import DataError

ROW = (0.712221, 0.701112, -0.0343949)
COLUMN = (-0.307716, 0.267798, -0.913015)
NORMAL = np.cross(ROW, COLUMN)
PIXELS = Pixels(path="", offset=-1, bits=16, signed=False, num_frames=1)


def _frame(position: float, trigger_ms: float, series: str = "1", **fields: object) -> Frame:
    origin = np.array([-28.0, -199.0, 111.0]) + NORMAL * position
    base = Frame(
        patient_id="p",
        study_uid="s",
        series_uid=series,
        series_number=int(series.split(".")[0]),
        sop_uid=f"{position}/{trigger_ms}/{series}",
        frame_index=0,
        vendor="ge",
        field_strength_t=1.5,
        image_type=("ORIGINAL", "PRIMARY", "M"),
        text="cine",
        inversion_recovery=False,
        inversion_ms=0.0,
        position_mm=tuple(float(x) for x in origin),
        orientation=(*ROW, *COLUMN),
        pixel_spacing_mm=(1.3, 1.3),
        thickness_mm=8.0,
        trigger_ms=trigger_ms,
        temporal_index=math.nan,
        rows=64,
        cols=64,
        slope=1.0,
        intercept=0.0,
        pixels=PIXELS,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def _cine(dz: float = 10.0, num_slices: int = 8, num_phases: int = 10) -> list[Frame]:
    return [_frame(z * dz, 10.0 + 30.0 * t) for z in range(num_slices) for t in range(num_phases)]


def test_the_order_of_files_is_irrelevant() -> None:
    frames = _cine()
    expected = plan_stack(sort_study(frames).cine)
    for seed in range(5):
        shuffled = [frames[i] for i in np.random.default_rng(seed).permutation(len(frames))]
        plan = plan_stack(sort_study(shuffled).cine)
        assert plan.frames == expected.frames
        np.testing.assert_array_equal(plan.affine, expected.affine)


def test_slices_run_base_to_apex_whichever_way_the_scanner_counted() -> None:
    plan = plan_stack(_cine())
    assert plan.affine[:3, 2] @ BASE_TO_APEX > 0
    assert plan.spacing_mm == pytest.approx((10.0, 1.3, 1.3), rel=1e-5)
    turned = [replace(f, orientation=(*f.orientation[3:], *f.orientation[:3])) for f in _cine()]
    again = plan_stack(turned)
    assert again.affine[:3, 2] @ BASE_TO_APEX > 0


def test_one_series_a_slice_is_one_stack() -> None:
    frames = [replace(f, series_uid=str(round(f.position_mm[0], 3))) for f in _cine()]
    assert plan_stack(sort_study(frames).cine).shape == (10, 8, 64, 64)


def test_one_series_a_phase_is_one_stack() -> None:
    frames = [replace(f, series_uid=f"{f.trigger_ms}") for f in _cine()]
    assert plan_stack(sort_study(frames).cine).shape == (10, 8, 64, 64)


def test_trigger_times_that_differ_by_slice_are_ranked() -> None:
    frames = [_frame(z * 10.0, (20.0 + 3.0 * z) * t) for z in range(8) for t in range(10)]
    plan = plan_stack(sort_study(frames).cine)
    for t, phase in enumerate(plan.frames):
        assert [f.trigger_ms for f in phase] == sorted((20.0 + 3.0 * z) * t for z in range(8))[::-1]


def test_positions_within_half_a_millimetre_are_one_plane() -> None:
    frames = [_frame(0.0, 1.0), _frame(0.4, 2.0), _frame(1.0, 3.0)]
    assert [len(group) for group in planes(frames)] == [2, 1]


def test_localizers_long_axes_and_late_images_are_told_apart() -> None:
    localizers = [_frame(z, math.nan, "2", text="3-plane loc") for z in (0.0, 20.0)]
    long_axis = [
        _frame(0.0, 30.0 * t, "3", text="cine 4ch", orientation=(*COLUMN, *NORMAL))
        for t in range(10)
    ]
    late = [_frame(z * 10.0, 700.0, "4", text="ir tfe", inversion_recovery=True) for z in range(8)]
    found = sort_study([*localizers, *long_axis, *late, *_cine()])
    assert len(found.cine) == 80 and len(found.lge) == 8
    assert found.refused == {"localizer": 1, "long-axis view": 1}


def test_a_slice_acquired_twice_counts_once() -> None:
    again = [_frame(30.0, 10.0 + 30.0 * t, "2") for t in range(10)]
    found = sort_study([*_cine(), *again])
    assert plan_stack(found.cine).shape == (10, 8, 64, 64)
    assert {f.series_uid for f in found.cine if f in again} == {"2"}, "the later one is kept"
    assert found.refused == {"slice acquired again; the fuller or later series is used": 1}


def test_phase_sensitive_is_preferred_to_magnitude() -> None:
    magnitude = [_frame(z * 10.0, 700.0, "4", inversion_recovery=True) for z in range(8)]
    sensitive = [
        _frame(z * 10.0, 700.0, "5", inversion_recovery=True, image_type=("ORIGINAL", "R", "PSIR"))
        for z in range(8)
    ]
    found = sort_study([*_cine(), *magnitude, *sensitive])
    assert {f.series_uid for f in found.lge} == {"5"}
    assert found.refused == {"another late-enhancement reconstruction is used": 1}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (_cine(num_slices=4), "cine with fewer than 5 parallel planes"),
        (_cine(num_phases=1), "single-phase, not late enhancement"),
        (
            [replace(f, text="flow") for f in _cine()],
            "map, phase, perfusion or other derived image",
        ),
        (
            [replace(f, orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                     position_mm=(0.0, 0.0, float(i // 10 * 10))) for i, f in enumerate(_cine())],
            "cine along a body plane",
        ),
    ],
)  # fmt: skip
def test_a_study_without_a_short_axis_says_why(frames: list[Frame], reason: str) -> None:
    found = sort_study(frames)
    assert not found.cine and found.refused == {reason: 1}


def test_a_missing_slice_is_refused() -> None:
    frames = [f for f in _cine() if f.position_mm != _frame(30.0, 0.0).position_mm]
    with pytest.raises(DataError, match="unevenly spaced"):
        plan_stack(frames)


def test_phases_without_times_are_refused() -> None:
    frames = [replace(f, trigger_ms=math.nan) for f in _cine()]
    with pytest.raises(DataError, match="cannot be told apart by trigger time"):
        plan_stack(frames)
    # Canon writes 1 everywhere; where the index does count, it serves.
    counted = [replace(f, temporal_index=i % 10) for i, f in enumerate(frames)]
    assert plan_stack(counted).shape == (10, 8, 64, 64)
    with pytest.raises(DataError, match="cannot be told apart"):
        plan_stack([replace(f, temporal_index=1.0) for f in frames])


def test_a_slice_with_more_phases_is_brought_to_the_common_number() -> None:
    extra = [_frame(70.0, 5.0 + 15.0 * t) for t in range(20)]
    frames = [f for f in _cine() if f.position_mm != extra[0].position_mm] + extra
    plan = plan_stack(frames)
    assert plan.shape[:2] == (10, 8)
    assert sorted({p[z].trigger_ms for p in plan.frames for z in (0, 7)})[0] == 5.0
