import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from shared_models.clinical import (
    Remote,
    estimate_remote,
    scar_fwhm,
    scar_n_sd,
    scar_percent,
    ventricular_function,
    volume_ml,
    wall_thickness,
)
from shared_models.labels import LV, MYO, RV

SPACING_MM = (10.0, 1.5, 1.5)


def _ring(inner_mm: float, outer_mm: float, num_slices: int = 3) -> np.ndarray:
    axis = (np.arange(97) - 48) * SPACING_MM[1]
    radius = np.hypot(axis[:, None], axis[None, :])
    plane = np.where(radius < inner_mm, LV, np.where(radius < outer_mm, MYO, 0))
    return np.repeat(plane[None].astype(np.uint8), num_slices, axis=0)


def test_worked_volumes() -> None:
    ed, es = np.zeros((2, 10, 10), np.uint8), np.zeros((2, 10, 10), np.uint8)
    ed[:, :5, :8], ed[:, 5:, :2], ed[:, 9, 2:4] = LV, MYO, RV
    es[:, :5, :4] = LV
    found = ventricular_function(ed, es, (10.0, 2.0, 1.0))
    assert found.lv_edv_ml == pytest.approx(80 * 20 / 1000)
    assert found.lv_esv_ml == pytest.approx(0.8)
    assert found.lv_sv_ml == pytest.approx(0.8)
    assert found.lv_ef_percent == pytest.approx(50.0)
    assert found.lv_mass_g == pytest.approx(20 * 20 / 1000 * 1.05)
    assert found.rv_edv_ml == pytest.approx(0.08)
    assert found.rv_ef_percent == pytest.approx(100.0)


def test_no_cavity_has_no_ejection_fraction() -> None:
    empty = np.zeros((2, 4, 4), np.uint8)
    found = ventricular_function(empty, empty, SPACING_MM)
    assert found.lv_edv_ml == 0 and math.isnan(found.lv_ef_percent)


def test_a_cylinder_has_its_volume() -> None:
    expected = math.pi * 30**2 * 30 / 1000
    assert volume_ml(_ring(30, 40) == LV, SPACING_MM) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("thickness_mm", [6.0, 9.0, 15.0])
def test_wall_thickness_of_a_ring_within_a_quarter_pixel(thickness_mm: float) -> None:
    found = wall_thickness(_ring(25, 25 + thickness_mm), SPACING_MM)
    assert found.mean_mm == pytest.approx(thickness_mm, abs=0.4)
    assert found.mean_mm <= found.max_mm <= thickness_mm + 1.5


def test_a_thicker_septum_shows_in_the_maximum_only_there() -> None:
    labels = _ring(25, 34)
    thick = _ring(25, 46)
    half = labels.copy()
    half[:, :, :40] = thick[:, :, :40]
    found = wall_thickness(half, SPACING_MM)
    assert found.max_mm == pytest.approx(21, abs=1.5)
    assert 9 < found.mean_mm < 21


def test_no_wall_has_no_thickness() -> None:
    found = wall_thickness(np.zeros((2, 8, 8), np.uint8), SPACING_MM)
    assert math.isnan(found.mean_mm) and math.isnan(found.max_mm)


def _enhanced(scar_share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    lge = rng.normal(0.2, 0.03, size=(4, 40, 40))
    truth = np.zeros(lge.shape, bool)
    truth[:, : round(40 * scar_share)] = True
    lge[truth] += 0.6
    return lge, np.ones(lge.shape, bool), truth


@pytest.mark.parametrize("scar_share", [0.0, 0.1, 0.3])
def test_remote_is_found_beside_scar(scar_share: float) -> None:
    lge, myocardium, _ = _enhanced(scar_share)
    remote = estimate_remote(lge, myocardium)
    assert remote.mean == pytest.approx(0.2, abs=0.015)
    assert remote.sd == pytest.approx(0.03, rel=0.4)


@pytest.mark.parametrize("scar_share", [0.1, 0.3])
def test_scar_is_found_by_both_rules(scar_share: float) -> None:
    lge, myocardium, truth = _enhanced(scar_share)
    expected = scar_percent(truth, myocardium)
    for scar in (scar_n_sd(lge, myocardium, 5.0), scar_fwhm(lge, myocardium)):
        assert scar_percent(scar, myocardium) == pytest.approx(expected, abs=1.0)


def test_a_healthy_wall_has_no_scar() -> None:
    lge, myocardium, _ = _enhanced(0.0)
    assert scar_percent(scar_n_sd(lge, myocardium, 5.0), myocardium) < 0.1
    assert scar_percent(scar_fwhm(lge, myocardium), myocardium) == 0.0


def test_scar_ignores_scale_and_offset_where_it_should() -> None:
    lge, myocardium, _ = _enhanced(0.2)
    other = 300.0 * lge + 40.0
    assert np.array_equal(scar_n_sd(lge, myocardium), scar_n_sd(other, myocardium))
    floor = estimate_remote(other, myocardium).mean
    once = scar_fwhm(lge, myocardium, floor=estimate_remote(lge, myocardium).mean)
    assert np.array_equal(once, scar_fwhm(other, myocardium, floor=floor))


def test_more_deviations_find_less_scar() -> None:
    lge, myocardium, _ = _enhanced(0.1)
    counts = [scar_n_sd(lge, myocardium, n, Remote(0.2, 0.03)).sum() for n in (2, 3, 4, 5, 6)]
    assert counts == sorted(counts, reverse=True)


def test_without_myocardium_there_is_no_percentage() -> None:
    lge, none = np.ones((2, 3, 3)), np.zeros((2, 3, 3), bool)
    assert math.isnan(scar_percent(none, none))
    assert not scar_n_sd(lge, none).any() and not scar_fwhm(lge, none).any()
    flat = estimate_remote(lge, ~none)
    assert (flat.mean, flat.sd) == (1.0, 0.0)


def test_acdc_reference_values(shared_data: Path) -> None:
    # The independent table of the ACDC diagnosis study; its labels are 1 RV, 2 MYO, 3 LV.
    folder = shared_data / "acdc"
    reference = {row["Name"]: row for row in csv.DictReader(_table(folder))}
    with (folder / "patients.csv").open() as file:
        patients = list(csv.DictReader(file))
    assert len(patients) == 80
    to_ours = np.array([0, RV, MYO, LV], np.uint8)
    thickness = []
    for patient in patients:
        expected = reference[patient["patient"]]
        pixel = float(patient["inplane_if_10mm"])
        # The table gives the voxel volume to many digits; spread it over three axes.
        spacing = (float(patient["voxel_volume_mm3"]) / pixel**2, pixel, pixel)
        with np.load(folder / "volumes" / f"{patient['patient']}.npz") as arrays:
            ed, es = to_ours[arrays["ed_label"]], to_ours[arrays["es_label"]]
        found = ventricular_function(ed, es, spacing)
        assert found.lv_ef_percent / 100 == pytest.approx(float(expected["EF(LV)"]), abs=1e-10)
        assert found.rv_ef_percent / 100 == pytest.approx(float(expected["EF(RV)"]), abs=1e-10)
        assert found.lv_edv_ml == pytest.approx(float(expected["ED[vol(LV)]"]) / 1000, rel=1e-4)
        # The table's "mass" is the volume in mm3: it leaves the density out.
        mass = 1.05 * float(expected["ED[mass(MYO)]"]) / 1000
        assert found.lv_mass_g == pytest.approx(mass, rel=1e-4)
        slices = [wall_thickness(plane[None], spacing).mean_mm for plane in ed]
        thickness.append((np.nanmax(slices), float(expected["ED[max(mean(MWT|SA)|LA)]"])))
    ours, theirs = np.array(thickness).T
    # Their slice distance is not always 10 mm, so single patients may differ.
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    assert np.median(ours / theirs) == pytest.approx(1.0, abs=0.05)


def _table(folder: Path) -> io.StringIO:
    return io.StringIO((folder / "reference_cardiac_parameters.csv").read_text())
