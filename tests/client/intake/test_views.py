"""Views by geometry: laws of the rule, and the planes of real hearts."""

import numpy as np
import pytest

from client.intake.views import (
    USUAL_AXIS,
    counted_from,
    cut_angle_deg,
    heart_axes,
    septal_offset_mm,
    view_of,
)

CENTRE = np.array([16.0, 7.0, -60.0])
AXES = heart_axes(np.array([-0.48, 0.62, 0.62]) / np.linalg.norm([0.48, 0.62, 0.62]), CENTRE, 1.0)


def _plane(angle_deg: float, tilt_deg: float = 90.0) -> np.ndarray:
    """A normal whose plane cuts the short axis at an angle, and is so far from parallel to it."""
    angle, tilt = np.deg2rad([angle_deg - 90.0, tilt_deg])
    across = np.cos(angle) * AXES.anterior + np.sin(angle) * AXES.septal
    return np.cos(tilt) * AXES.apex + np.sin(tilt) * across


def test_the_axes_are_the_hearts_whichever_sign_the_normal_has() -> None:
    for sign in (1, -1):
        axes = heart_axes(sign * AXES.apex, CENTRE, 1.0)
        assert axes.apex @ USUAL_AXIS > 0.9
        np.testing.assert_allclose(axes.septal, np.cross(axes.apex, axes.anterior))
        assert axes.anterior[2] > 0, "the anterior wall is the upper one"
        assert axes.septal[0] < 0, "the septum is to the patient's right"


@pytest.mark.parametrize("angle", [-30.0, 0.0, 45.0, 90.0, 140.0])
def test_the_cut_is_the_angle_it_was_made_at(angle: float) -> None:
    for sign in (1, -1):
        assert cut_angle_deg(sign * _plane(angle), AXES) == pytest.approx(angle)


@pytest.mark.parametrize(
    ("angle", "view"),
    [(0, "2ch"), (-25, "2ch"), (60, "3ch"), (50, "3ch"), (120, "4ch"), (90, "4ch")],
)
def test_long_axis_views_by_the_segments_of_the_ventricle(angle: float, view: str) -> None:
    for sign in (1, -1):
        guess = view_of(sign * _plane(angle), CENTRE, AXES, moving=True)
        assert guess.label == view and guess.confidence > 0.5


def test_confidence_falls_to_a_half_at_a_boundary() -> None:
    sure, near = (view_of(_plane(angle), CENTRE, AXES, moving=True) for angle in (0.0, 29.5))
    assert sure.confidence > 0.95 and near.confidence < 0.55


def test_a_turned_heart_is_counted_from_its_own_two_chamber_view() -> None:
    alone = view_of(_plane(74.0), CENTRE, AXES, moving=True)
    turned = counted_from([(_plane(-14.0), CENTRE)], AXES)
    beside = view_of(_plane(74.0), CENTRE, turned, moving=True)
    assert (alone.label, beside.label) == ("3ch", "4ch")


def test_the_right_hearts_two_chamber_view_lies_to_the_right() -> None:
    aside = CENTRE + 38.0 * AXES.septal
    assert septal_offset_mm(_plane(0.0), aside, AXES) == pytest.approx(38.0)
    axes = counted_from([(_plane(0.0), CENTRE)], AXES)
    assert view_of(_plane(0.0), aside, axes, moving=True).label == "2ch_rv"
    assert view_of(_plane(0.0), CENTRE, axes, moving=True).label == "2ch"


@pytest.mark.parametrize(
    ("normal", "moving", "view"),
    [
        ((0, 0, 1), False, "axial"),
        ((0, 1, 0.05), False, "coronal"),
        ((1, 0.05, 0), False, "sagittal"),
        # Planes of a real study: an outflow tract at 45 degrees, and across the aortic valve.
        ((0.15, -0.98, 0.03), True, "lvot"),
        ((-0.64, -0.05, 0.76), True, "other"),
    ],
)
def test_planes_that_are_no_view_along_or_across_the_heart(
    normal: tuple[float, ...], moving: bool, view: str
) -> None:
    unit = np.array(normal) / np.linalg.norm(normal)
    assert view_of(unit, CENTRE, AXES, moving=moving).label == view


@pytest.mark.parametrize(
    ("rows", "columns", "view"),
    [
        # ImageOrientationPatient of the long-axis planes of a second real study, whose short axis
        # is (0.4883, 0.7639, -0.4219), (-0.6538, 0, -0.7567).
        ((0.9925, 0.0, -0.1222), (0.0776, 0.7726, 0.6301), "4ch"),
        ((-0.0799, 0.9945, -0.0682), (0.6493, 0.0, -0.7606), "3ch"),
        ((-0.5621, 0.8271, 0.0), (0.0, 0.0, -1.0), "2ch"),
    ],
)
def test_a_second_real_heart(rows: tuple, columns: tuple, view: str) -> None:
    across = np.cross((0.4883, 0.7639, -0.4219), (-0.6538, 0.0, -0.7567))
    axes = heart_axes(across / np.linalg.norm(across), CENTRE, 1.0)
    normal = np.cross(rows, columns)
    guess = view_of(normal / np.linalg.norm(normal), CENTRE, axes, moving=True)
    assert guess.label == view and guess.confidence > 0.85
