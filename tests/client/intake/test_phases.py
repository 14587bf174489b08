"""Slices of unlike breath-holds at common phases; slices and phases that are missing are named."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.intake.drawn import by_phase
from client.intake.frame import Frame, Pixels
from client.intake.images import decode, moved
from client.intake.phases import common_phases, cycle_of, cyclic_distance, onto_phases
from client.intake.stacks import StackLimits, plan_stack
from client.quality_limits import QualityLimits
from protocol.errors import DataError

ROW, COLUMN = (0.0, 0.6, -0.8), (-1.0, 0.0, 0.0)
NORMAL = np.cross(ROW, COLUMN)
SIZE = 8
Slice = tuple[float, float, int, float]


def shape_at(phase: float, z: int) -> np.ndarray:
    """A picture that depends smoothly on the phase, and cyclically."""
    ramp = np.arange(SIZE * SIZE, dtype=float).reshape(SIZE, SIZE)
    return np.rint(1000 + 10 * ramp + 300 * z + 500 * np.cos(2 * np.pi * phase))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., list[Frame]]:
    """Write slices given as (position mm, RR ms, frames, trigger delay ms), as raw pixels."""

    def write(slices: list[Slice], *, stated: bool = True, fill: float = 1.0) -> list[Frame]:
        frames = []
        for z, (position, rr, count, delay) in enumerate(slices):
            for t in range(count):
                trigger = delay + t * fill * rr / count
                path = tmp_path / f"{z}-{t}.raw"
                path.write_bytes(shape_at(trigger / rr, z).astype("<u2").tobytes())
                frames.append(
                    Frame(
                        patient_id="p",
                        study_uid="s",
                        series_uid="1",
                        series_number=1,
                        sop_uid=f"{z}/{t}",
                        frame_index=0,
                        vendor="ge",
                        field_strength_t=1.5,
                        image_type=(),
                        text="cine",
                        inversion_recovery=False,
                        inversion_ms=0.0,
                        position_mm=tuple(float(x) for x in NORMAL * position),
                        orientation=(*ROW, *COLUMN),
                        pixel_spacing_mm=(1.5, 1.5),
                        thickness_mm=8.0,
                        trigger_ms=round(trigger, 3),
                        temporal_index=math.nan,
                        rows=SIZE,
                        cols=SIZE,
                        slope=1.0,
                        intercept=0.0,
                        pixels=Pixels(str(path), 0, 16, False, 1),
                        rr_ms=rr if stated else math.nan,
                    )
                )
        return frames

    return write


Written = Callable[..., list[Frame]]


def grid_order(num_slices: int) -> list[int]:
    """Which written slice stands at each place of the grid, base to apex."""
    return list(range(num_slices))[:: 1 if NORMAL @ (1, -1, -1) > 0 else -1]


@pytest.mark.parametrize("stated", [True, False])
def test_other_heart_rates_at_the_same_phases_pass_untouched(
    written: Written, stated: bool
) -> None:
    slices = [(8.0 * z, 700.0 + 40 * z, 12, (700.0 + 40 * z) / 60) for z in range(6)]
    plan = plan_stack(written(slices, stated=stated))
    assert plan.notes == () and plan.shape == (12, 6, SIZE, SIZE)
    order = grid_order(6)
    for t, volume in enumerate(decode(plan)):
        for z, plane in enumerate(volume):
            np.testing.assert_array_equal(plane, shape_at(t / 12 + 1 / 60, order[z]))


def test_another_number_of_frames_and_another_delay_are_interpolated(written: Written) -> None:
    slices = [(8.0 * z, 800.0, 20, 0.0) for z in range(6)]
    slices[2], slices[4] = (16.0, 900.0, 30, 0.0), (32.0, 640.0, 20, 12.8)
    plan = plan_stack(written(slices))
    assert plan.notes == ("slices at other phases of the beat, interpolated to the common ones",)
    np.testing.assert_allclose(plan.phases, np.arange(20) / 20)
    order = grid_order(6)
    stack = decode(plan)
    for z, source in enumerate(order):
        truth = np.stack([shape_at(t / 20, source) for t in range(20)])
        # Linear interpolation of a cosine errs by (2 pi h)^2 / 8 of its amplitude at most, and by
        # half a grey level of rounding.
        step = {2: 1 / 30, 4: 1 / 20}.get(source, 0.0)
        bound = 500 * (2 * np.pi * step) ** 2 / 8 + (0.5 if step else 0.0)
        assert float(np.abs(stack[:, z] - truth).max()) <= bound
    # Worked by hand: 12.8 of 640 ms is phase .02; the common phase .05 is .6 on the way from frame
    # 0 at .02 to frame 1 at .07, and the common phase 0 is .6 from frame 19 at .97 to frame 0.
    blend = plan.blends[order.index(4)]
    assert (blend.low[1], blend.high[1]) == (0, 1) and blend.weight[1] == pytest.approx(0.6)
    assert (blend.low[0], blend.high[0]) == (19, 0) and blend.weight[0] == pytest.approx(0.6)


def test_prospective_frames_keep_their_place_in_the_beat(written: Written) -> None:
    """Frames over 80 % of the beat, every 32 ms: the stated beat counts, not what they fill."""
    slices = [(8.0 * z, 800.0, 20, 0.0) for z in range(6)]
    plan = plan_stack(written(slices, fill=0.8))
    np.testing.assert_allclose(plan.phases, np.arange(20) * 0.04)


def test_diastole_is_the_frame_nearest_to_the_r_wave(written: Written) -> None:
    """Two frames exported of a beat, as of one public study: 281 and 694 of 750 ms."""
    frames = written([(8.0 * z, 750.0, 20, 18.75) for z in range(6)])
    kept = [f for f in frames if f.sop_uid.split("/")[1] in ("7", "18")]
    plan = plan_stack(kept)
    assert plan.shape[0] == 2 and plan.diastole == 1
    assert all(f.sop_uid.endswith("/18") for f in plan.frames[1])
    assert plan_stack(frames).diastole == 0


def test_far_frames_are_not_mixed(written: Written) -> None:
    frames = written([(8.0 * z, 750.0, 20, 0.0) for z in range(6)])
    chosen = {0: ("2", "11")}
    kept = [
        f
        for f in frames
        if f.sop_uid.split("/")[1] in chosen.get(int(f.sop_uid.split("/")[0]), ("0", "9"))
    ]
    plan = plan_stack(kept)
    assert not any(blend.mixes for blend in plan.blends)
    assert {tuple(f.sop_uid.split("/")[1] for f in phase) for phase in plan.frames} <= {
        ("2", *("0",) * 5), ("11", *("9",) * 5), ("0",) * 5 + ("2",), ("9",) * 5 + ("11",),
    }  # fmt: skip


def test_a_first_frame_before_the_r_wave_is_the_same_phase(written: Written) -> None:
    frames = written([(8.0 * z, 800.0, 20, 0.0) for z in range(6)])
    early = [
        replace(f, trigger_ms=(f.trigger_ms - 1.0) % 800.0) if f.sop_uid.startswith("3/") else f
        for f in frames
    ]
    plan = plan_stack(early)
    assert plan.notes == () and not any(blend.mixes for blend in plan.blends)
    assert all(len({f.sop_uid.split("/")[1] for f in phase}) == 1 for phase in plan.frames)


def test_phases_are_compared_on_a_circle() -> None:
    np.testing.assert_allclose(cyclic_distance(np.array([0.95, 0.5, 0.2]), 0.05), [0.1, 0.45, 0.15])


def test_a_missing_slice_is_refused_or_filled_as_the_site_says(written: Written) -> None:
    frames = [
        f
        for f in written([(8.0 * z, 800.0, 10, 0.0) for z in range(7)])
        if not f.sop_uid.startswith("3/")
    ]
    with pytest.raises(DataError, match=r"more are missing than quality\.max_missing_slices"):
        plan_stack(frames)
    plan = plan_stack(frames, QualityLimits(max_missing_slices=1).stack)
    assert plan.shape == (10, 7, SIZE, SIZE) and plan.at == (0, 1, 2, 4, 5, 6)
    assert plan.notes == ("a slice between others is missing, interpolated from its neighbours",)
    assert plan.spacing_mm[0] == pytest.approx(8.0)
    stack = decode(plan)
    np.testing.assert_allclose(stack[:, 3], (stack[:, 2] + stack[:, 4]) / 2)


def test_uneven_slices_are_named_or_refused(written: Written) -> None:
    at = [0.0, 8.0, 16.0, 25.0, 33.0, 41.0]
    plan = plan_stack(written([(z, 800.0, 10, 0.0) for z in at]))
    assert plan.notes == ("slices are unevenly spaced, taken at their mean distance",)
    assert plan.spacing_mm[0] == pytest.approx(41.0 / 5)
    at[3:] = [27.0, 35.0, 43.0]
    frames = written([(z, 800.0, 10, 0.0) for z in at])
    with pytest.raises(DataError, match=r"beyond quality\.max_unevenness"):
        plan_stack(frames)
    assert plan_stack(frames, StackLimits(unevenness=0.45)).shape[1] == 6


def test_missing_phases_are_named_or_refused(written: Written) -> None:
    frames = written([(8.0 * z, 800.0, 20, 0.0) for z in range(6)])
    few = [f for f in frames if f.sop_uid not in ("2/5", "2/6")]
    plan = plan_stack(few)
    assert plan.notes == (
        "a slice has fewer cardiac phases than the others",
        "a cardiac phase between others is missing",
        "slices at other phases of the beat, interpolated to the common ones",
    )
    # What is there stands as it is.
    stack, whole = decode(plan), decode(plan_stack(frames))
    z = grid_order(6).index(2)
    np.testing.assert_allclose(stack[[*range(5), *range(7, 20)], z], whole[[*range(5), *range(7, 20)], z], atol=1e-3)  # fmt: skip  # noqa: E501
    assert float(np.abs(stack[5:7, z] - whole[5:7, z]).max()) < 500 * (2 * np.pi * 0.15) ** 2 / 8
    with pytest.raises(DataError, match=r"more cardiac phases than quality\.max_missing_phases"):
        plan_stack(few, StackLimits(missing_phases=0.05))


def test_end_systole_may_be_another_frame_in_another_slice(written: Written) -> None:
    frames = written([(8.0 * z, 800.0, 20, 0.0) for z in range(6)])
    plan = plan_stack(frames)
    drawn = {}
    for a, cycle in enumerate(plan.cycles):
        for j, size in ((0, 6), (8 if cycle.frames[0].sop_uid != "3/0" else 9, 4)):
            labels = np.zeros((SIZE, SIZE), np.uint8)
            labels[:size, :size] = 1
            drawn[a, j] = labels
    labelled = by_phase(drawn, plan)
    assert labelled.phases == (0, 8)
    assert (labelled.labels[1] == 1).sum(axis=(1, 2)).tolist() == [16] * 6
    (at,) = labelled.drawn_on
    assert at == (1, grid_order(6).index(3)) and labelled.drawn_on[at].sop_uid == "3/9"


def test_planes_move_by_whole_pixels() -> None:
    plane = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(
        moved(plane, np.array([1, -1]), outside=0), [[0, 0, 0, 0], [1, 2, 3, 0], [5, 6, 7, 0]]
    )
    np.testing.assert_array_equal(moved(plane, np.array([0, 1]))[0], [0, 0, 1, 2])


def test_the_phases_most_slices_share_are_the_common_ones(written: Written) -> None:
    slices = [(8.0 * z, 800.0, 16, 5.0 if z in (0, 1) else 30.0) for z in range(7)]
    frames = written(slices)
    cycles = [cycle_of(frames[16 * z : 16 * (z + 1)]) for z in range(7)]
    common = common_phases(cycles)
    np.testing.assert_array_equal(common, cycles[2].phases)
    assert [onto_phases(cycle, common).mixes for cycle in cycles] == [True] * 2 + [False] * 5
