"""The phantom heart: volumes, conservation of mass, rasterisation."""

import numpy as np
import pytest

from shared_models.labels import LV, MYO, RV
from sim.patients import draw_patient
from sim.phantom.geometry import Anatomy, build_heart, ellipsoid_volume_ml, shell_volume_ml
from sim.phantom.motion import Function, beat, contraction, end_systolic_frame
from sim.phantom.planes import Pose, short_axis_stack
from sim.phantom.raster import paint_short_axis
from sim.phantom.scar import Patch, measure_scar, mobility

NORMAL = Anatomy(160, 165, 92, 7.5, 0.0, (0.0, 0.0, 0.0, 0.0), 1.2)
PUMP = Function(0.67, 0.55, 14, 0.25)
PHASE = np.arange(20) / 20


@pytest.mark.parametrize("disease", ["normal", "dcm", "hcm", "ischaemic"])
@pytest.mark.parametrize("seed", range(4))
def test_volumes_and_muscle_mass_over_the_cycle(disease: str, seed: int) -> None:
    patient = draw_patient(disease, np.random.default_rng(seed), image_sd=1.0, record_sd=0.75)
    motion = beat(patient.heart, patient.function, patient.mobility, PHASE)
    volumes = np.array([motion.volumes_ml(frame) for frame in range(len(PHASE))])
    ejected = contraction(PHASE)
    edv, ejection = patient.anatomy.edv_ml, patient.function.ejection_fraction
    np.testing.assert_allclose(volumes[:, 0], edv * (1 - ejection * ejected), rtol=1e-6)
    np.testing.assert_allclose(volumes[:, 1], volumes[0, 1], rtol=1e-6)
    rv = patient.anatomy.rv_edv_ml * (1 - patient.function.rv_ejection_fraction * ejected)
    np.testing.assert_allclose(volumes[:, 2], rv, rtol=1e-6)


def test_surfaces_are_nested() -> None:
    motion = beat(build_heart(NORMAL), PUMP, np.ones((72, 256)), PHASE)
    assert (motion.endo_mm <= motion.epi_mm).all()
    assert (motion.epi_mm <= motion.rv_mm + 1e-9).all()
    assert (motion.rv_mm <= motion.rv_epi_mm).all()


def test_quadrature_agrees_with_the_closed_form() -> None:
    heart = build_heart(NORMAL)
    radius = heart.endo_mm.max()
    assert shell_volume_ml(heart.endo_mm, 0.0, heart.level_mm) == pytest.approx(160, rel=1e-9)
    assert ellipsoid_volume_ml(radius, 92) == pytest.approx(160, rel=3e-3)


def test_golden_normal_man() -> None:
    # Specification J1: 160 mL, EF .67, wall 7.5 mm gives a mass of 120 g, diameters 54 and 34 mm.
    heart = build_heart(NORMAL)
    motion = beat(heart, PUMP, np.ones_like(heart.endo_mm), np.array([0.0, 0.35]))
    assert 1.05 * motion.volumes_ml(0)[1] == pytest.approx(120, rel=0.05)
    assert 2 * motion.endo_mm[0].max() == pytest.approx(54, abs=1.5)
    assert 2 * motion.endo_mm[1].max() == pytest.approx(34, abs=1.5)


def test_cycle_starts_full_and_empties_once() -> None:
    phase = np.linspace(0, 1, 101)[:-1]
    course = contraction(phase)
    assert course[0] == 0
    assert course.max() == pytest.approx(1)
    assert phase[end_systolic_frame(phase)] == pytest.approx(0.35)
    assert (np.diff(course[:35]) >= 0).all()
    assert (np.diff(course[40:]) <= 1e-12).all()


def test_scarred_wall_moves_less() -> None:
    heart = build_heart(NORMAL)
    scar = (Patch(np.pi, 0.6, 0.5, 0.3, -0.3, 1.2, 0.3, 0.0),)
    burden = measure_scar(heart, scar)
    free = mobility(burden.transmurality, 0.9)
    motion = beat(heart, Function(0.4, 0.5, 9, 0.2), free, np.array([0.0, 0.35]))
    inward = 1 - motion.endo_mm[1] / motion.endo_mm[0].clip(1e-6)
    level = 33
    assert inward[level, 128] < 0.3 * inward[level, 0]
    assert 5 < burden.core_percent < 25
    assert burden.grey_percent > 0


def test_no_scar_is_no_burden() -> None:
    burden = measure_scar(build_heart(NORMAL), ())
    assert (burden.core_percent, burden.grey_percent, burden.transmurality.max()) == (0, 0, 0)


def _mask_errors_ml(lead_mm: float, step_mm: float, spacing_mm: float = 1.6) -> np.ndarray:
    heart = build_heart(NORMAL)
    motion = beat(heart, PUMP, np.ones_like(heart.endo_mm), np.array([0.0, 0.35]))
    pose = Pose.draw(np.random.default_rng(3))
    stack = short_axis_stack(
        pose, 97.25, spacing_mm=spacing_mm, size_px=int(220 / spacing_mm), thickness_mm=6.0,
        step_mm=step_mm, lead_mm=lead_mm, off_centre_mm=np.zeros(2),
    )  # fmt: skip
    canvas = np.zeros((2, len(stack.origin_mm), stack.size_px, stack.size_px), np.float32)
    labels = paint_short_axis(
        canvas, motion, pose, stack, np.zeros((len(stack.origin_mm), 2)),
        {"blood": 1.0, "myocardium": 0.4, "fat": 0.9, "scar": 1.0},
        label_frames=(0, 1), sublevels=3, edge_mm=spacing_mm,
    )  # fmt: skip
    voxel_ml = spacing_mm**2 * step_mm / 1000
    masks = [
        [(labels[phase] == label).sum() * voxel_ml for label in (LV, MYO, RV)] for phase in (0, 1)
    ]
    analytic = [motion.volumes_ml(0), motion.volumes_ml(1)]
    return np.array(masks) - np.array(analytic)


@pytest.mark.parametrize("step_mm", [6.0, 8.0, 10.0])
def test_masks_reach_the_discretisation_floor(step_mm: float) -> None:
    # The cavity ends at the base with its full cross-section A: slices at a random phase miss or
    # add up to A dz / 2 there, uniformly, sd A dz / sqrt(12). (Specification F1 simulated 4 to
    # 5.5 mL, at most about 10 mL, for 6 to 10 mm.)
    base_ml = np.pi * build_heart(NORMAL).endo_mm[0, 0] ** 2 * step_mm / 1000
    phases = (np.arange(16) + 0.5) / 16
    errors = np.array([_mask_errors_ml(phase * step_mm, step_mm) for phase in phases])
    lv = errors[:, 0, 0]
    assert lv.std() == pytest.approx(base_ml / np.sqrt(12), rel=0.12)
    assert np.abs(lv).max() < 0.6 * base_ml
    # Over all phases the mean error vanishes: LV at both phases, muscle and RV at end-diastole.
    assert abs(lv.mean()) < 2.0
    assert abs(errors[:, 1, 0].mean()) < 2.5
    assert abs(errors[:, 0, 1].mean()) < 6
    assert abs(errors[:, 0, 2].mean()) < 6


def test_slices_outside_the_ventricle_are_empty() -> None:
    heart = build_heart(NORMAL)
    motion = beat(heart, PUMP, np.ones_like(heart.endo_mm), np.array([0.0, 0.35]))
    pose = Pose.draw(np.random.default_rng(0))
    stack = short_axis_stack(
        pose, 97.25, spacing_mm=2.0, size_px=110, thickness_mm=8.0, step_mm=10.0, lead_mm=9.0,
        off_centre_mm=np.zeros(2),
    )  # fmt: skip
    canvas = np.zeros((2, len(stack.origin_mm), 110, 110), np.float32)
    signals = {"blood": 1.0, "myocardium": 0.4, "fat": 0.9}
    labels = paint_short_axis(
        canvas, motion, pose, stack, np.zeros((len(stack.origin_mm), 2)), signals,
        label_frames=(0, 1), sublevels=3, edge_mm=2.0,
    )  # fmt: skip
    assert not labels[:, 0].any()
    assert labels[0, 2].any()
    # The base comes down: a slice just below it belongs to the atrium at end-systole.
    assert labels[0, 1].any() and not labels[1, 1].any()
    assert not labels[:, -1].any()


def test_pose_is_right_handed_and_points_to_the_apex() -> None:
    for seed in range(20):
        pose = Pose.draw(np.random.default_rng(seed))
        basis = np.stack([pose.axis, pose.lateral, pose.inferior])
        np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
        # Patient LPS: the apex lies to the left (+), in front (-) and below (-).
        assert pose.axis[0] > 0.3 and pose.axis[1] < -0.2 and pose.axis[2] < -0.2
        np.testing.assert_allclose(np.cross(pose.lateral, pose.inferior), -pose.axis, atol=1e-12)
