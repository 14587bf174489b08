"""One patient in one scanner: all series as stored integers, and the expert's labels.

Axes: T frames, Z slices, Y rows, X columns.
"""

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from sim.config import ImageConfig, QuirkConfig
from sim.extra_series import Scene, extra_series
from sim.patients import Patient
from sim.phantom.acquisition import (
    acquire,
    mistrigger,
    noise_pool,
    receive_field,
    smooth_texture,
    zero_fill,
)
from sim.phantom.body import draw_torso, paint_torso
from sim.phantom.geometry import BASE_FRACTION
from sim.phantom.motion import Beat, beat, end_systolic_frame
from sim.phantom.planes import (
    PlaneStack,
    Pose,
    long_axis_plane,
    orthogonal_planes,
    short_axis_stack,
)
from sim.phantom.raster import paint_long_axis, paint_short_axis
from sim.phantom.signal import cine_signals, lge_signals
from sim.series import Series
from sim.vendors import VENDORS, VendorProfile

__all__ = ["Examination", "examine"]

Image = NDArray[np.float32]
#: Left side of the view in the AHA sense: the septum for four chambers, the anterior wall for two.
LONG_AXIS_VIEWS = (("4CH", np.pi / 2), ("2CH", 0.0))
#: Late diastole, when the heart is stillest and nearest to its end-diastolic shape.
LGE_PHASE = 0.90
LOCALIZER_PX, LOCALIZER_FOV_MM = 128, 380.0


@dataclass(frozen=True)
class Examination:
    """Everything one visit to the scanner produced.

    Attributes
    ----------
    labels : ndarray
        (2, Z, Y, X) uint8 in the project's label convention: end-diastole, end-systole.
    es_frame : int
        Cine frame of end-systole; end-diastole is frame 0.
    volumes_ml : tuple
        Analytic (LV, MYO, RV) at the two labelled frames.
    slope : float
        RescaleSlope, 1 where the vendor writes none.
    """

    vendor: str
    field_t: float
    rr_ms: float
    series: tuple[Series, ...]
    labels: NDArray[np.uint8]
    es_frame: int
    volumes_ml: tuple[tuple[float, float, float], tuple[float, float, float]]
    slope: float


class _Sampling(TypedDict):
    sublevels: int
    edge_mm: float


@dataclass(frozen=True)
class _Scanner:
    """What stays the same during one examination."""

    profile: VendorProfile
    field_t: float
    quirks: QuirkConfig
    field: Image
    pool: Image
    noise: float
    full_scale: float
    edge_mm: float

    def store(
        self, images: Image, rng: np.random.Generator, noise: float = 1.0
    ) -> NDArray[np.uint16]:
        if images.shape[-1] == self.field.shape[-1]:
            images *= self.field
        return acquire(images, self.noise * noise, self.full_scale, self.pool, rng)


def _scanner(
    profile: VendorProfile,
    field_t: float,
    size_px: int,
    spacing_mm: float,
    quirks: QuirkConfig,
    rng: np.random.Generator,
) -> _Scanner:
    # The same sequence at 3 T has more signal, and a more uneven field.
    gain, unevenness = (1.0, 1.0) if field_t < 2 else (0.7, 1.4)
    return _Scanner(
        profile=profile,
        field_t=field_t,
        quirks=quirks,
        field=receive_field(size_px, min(quirks.bias * unevenness, 0.95), rng),
        pool=noise_pool(max(size_px, LOCALIZER_PX), rng),
        noise=profile.noise * quirks.noise * gain,
        full_scale=profile.full_scale * float(np.exp(rng.normal(0, profile.scale_log_sd))),
        edge_mm=profile.blur_px * spacing_mm,
    )


def examine(
    patient: Patient,
    vendor: str,
    field_t: float,
    images: ImageConfig,
    quirks: QuirkConfig,
    rng: np.random.Generator,
) -> Examination:
    """Scan a patient.

    Parameters
    ----------
    vendor : str
        A key of ``sim.vendors.VENDORS``.
    field_t : float
        1.5 or 3.0.
    """
    profile = VENDORS[vendor]
    size_px = images.matrix_px or profile.matrix_px
    spacing_mm = float(rng.uniform(*images.fov_mm)) / size_px
    scanner = _scanner(profile, field_t, size_px, spacing_mm, quirks, rng)
    pose = Pose.draw(rng)
    step_mm = images.slice_step_mm or profile.thickness_mm + profile.gap_mm
    anatomy = patient.anatomy
    stack = short_axis_stack(
        pose,
        anatomy.length_mm + 0.7 * anatomy.wall_mm,
        spacing_mm=spacing_mm,
        size_px=size_px,
        thickness_mm=min(profile.thickness_mm, step_mm),
        step_mm=step_mm,
        lead_mm=float(rng.uniform(0.5, 1.0)) * step_mm,
        off_centre_mm=rng.normal(0, 7, 2) - np.array([6.0, 0.0]),
    )
    rr_ms = 60_000 / patient.record["heart_rate"]
    frames = images.cine_frames
    phase = np.arange(frames) / frames
    motion = beat(patient.heart, patient.function, patient.mobility, phase)
    still = beat(patient.heart, patient.function, patient.mobility, np.array([LGE_PHASE]))
    torso = draw_torso(rng, patient.record["bmi"])
    es_frame = end_systolic_frame(phase)
    cine, lge, labels = _short_axis(
        patient, scanner, pose, stack, motion, still, torso, es_frame, images, rr_ms, rng
    )
    others = [
        _long_axis(scanner, pose, motion, torso, name, angle, anatomy.length_mm, cine, rng)
        for name, angle in LONG_AXIS_VIEWS
    ]
    others += _localizers(scanner, pose, torso, anatomy.length_mm, rng)
    slope = float(rng.uniform(*profile.rescale)) if profile.rescale else 1.0
    extra: list[Series] = []
    if images.all_sequences:
        scene = Scene(
            profile, field_t, pose, anatomy.length_mm, motion, still, torso, cine, scanner.edge_mm,
            rr_ms, scanner.store,
        )  # fmt: skip
        extra = extra_series(scene, rng)
    return Examination(
        vendor=vendor,
        field_t=field_t,
        rr_ms=rr_ms,
        series=(*others[2:], *others[:2], cine, lge, *extra),
        labels=labels,
        es_frame=es_frame,
        volumes_ml=(motion.volumes_ml(0), motion.volumes_ml(es_frame)),
        slope=round(slope, 6),
    )


def _short_axis(
    patient: Patient,
    scanner: _Scanner,
    pose: Pose,
    stack: PlaneStack,
    motion: Beat,
    still: Beat,
    torso: tuple,
    es_frame: int,
    images: ImageConfig,
    rr_ms: float,
    rng: np.random.Generator,
) -> tuple[Series, Series, NDArray[np.uint8]]:
    """Return cine, late enhancement, and the labels on the cine's grid."""
    quirks, profile = scanner.quirks, scanner.profile
    num = len(stack.origin_mm)
    shift, late_shift = rng.normal(0, quirks.slice_shift_mm, (2, num, 2))
    contrast = cine_signals(scanner.field_t, profile.te_ms, profile.flip_deg)
    late, inversion_ms = lge_signals(
        scanner.field_t, float(rng.normal(0, quirks.inversion_error_ms))
    )
    background, late_background = paint_torso(torso, stack, shift, (contrast, late))
    texture = 1 + np.float32(0.12) * smooth_texture(background.shape, 6, rng)
    background *= texture
    late_background *= texture
    options = _Sampling(sublevels=images.sublevels, edge_mm=scanner.edge_mm)
    canvas = np.repeat(background[None], len(motion.phase), axis=0)
    labelled = (0, es_frame)
    labels = paint_short_axis(
        canvas, motion, pose, stack, shift, contrast, label_frames=labelled, **options
    )
    late_canvas = late_background[None]
    paint_short_axis(
        late_canvas, still, pose, stack, late_shift, late, scar=patient.scar, **options
    )
    mistrigger(canvas, quirks.mistrigger_rate, rng)
    stored, late_stored = scanner.store(canvas, rng), scanner.store(late_canvas, rng, 1.2)
    if profile.zipped and quirks.zip_interpolation:
        stored, late_stored = (
            np.round(zero_fill(image.astype(np.float32))).astype(np.uint16)
            for image in (stored, late_stored)
        )
        stack = replace(stack, spacing_mm=stack.spacing_mm / 2, size_px=2 * stack.size_px)
        scratch = np.zeros((len(motion.phase), *stored.shape[1:]), np.float32)
        labels = paint_short_axis(
            scratch, motion, pose, stack, shift, contrast, label_frames=labelled, **options
        )
    trigger = np.round(motion.phase * rr_ms, 1)
    cine = Series("cine", profile.cine_series, stored, stack, trigger, sequence="cine", view="sax")
    delay = np.array([round(LGE_PHASE * rr_ms, 1)])
    lge = Series(
        "lge", profile.lge_series, late_stored, stack, delay, round(inversion_ms),
        sequence="lge_magnitude", view="sax",
    )  # fmt: skip
    return cine, lge, labels


def _long_axis(
    scanner: _Scanner,
    pose: Pose,
    motion: Beat,
    torso: tuple,
    name: str,
    angle: float,
    length_mm: float,
    cine: Series,
    rng: np.random.Generator,
) -> Series:
    size_px = scanner.field.shape[-1]
    spacing_mm = cine.stack.spacing_mm * cine.stack.size_px / size_px
    stack = long_axis_plane(pose, angle, length_mm, spacing_mm, size_px)
    contrast = cine_signals(scanner.field_t, scanner.profile.te_ms, scanner.profile.flip_deg)
    (background,) = paint_torso(torso, stack, np.zeros((1, 2)), (contrast,))
    canvas = np.repeat(background[None], len(motion.phase), axis=0)
    paint_long_axis(canvas, motion, pose, stack, angle, contrast, scanner.edge_mm)
    words = scanner.profile.cine_series.replace("_sax", " ").split()
    label = " ".join([word for word in words if word not in ("SA", "SAX")] + [name])
    stored = scanner.store(canvas, rng)
    return Series(
        "long_axis", label, stored, stack, cine.trigger_ms, sequence="cine", view=name.lower()
    )


def _localizers(
    scanner: _Scanner, pose: Pose, torso: tuple, length_mm: float, rng: np.random.Generator
) -> list[Series]:
    """Three body planes; the heart is a ball of muscle around blood, as the planner sees it."""
    contrast = cine_signals(scanner.field_t, scanner.profile.te_ms, scanner.profile.flip_deg)
    series = []
    stacks = orthogonal_planes(pose, LOCALIZER_FOV_MM / LOCALIZER_PX, LOCALIZER_PX)
    for stack, view in zip(stacks, ("axial", "coronal", "sagittal"), strict=True):
        (image,) = paint_torso(torso, stack, np.zeros((1, 2)), (contrast,))
        points = np.stack(stack.points(0, np.zeros(2)), axis=-1)
        centre = pose.base + BASE_FRACTION * length_mm * pose.axis
        offset = points - centre.astype(np.float32)
        along = offset @ pose.axis.astype(np.float32)
        across = np.sqrt(np.clip(np.square(offset).sum(axis=-1) - along * along, 0, None))
        for radius, depth, tissue in ((38, 68, "myocardium"), (28, 60, "blood")):
            inside = np.square(across / radius) + np.square(along / depth) < 1
            image[0][inside] = contrast[tissue]
        stored = scanner.store(image[None], rng)
        series.append(
            Series(
                "localizer", "localizer", stored, stack, np.zeros(1),
                sequence="localizer", view=view,
            )
        )  # fmt: skip
    return series
