"""Turning and resampling: laws first."""

import itertools

import numpy as np
import pytest

from client.geometry import (
    apply_turn,
    crop_affine,
    resample_labels,
    resample_plane,
    resample_rows_columns,
    turn_upright,
)

# Orientations of three Sunnybrook studies' rows and columns, LPS (GE 1.5 T).
REAL = [
    (0.712221, 0.701112, -0.0343949, -0.307716, 0.267798, -0.913015),
    (-0.104592, 0.346381, -0.932245, -0.733192, -0.660188, -0.163037),
    (0.86582, 0.489217, 0.104985, -0.180977, 0.501761, -0.845862),
]


def _affine(orientation: tuple[float, ...]) -> np.ndarray:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = row * 1.4, column * 1.4, (10.0, 20.0, 30.0)
    affine[:3, 2] = -np.cross(row, column) * 8
    return affine


@pytest.mark.parametrize("orientation", REAL)
def test_turning_moves_no_voxel_in_the_patient(orientation: tuple[float, ...]) -> None:
    affine, shape = _affine(orientation), (5, 7)
    index = np.arange(35).reshape(shape)
    turned_affine, turn = turn_upright(affine, shape)
    turned = apply_turn(index, turn)
    for row, column in itertools.product(range(turned.shape[0]), range(turned.shape[1])):
        old_row, old_column = divmod(int(turned[row, column]), 7)
        old = affine @ (old_column, old_row, 2, 1)
        np.testing.assert_allclose(turned_affine @ (column, row, 2, 1), old, atol=1e-9)


@pytest.mark.parametrize("orientation", REAL)
def test_every_planners_choice_ends_upright_alike(orientation: tuple[float, ...]) -> None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    ends = []
    for a, b in [(row, column), (column, -row), (-row, -column), (-row, column), (column, row)]:
        affine = _affine((*a, *b))
        affine[:3, 2] = -np.cross(row, column) * 8
        turned, _ = turn_upright(affine, (64, 64))
        ends.append(turned[:3, :3])
        assert turned[0, 0] > 0, "columns run to the patient's left"
        assert turned[2, 1] < 0, "rows run down"
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], atol=1e-9)


def test_upright_twice_changes_nothing() -> None:
    affine, _ = turn_upright(_affine(REAL[1]), (32, 48))
    again, turn = turn_upright(affine, (48, 32))
    assert turn == (False, False, False)
    np.testing.assert_array_equal(again, affine)


def test_the_same_grid_gives_the_same_image() -> None:
    image = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(
        resample_rows_columns(image, (7.5, 7.5), (1.0, 1.0), 16), image, rtol=1e-6
    )


def test_a_ramp_stays_a_ramp_at_any_spacing() -> None:
    image = np.broadcast_to(np.arange(40.0), (40, 40))
    for step in (0.5, 1.0, 1.7):
        out = resample_rows_columns(image, (20.0, 20.0), (step, step), 16)
        expected = 20.0 + (np.arange(16) - 7.5) * step
        np.testing.assert_allclose(out, np.broadcast_to(expected, (16, 16)), atol=0.08)


def test_outside_the_image_is_zero() -> None:
    out = resample_rows_columns(np.ones((8, 8)), (3.5, 3.5), (1.0, 1.0), 16)
    assert out[4:12, 4:12].min() == 1.0 and out.sum() == 64.0


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.tile([0.0, 1.0], (32, 16))
    out = resample_rows_columns(stripes, (15.5, 15.5), (2.0, 2.0), 12)
    np.testing.assert_allclose(out, 0.5, atol=1e-6)


def test_label_volume_survives_resampling() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    for step in (0.8, 1.3):
        ratios = []
        for centre, to in 47.5 + rng.uniform(-1, 1, (40, 2, 2)):
            distance = np.hypot(y - centre[0], x - centre[1])
            labels = np.where(distance < 20, 1, np.where(distance < 27, 2, 0))
            out = resample_labels(labels, 4, (to[0], to[1]), (step, step), 96)
            ratios.append([(out == k).sum() * step**2 / (labels == k).sum() for k in (1, 2)])
        # One placement errs by a percent or two, the mean over placements does not.
        np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.01)


def test_rotated_sampling_agrees_with_straight_sampling() -> None:
    image = np.random.default_rng(1).random((32, 32)).astype(np.float32)
    straight = resample_plane(image, np.array([[0.0, 1.0, 4.0], [1.0, 0.0, 6.0]]), 16)
    np.testing.assert_allclose(straight, image[4:20, 6:22], atol=1e-6)
    mirrored = resample_plane(image, np.array([[0.0, -1.0, 19.0], [1.0, 0.0, 6.0]]), 16)
    np.testing.assert_allclose(mirrored, image[19:3:-1, 6:22], atol=1e-6)


def test_the_crop_knows_where_it_lies() -> None:
    affine = _affine(REAL[0])
    crop = crop_affine(affine, (10.0, 12.0), (2.0, 3.0), 5)
    np.testing.assert_allclose(crop @ (2, 2, 1, 1), affine @ (12.0, 10.0, 1, 1))
    np.testing.assert_allclose(crop @ (3, 2, 1, 1), affine @ (15.0, 10.0, 1, 1))
