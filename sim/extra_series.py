"""What a whole examination holds beside the short-axis cine and late enhancement.

These series are there to be told apart, not measured: geometry, timing and tags are a scanner's,
the pictures are simple. Away from the planes of the long axis the heart is a ball of muscle around
blood that beats. Axes: T frames, Z slices, Y rows, X columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.elements import Value
from sim.phantom.body import Organ, paint_torso
from sim.phantom.geometry import BASE_FRACTION
from sim.phantom.motion import Beat
from sim.phantom.planes import PlaneStack, Pose, long_axis_plane, orthogonal_planes
from sim.phantom.raster import paint_long_axis, paint_short_axis
from sim.phantom.signal import TISSUES, cine_signals, lge_signals
from sim.series import Series
from sim.vendors import VendorProfile

__all__ = ["Scene", "extra_series"]

Image = NDArray[np.float32]
Store = Callable[[Image, np.random.Generator], NDArray[np.uint16]]
SIZE_PX, FOV_MM = 96, 300.0
STEP_MM = FOV_MM / SIZE_PX
DYNAMICS = 20
INVERSIONS_MS = (120.0, 200.0, 280.0, 1020.0, 1110.0, 1920.0, 2010.0, 2820.0)
# AHA sense, degrees; real hearts differ by a few.
THREE_CHAMBER_DEG, FOUR_CHAMBER_DEG, ANGLE_SD_DEG = 60.0, 112.0, 4.0
OUTFLOW_DEG = 45.0
RIGHT_HEART_MM = 38.0


@dataclass(frozen=True)
class Scene:
    """The patient in the scanner; ``cine`` is the short-axis cine, ``store`` makes integers."""

    profile: VendorProfile
    field_t: float
    pose: Pose
    length_mm: float
    motion: Beat
    still: Beat
    torso: Sequence[Organ]
    cine: Series
    edge_mm: float
    rr_ms: float
    store: Store

    @property
    def middle(self) -> NDArray[np.float64]:
        return self.pose.base + 0.5 * self.length_mm * self.pose.axis

    @property
    def septal(self) -> NDArray[np.float64]:
        return -self.pose.lateral

    @property
    def contrast(self) -> dict[str, float]:
        return cine_signals(self.field_t, self.profile.te_ms, self.profile.flip_deg)


def extra_series(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Return the further series of one examination, in the order in which they are acquired."""
    return [
        *_survey(scene, rng),
        _axial_stack(scene, rng),
        *_cines(scene, rng),
        *_flow(scene, rng),
        _perfusion(scene, rng),
        *_mapping(scene, rng),
        *_late(scene, rng),
    ]


def _plane(
    centre: NDArray[np.float64], normal: NDArray[np.float64], up: NDArray[np.float64]
) -> PlaneStack:
    """Return one plane around a point, its columns as near to ``up`` as the normal allows."""
    normal = normal / np.linalg.norm(normal)
    rows = -(up - (up @ normal) * normal)
    rows /= np.linalg.norm(rows)
    columns = np.cross(rows, normal)
    origin = centre - 0.5 * (SIZE_PX - 1) * STEP_MM * (columns + rows)
    return PlaneStack(origin[None], columns, rows, STEP_MM, SIZE_PX, 6.0, 6.0)


def _slices(scene: Scene, num: int) -> PlaneStack:
    """Return some middle slices of the short-axis stack."""
    stack = scene.cine.stack
    middle = len(stack.origin_mm) // 2
    first = max(0, middle - num // 2)
    return replace(stack, origin_mm=stack.origin_mm[first : first + num])


def _background(scene: Scene, stack: PlaneStack, signals: Mapping[str, float], num: int) -> Image:
    (image,) = paint_torso(scene.torso, stack, np.zeros((len(stack.origin_mm), 2)), (signals,))
    return np.repeat(image[None], num, axis=0)


def _ball(scene: Scene, stack: PlaneStack, signals: Mapping[str, float], num: int) -> Image:
    """Paint the heart as a ball that beats ``num`` frames a cycle."""
    canvas = _background(scene, stack, signals, num)
    pose = scene.pose
    centre = pose.base + BASE_FRACTION * scene.length_mm * pose.axis
    offset = np.stack(stack.points(0, np.zeros(2)), axis=-1) - centre.astype(np.float32)
    along = offset @ pose.axis.astype(np.float32)
    across = np.sqrt(np.clip(np.square(offset).sum(axis=-1) - along * along, 0, None))
    for frame in range(num):
        size = 1 - 0.12 * (1 - np.cos(2 * np.pi * frame / num))
        for radius, depth, tissue in ((38, 68, "myocardium"), (28 * size, 60 * size, "blood")):
            inside = np.square(across / radius) + np.square(along / depth) < 1
            canvas[frame, 0][inside] = signals[tissue]
    return canvas


def _short_axis(scene: Scene, stack: PlaneStack, beat: Beat, signals: Mapping[str, float]) -> Image:
    canvas = _background(scene, stack, signals, len(beat.phase))
    shift = np.zeros((len(stack.origin_mm), 2))
    paint_short_axis(
        canvas, beat, scene.pose, stack, shift, signals, sublevels=1, edge_mm=scene.edge_mm
    )
    return canvas


def _long_axis(
    scene: Scene, degrees: float, beat: Beat, signals: Mapping[str, float]
) -> tuple[Image, PlaneStack]:
    angle = float(np.deg2rad(degrees))
    stack = long_axis_plane(scene.pose, angle, scene.length_mm, STEP_MM, SIZE_PX)
    canvas = _background(scene, stack, signals, len(beat.phase))
    paint_long_axis(canvas, beat, scene.pose, stack, angle, signals, scene.edge_mm)
    return canvas, stack


def _survey(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Three body planes in one series, which no image type calls a localizer."""
    stacks = orthogonal_planes(scene.pose, STEP_MM, SIZE_PX)
    tags: dict[str, Value] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "CardiacNumberOfImages": 0,
    }
    return [
        Series(
            "extra", "3-plane survey", scene.store(_ball(scene, stack, scene.contrast, 1), rng),
            stack, np.zeros(1), sequence="localizer", view=view, tags=tags, part=part,
        )
        for part, (stack, view) in enumerate(
            zip(stacks, ("axial", "coronal", "sagittal"), strict=True)
        )
    ]  # fmt: skip


def _axial_stack(scene: Scene, rng: np.random.Generator) -> Series:
    up = np.array([0.0, 0.0, 1.0])
    one = orthogonal_planes(scene.pose, STEP_MM, SIZE_PX)[0]
    levels = np.arange(-3, 4) * 9.0
    stack = replace(one, origin_mm=one.origin_mm + levels[:, None] * up, step_mm=9.0)
    image = _background(scene, stack, scene.contrast, 1)
    tags: dict[str, Value] = {
        "ScanningSequence": "SE", "SequenceVariant": ["SK", "SP"], "RepetitionTime": "700",
        "EchoTime": "45", "FlipAngle": "160", "SequenceName": "*h2d1_86", "EchoTrainLength": 86,
        "CardiacNumberOfImages": 1,
    }  # fmt: skip
    delay = np.array([round(0.7 * scene.rr_ms, 1)])
    return Series("extra", "HASTE axial", scene.store(image, rng), stack, delay,
                  sequence="other", view="axial", tags=tags)  # fmt: skip


def _cines(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Further cine views: one series each with Siemens, all in one with the others."""
    pose, signals, num = scene.pose, scene.contrast, len(scene.motion.phase)
    image, stack = _long_axis(
        scene, THREE_CHAMBER_DEG + float(rng.normal(0, ANGLE_SD_DEG)), scene.motion, signals
    )
    planes: list[tuple[str, Image, PlaneStack]] = [("3ch", image, stack)]
    angle, slant = np.deg2rad([THREE_CHAMBER_DEG, OUTFLOW_DEG + rng.normal(0, ANGLE_SD_DEG)])
    wall = -np.cos(angle) * pose.inferior + np.sin(angle) * scene.septal
    root = pose.base + 15.0 * wall
    head, beside = np.array([0.0, 0.0, 1.0]), RIGHT_HEART_MM * scene.septal
    tilt = rng.normal(0, 0.05, 3)
    for view, centre, normal in (
        ("lvot", root, np.sin(slant) * pose.axis + np.cos(slant) * wall),
        ("rvot", pose.base + 30.0 * scene.septal, np.array([1.0, 0.0, 0.0]) + tilt),
        ("2ch_rv", scene.middle + beside, pose.lateral + tilt),
    ):
        plane = _plane(centre, normal, head)
        planes.append((view, _ball(scene, plane, signals, num), plane))
    together = scene.profile.packaging != "series_per_slice"
    words = scene.profile.cine_series.replace("_sax", " ").replace(" SAX", "").replace(" SA", "")
    return [
        Series(
            "extra", f"{words} {'' if together else view.replace('_rv', '').upper()}".strip(),
            scene.store(image, rng), stack, scene.cine.trigger_ms,
            sequence="cine", view=view, part=part if together else 0,
        )
        for part, (view, image, stack) in enumerate(planes)
    ]  # fmt: skip


def _flow(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Magnitude and velocity across the outflow tract, in one series but with Siemens."""
    pose, num = scene.pose, len(scene.motion.phase)
    angle, slant = np.deg2rad([THREE_CHAMBER_DEG, OUTFLOW_DEG])
    wall = -np.cos(angle) * pose.inferior + np.sin(angle) * scene.septal
    along = -np.cos(slant) * pose.axis + np.sin(slant) * wall
    stack = _plane(pose.base + 25.0 * along, along, np.array([0.0, -1.0, 0.0]))
    magnitude = _ball(scene, stack, scene.contrast, num)
    course = np.sin(2 * np.pi * np.arange(num) / num).astype(np.float32)
    velocity = 1 + 0.5 * course[:, None, None, None] * (magnitude > 0.8)
    together = scene.profile.packaging != "series_per_slice"
    series = []
    for part, (letter, image) in enumerate((("M", magnitude), ("P", velocity))):
        tags: dict[str, Value] = {
            "ImageType": ["ORIGINAL", "PRIMARY", letter], "SequenceVariant": "SP",
            "FlipAngle": "20", "EchoTime": "2.8", "RepetitionTime": "5",
            "SequenceName": "*fl2d1_v150in",
        }  # fmt: skip
        series.append(
            Series("extra", "Flow aorta", scene.store(image.astype(np.float32), rng), stack,
                   scene.cine.trigger_ms, sequence="flow", view="other", tags=tags,
                   part=part if together else 0)
        )  # fmt: skip
    return series


def _clock(seconds: float) -> str:
    """Return a time of the day in the DICOM form, counted from noon."""
    minutes, rest = divmod(seconds, 60.0)
    return f"12{int(minutes):02d}{rest:09.6f}"


def _perfusion(scene: Scene, rng: np.random.Generator) -> Series:
    stack = _slices(scene, 3)
    image = np.repeat(_short_axis(scene, stack, scene.still, scene.contrast), DYNAMICS, axis=0)
    arrival = 1 / (1 + np.exp(-(np.arange(DYNAMICS) - 8.0)))
    image = image * (0.3 + 0.7 * arrival).astype(np.float32)[:, None, None, None]
    tags: dict[str, Value] = {
        "SequenceVariant": ["SK", "SP"], "FlipAngle": "12", "RepetitionTime": "2.2",
        "EchoTime": "1.1", "CardiacNumberOfImages": 1, "ContrastBolusAgent": "Gadobutrol",
        "SequenceName": "*tfl2d1_64",
    }  # fmt: skip
    delay = np.full(DYNAMICS, round(0.2 * scene.rr_ms, 1))
    clock = tuple({"AcquisitionTime": _clock(i * scene.rr_ms / 1000)} for i in range(DYNAMICS))
    return Series("extra", "Perfusion rest sax", scene.store(image, rng), stack, delay,
                  sequence="perfusion", view="sax", tags=tags, frame_tags=clock)  # fmt: skip


def _mapping(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Images at several inversion times, and the map fitted to them."""
    stack = _slices(scene, 3)
    frames = []
    for inversion in INVERSIONS_MS:
        signals = {
            name: tissue.density
            / 100
            * abs(1 - 2 * np.exp(-inversion / tissue.native[scene.field_t][0]))
            for name, tissue in TISSUES.items()
        }
        frames.append(_short_axis(scene, stack, scene.still, signals))
    source: dict[str, Value] = {
        "ScanningSequence": ["GR", "IR"], "SequenceVariant": ["SK", "SS", "MP"], "FlipAngle": "35",
        "CardiacNumberOfImages": 1, "SequenceName": "*tfi2d1_84",
    }  # fmt: skip
    delay = np.full(len(INVERSIONS_MS), round(0.7 * scene.rr_ms, 1))
    times = tuple({"InversionTime": str(inversion)} for inversion in INVERSIONS_MS)
    t1_ms = {name: tissue.native[scene.field_t][0] / 1000 for name, tissue in TISSUES.items()}
    fitted: dict[str, Value] = {
        **source, "ImageType": ["DERIVED", "PRIMARY", "T1 MAP", "ND"],
    }  # fmt: skip
    table = scene.store(_short_axis(scene, stack, scene.still, t1_ms), rng)
    return [
        Series("extra", "MOLLI sax", scene.store(np.concatenate(frames), rng), stack, delay,
               sequence="t1_weighted", view="sax", tags=source, frame_tags=times),
        Series("extra", "MOLLI sax T1MAP", table, stack, delay[:1],
               sequence="t1_map", view="sax", tags=fitted),
    ]  # fmt: skip


def _late(scene: Scene, rng: np.random.Generator) -> list[Series]:
    """Phase-sensitive short axis, and a four-chamber view in both reconstructions."""
    signals, inversion_ms = lge_signals(scene.field_t, float(rng.normal(0, 12)))
    signed = {name: 0.5 + 0.5 * value for name, value in signals.items()}
    absolute = {name: abs(value) for name, value in signals.items()}
    degrees = FOUR_CHAMBER_DEG + float(rng.normal(0, ANGLE_SD_DEG))
    four, plane = _long_axis(scene, degrees, scene.still, absolute)
    four_signed, _ = _long_axis(scene, degrees, scene.still, signed)
    stack = scene.cine.stack
    delay = np.array([round(0.9 * scene.rr_ms, 1)])
    common: dict[str, Value] = {
        "ScanningSequence": ["GR", "IR"], "SequenceVariant": ["SK", "SP", "MP"],
        "FlipAngle": "20", "RepetitionTime": str(round(2 * scene.rr_ms)),
        "CardiacNumberOfImages": 1, "InversionTime": str(round(inversion_ms)),
        "ContrastBolusAgent": "Gadobutrol", "SequenceName": "*tfl2d1",
    }  # fmt: skip
    phase: dict[str, Value] = {**common, "ImageType": ["ORIGINAL", "PRIMARY", "R", "PSIR"]}
    together = 1 if scene.profile.packaging != "series_per_slice" else 0
    stored = scene.store(_short_axis(scene, stack, scene.still, signed), rng)
    return [
        Series("extra", "LGE psir sax", stored, stack, delay, round(inversion_ms),
               sequence="lge_psir", view="sax", tags=phase),
        Series("extra", "LGE 4CH", scene.store(four, rng), plane, delay, round(inversion_ms),
               sequence="lge_magnitude", view="4ch", tags=common),
        Series("extra", "LGE psir 4CH", scene.store(four_signed, rng), plane, delay,
               round(inversion_ms), sequence="lge_psir", view="4ch", tags=phase, part=together),
    ]  # fmt: skip
