"""Intake against the truth: what comes out of a scanner's files is what the phantom put in.

Every vendor, as single-frame images with and without private elements and as enhanced multi-frame
objects, with the quirks on: InstanceNumber in random order, SliceLocation a third too small,
TemporalPositionIdentifier 1 everywhere, one series a slice where the vendor does so, file names
drawn by chance, GE interpolated to twice the matrix. Compared are the pixels (stored integers times
the file's scale, to the bit), the order of slices and phases, spacing and affine, the expert's
masks, the late enhancement, and the masks after the common grid and back.

Run: ``python benchmarks/intake_truth.py [--patients 3]``; exit code 1 if anything differs.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import dcmread, dcmwrite

from client.imaging import read_headers
from client.intake.images import decode
from client.intake.segmentations import read_segmentations
from client.intake.sorting import sort_study
from client.intake.stacks import StackPlan, plan_stack
from client.intake.walking import files_below
from client.placement import Stack, labels_back, place
from client.preprocess import prepare
from protocol.config import Preprocessing
from shared_models.labels import CLASS_NAMES, LV, MYO, RV
from sim.config import ImageConfig, QuirkConfig
from sim.dicom import Identity, Instance, classic_series, decimal
from sim.enhanced import enhanced_series
from sim.examination import Examination, Series, examine
from sim.masks import SEGMENT_ORDERS, encode_masks
from sim.patients import draw_patient
from sim.vendors import VENDORS

FORMS = ("classic", "classic, no private elements", "enhanced")
QUIRKS = QuirkConfig(zip_interpolation=True)
SMALL = ImageConfig(cine_frames=6, matrix_px=96, sublevels=1)
# Philips' private scale slope, as the phantom writes it: a 32-bit float.
SCALE_SLOPE = float(np.float32(0.01))
ORDER = "lv_first"


def examination(vendor: str, seed: int, images: ImageConfig) -> Examination:
    """Scan a patient of a given seed."""
    rng = np.random.default_rng([seed, sorted(VENDORS).index(vendor)])
    patient = draw_patient("dcm", rng, image_sd=1.0, record_sd=0.75)
    return examine(patient, vendor, (1.5, 3.0)[seed % 2], images, QUIRKS, rng)


def identity(vendor: str, seed: int) -> Identity:
    """Return an invented patient."""
    return Identity("1234567", "PHANTOM^TRUTH", "19500101", "F", 70.0, 1.7, "truth",
                    f"truth/{vendor}/{seed}", "20190301", "101500")  # fmt: skip


def spoiled(instance: Instance) -> bytes:
    """Return a single-frame file that lies where real ones do."""
    dataset = dcmread(io.BytesIO(instance.content))
    dataset.SliceLocation = round(0.67 * float(dataset.SliceLocation), 3)
    dataset.TemporalPositionIdentifier = 1
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write(exam: Examination, form: str, folder: Path, seed: int) -> list[Path]:
    """Write a study's files below ``folder / "dicom"``; return the masks of its cine."""
    rng = np.random.default_rng(seed)
    who, number, masks = identity(exam.vendor, seed), 1, []
    (folder / "dicom").mkdir(parents=True)
    names = rng.permutation(100_000)
    written = 0
    for series in exam.series:
        if form == "enhanced" and series.kind in ("cine", "lge"):
            groups = enhanced_series(who, exam, series, number)
        else:
            order = rng.permutation(series.stored.shape[0] * series.stored.shape[1]).tolist()
            groups = classic_series(
                who, exam, series, number, VENDORS[exam.vendor].packaging, order,
                private_tags=form == "classic",
            )  # fmt: skip
        number += len(groups)
        instances = [instance for group in groups for instance in group]
        for instance in instances:
            content = instance.content if instance.place is None else spoiled(instance)
            (folder / "dicom" / f"{names[written]:05d}").write_bytes(content)
            written += 1
        if series.kind == "cine":
            phases = (0, exam.es_frame)
            order3 = SEGMENT_ORDERS[ORDER]
            for at, mask in enumerate(
                encode_masks(who, series, instances, exam.labels, phases, order3)
            ):
                masks.append(folder / f"mask{at}.dcm")
                masks[-1].write_bytes(mask)
    return masks


def scale(exam: Examination, form: str) -> np.float32:
    """Return the factor from a stored integer to what intake gives."""
    private = exam.vendor == "philips" and form == "classic"
    # Files hold five decimals of a slope.
    return np.float32(1.0 / SCALE_SLOPE if private else float(decimal(exam.slope)))


def differences(exam: Examination, form: str, folder: Path, seed: int) -> Iterator[str]:
    """Yield what intake makes of a study and its masks that is not the truth."""
    masks = write(exam, form, folder, seed)
    frames, refused = read_headers(files_below(folder / "dicom"), map)
    if refused:
        yield f"files refused: {dict(refused)}"
    found = sort_study(frames)
    series = {one.kind: one for one in exam.series}
    factor = scale(exam, form)
    cine = plan_stack(found.cine)
    yield from _geometry(cine, series["cine"])
    pixels = decode(cine)
    for name, ours, truth in (
        ("cine", pixels, series["cine"].stored),
        ("late enhancement", decode(plan_stack(found.lge)), series["lge"].stored),
    ):
        if not np.array_equal(ours, truth.astype(np.float32) * factor):
            yield f"{name}: other pixels"
    triggers = [[frame.trigger_ms for frame in phase] for phase in cine.frames]
    if not np.allclose(triggers, series["cine"].trigger_ms[:, None], atol=0.05):
        yield "phases in another order"
    convention = {n: CLASS_NAMES[label] for n, label in enumerate(SEGMENT_ORDERS[ORDER], start=1)}
    labelled = read_segmentations(masks, cine, convention)
    if labelled.phases != (0, exam.es_frame) or labelled.drawn_on:
        yield "masks at other phases"
    if not np.array_equal(labelled.labels, exam.labels):
        yield "other masks"
    yield from _there_and_back(Stack(pixels, cine.affine, cine.spacing_mm), exam)


def _geometry(plan: StackPlan, series: Series) -> Iterator[str]:
    stack = series.stack
    if plan.shape != series.stored.shape or plan.notes:
        yield f"stack of shape {plan.shape}, {plan.notes}"
    spacing = (stack.step_mm, stack.spacing_mm, stack.spacing_mm)
    # Files hold five decimals of a position and a spacing.
    if not np.allclose(plan.spacing_mm, spacing, atol=1e-4):
        yield f"spacing {plan.spacing_mm}"
    # Of a direction, five decimals over half a metre.
    for z, (row, column) in ((0, (0, 0)), (len(stack.origin_mm) - 1, (50, 70))):
        truth = stack.origin_mm[z] + stack.spacing_mm * (column * stack.columns + row * stack.rows)
        if not np.allclose((plan.affine @ (column, row, z, 1))[:3], truth, atol=5e-3):
            yield "affine elsewhere"


def _there_and_back(cine: Stack, exam: Examination) -> Iterator[str]:
    phases = (0, exam.es_frame)
    for spacing, least in ((cine.spacing_mm[1], 1.0), (1.5, 0.95)):
        options = Preprocessing(spacing_mm=spacing, crop_px=16 * round(200 / spacing / 16))
        at = place(cine, options, phases=phases)
        labels = prepare(cine, options, labels=exam.labels, phases=phases).labels
        if labels is None:
            raise AssertionError("prepare lost the labels")
        back = labels_back(labels, at)
        for label in (LV, MYO, RV):
            a, b = back == label, exam.labels == label
            dice = 2 * (a & b).sum() / (a.sum() + b.sum())
            if dice < least:
                yield f"{CLASS_NAMES[label]} at {spacing:.2f} mm comes back with Dice {dice:.3f}"


def main() -> int:
    """Print one line a study; exit with 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=3, help="of each vendor")
    asked = parser.parse_args()
    wrong = 0
    for vendor in VENDORS:
        for seed in range(asked.patients):
            exam = examination(vendor, seed, ImageConfig(cine_frames=25))
            for form in FORMS:
                with tempfile.TemporaryDirectory() as name:
                    found = list(differences(exam, form, Path(name) / "study", seed))
                wrong += bool(found)
                print(f"{vendor:8} {seed:3} {form:30} {'; '.join(found) or 'as the truth'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
