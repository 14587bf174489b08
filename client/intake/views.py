"""Which view of the heart a plane is, from where it lies in the patient, without a word of text.

A short-axis stack gives the heart's own axes: ``a`` from base to apex, ``u`` the direction
perpendicular to it that points most to the patient's head, ``v = a x u`` towards the septum. A
plane that contains ``a`` cuts the short-axis plane in a line; its angle from ``u`` towards ``v`` is
what tells the long-axis views apart. The segments of the left ventricle (Cerqueira et al., AHA
2002) put the two-chamber view at 0 degrees (anterior to inferior wall), the three-chamber view at
60 (anteroseptal to inferolateral) and the four-chamber view at 120 (inferoseptal to anterolateral).

Angles in degrees, positions in mm, patient LPS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "LONG_AXIS_VIEWS",
    "USUAL_AXIS",
    "Axes",
    "Guess",
    "body_view",
    "counted_from",
    "cut_angle_deg",
    "heart_axes",
    "may_be_short_axis",
    "septal_offset_mm",
    "sure",
    "tilt_deg",
    "view_of",
]

LONG_AXIS_VIEWS = ("2ch", "3ch", "4ch", "lvot", "rvot", "2ch_rv")

# The left ventricle points left, forwards and down in every patient: the mean of the short-axis
# normals of the studies at hand. Body axes are 55 degrees away from it, real hearts up to 27.
USUAL_AXIS = np.array([0.57, -0.61, -0.55]) / np.linalg.norm([0.57, -0.61, -0.55])
MAX_TILT_DEG = 40.0
SHORT_AXIS_DEG = 22.0
LONG_AXIS_DEG = 70.0
TWO_CHAMBER_DEG, THREE_CHAMBER_DEG, FOUR_CHAMBER_DEG = -35.0, 30.0, 77.0
OUTFLOW_CUT_DEG = (110.0, 185.0)
RIGHT_HEART_MM = 22.0
OUTFLOW_MM = 8.0
EXACT_COSINE, BODY_COSINE, OBLIQUE_COSINE = 0.9994, 0.985, 0.94
SAGITTAL_COSINE = 0.90
FULL_MARGIN_DEG = 15.0


@dataclass(frozen=True)
class Guess:
    """A label, how sure the rule is of it in [0, 1], and why in a few words."""

    label: str
    confidence: float
    reason: str


@dataclass(frozen=True)
class Axes:
    """The heart's own axes.

    Attributes
    ----------
    apex, anterior, septal : ndarray, shape (3,)
        Unit vectors ``a``, ``u`` and ``v`` of the module's text.
    centre_mm : ndarray, shape (3,)
        Centre of the short-axis stack.
    confidence : float
        In [0, 1]: 1 for a full short-axis stack, less for few slices, least where there is none.
    two_chamber_deg : float or None
        Where this heart's two-chamber view lies, if it has one: the other views are counted from
        it, because hearts are turned about their axis.
    two_chamber_mm : float
        How far towards the septum that view passes the centre of the stack's images, which need
        not be the heart's.
    """

    apex: np.ndarray
    anterior: np.ndarray
    septal: np.ndarray
    centre_mm: np.ndarray
    confidence: float
    two_chamber_deg: float | None = None
    two_chamber_mm: float = 0.0


def tilt_deg(normal: np.ndarray, direction: np.ndarray) -> float:
    """Return the angle between a plane's normal and a direction, in [0, 90]."""
    return float(np.degrees(np.arccos(np.clip(abs(normal @ direction), 0.0, 1.0))))


def sure(margin: float, full: float = FULL_MARGIN_DEG) -> float:
    """Return 0.5 at a boundary between two labels, rising to 1 at ``full`` away from it."""
    return 0.5 + 0.5 * float(np.clip(margin / full, 0.0, 1.0))


def heart_axes(normal: np.ndarray | None, centre_mm: np.ndarray, confidence: float) -> Axes:
    """Return the axes of the heart whose short-axis planes have this normal.

    Parameters
    ----------
    normal : ndarray or None
        Of either sign; ``None`` where the study has no short-axis plane: the usual axis stands in.
    """
    apex = USUAL_AXIS if normal is None else normal
    apex = apex if apex @ USUAL_AXIS > 0 else -apex
    head = np.array([0.0, 0.0, 1.0])
    anterior = head - (head @ apex) * apex
    anterior /= np.linalg.norm(anterior)
    return Axes(apex, anterior, np.cross(apex, anterior), centre_mm, confidence)


def may_be_short_axis(normal: np.ndarray) -> bool:
    """Whether a plane with this normal can cut a heart across, by where hearts point."""
    return tilt_deg(normal, USUAL_AXIS) < MAX_TILT_DEG


def cut_angle_deg(normal: np.ndarray, axes: Axes) -> float:
    """Return the angle at which a plane cuts the short-axis plane, in [-35, 145)."""
    line = np.cross(axes.apex, normal)
    angle = float(np.degrees(np.arctan2(line @ axes.septal, line @ axes.anterior)))
    return (angle - TWO_CHAMBER_DEG) % 180.0 + TWO_CHAMBER_DEG


def septal_offset_mm(normal: np.ndarray, centre_mm: np.ndarray, axes: Axes) -> float:
    """Return how far towards the septum a long-axis plane passes the heart's centre."""
    across = normal - (normal @ axes.apex) * axes.apex
    across = across if across @ axes.septal > 0 else -across
    return float((centre_mm - axes.centre_mm) @ normal * np.sign(across @ normal))


def body_view(normal: np.ndarray, cosine: float) -> str | None:
    """Return the body plane that a plane is within the given cosine of, if any."""
    axis = int(np.abs(normal).argmax())
    return ("sagittal", "coronal", "axial")[axis] if abs(normal[axis]) > cosine else None


def view_of(normal: np.ndarray, centre_mm: np.ndarray, axes: Axes, *, moving: bool) -> Guess:
    """Return the view of one plane or of a family of parallel planes.

    Parameters
    ----------
    normal : ndarray, shape (3,)
        Unit normal, of either sign.
    centre_mm : ndarray, shape (3,)
        Centre of the plane's image.
    axes : Axes
        The heart's axes.
    moving : bool
        Whether the plane was imaged at several phases: surveys are not, and an outflow tract may
        be seen in a plane near a body plane.
    """
    tilt = tilt_deg(normal, axes.apex)
    if tilt < SHORT_AXIS_DEG:
        certain = sure(SHORT_AXIS_DEG - tilt) * axes.confidence
        return Guess("sax", certain, f"{tilt:.0f} degrees from the short axis")
    offset = septal_offset_mm(normal, centre_mm, axes)
    sagittal = moving and abs(normal[0]) > SAGITTAL_COSINE
    # A steep heart's own two-chamber view is near sagittal too, but holds the long axis.
    beside = tilt < LONG_AXIS_DEG + 5 or offset > RIGHT_HEART_MM
    if sagittal and beside and offset > OUTFLOW_MM and tilt > SHORT_AXIS_DEG + 20:
        certain = min(sure(offset - OUTFLOW_MM, 10.0), 0.9) * axes.confidence
        return Guess("rvot", certain, f"near sagittal, {offset:.0f} mm to the right of the LV axis")
    body = body_view(normal, BODY_COSINE)
    if body is not None and (not moving or abs(normal).max() > EXACT_COSINE):
        return Guess(body, 0.95, f"the {body} body plane")
    if tilt >= LONG_AXIS_DEG:
        return _long_axis(normal, tilt, offset, axes)
    return _oblique(normal, tilt, axes)


def _long_axis(normal: np.ndarray, tilt: float, offset: float, axes: Axes) -> Guess:
    angle = cut_angle_deg(normal, axes)
    certain = axes.confidence * sure(tilt - LONG_AXIS_DEG, 5.0)
    if angle < THREE_CHAMBER_DEG:
        margin = min(angle - TWO_CHAMBER_DEG, THREE_CHAMBER_DEG - angle)
        offset -= axes.two_chamber_mm
        if offset > RIGHT_HEART_MM:
            certain *= min(sure(margin), sure(offset - RIGHT_HEART_MM, 10.0))
            return Guess(
                "2ch_rv", certain, f"as a 2ch, {offset:.0f} mm to the right of the LV axis"
            )
        certain *= min(sure(margin), sure(RIGHT_HEART_MM - offset, 10.0))
        return Guess("2ch", certain, f"long axis, cut at {angle:.0f} degrees from anterior")
    counted = "anterior"
    if axes.two_chamber_deg is not None:
        angle, counted = angle - axes.two_chamber_deg, "the 2ch view"
    else:
        certain *= 0.9
    if angle < FOUR_CHAMBER_DEG:
        certain *= sure(FOUR_CHAMBER_DEG - angle)
        return Guess("3ch", certain, f"long axis, cut at {angle:.0f} degrees from {counted}")
    certain *= sure(angle - FOUR_CHAMBER_DEG)
    return Guess("4ch", certain, f"long axis, cut at {angle:.0f} degrees from {counted}")


def _oblique(normal: np.ndarray, tilt: float, axes: Axes) -> Guess:
    """Neither along nor across the heart: the outflow tract seen from the front, or something else.

    The outflow view holds the outflow tract, which leaves the ventricle at some 45 degrees towards
    the anteroseptal wall, and stands upright on the three-chamber view.
    """
    normal = normal if normal @ axes.apex > 0 else -normal
    across = normal - (normal @ axes.apex) * axes.apex
    angle = float(np.degrees(np.arctan2(across @ axes.septal, across @ axes.anterior)))
    low, high = (edge - 90.0 for edge in OUTFLOW_CUT_DEG)
    if low < angle < high:
        margin = min(angle - low, high - angle, tilt - SHORT_AXIS_DEG, LONG_AXIS_DEG - tilt)
        certain = axes.confidence * min(sure(margin), 0.95)
        return Guess("lvot", certain, f"along the outflow tract, {tilt:.0f} degrees oblique")
    body = body_view(normal, OBLIQUE_COSINE)
    if body is not None:
        return Guess(body, 0.75, f"near the {body} body plane")
    return Guess("other", 0.8 * axes.confidence, f"oblique, {tilt:.0f} degrees from the short axis")


def counted_from(planes: Sequence[tuple[np.ndarray, np.ndarray]], axes: Axes) -> Axes:
    """Return the axes with the other views counted from this heart's two-chamber view.

    Parameters
    ----------
    planes : sequence of (normal, centre_mm)
        What was taken for two-chamber views. Of several the leftmost counts: beside the left
        ventricle lies the right one to the right, and no heart to the left.
    """
    if not planes:
        return axes
    offsets = [septal_offset_mm(normal, centre, axes) for normal, centre in planes]
    leftmost = int(np.argmin(offsets))
    angle = cut_angle_deg(planes[leftmost][0], axes)
    return replace(axes, two_chamber_deg=angle, two_chamber_mm=offsets[leftmost])
