"""Text in the pixels is found where it is, and not where it is not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from client.burned_text import text_characters
from client.intake.frame import Frame
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.sorting import sort_study
from client.intake.stacks import plan_stack
from client.placement import Stack
from client.quality import BURNED_TEXT, examine_cine, problems
from client.quality_limits import QualityLimits

TEXT = "DOE JANE 1933"


def studies(root: Path) -> list[Stack]:
    by_study: dict[str, list[Frame]] = {}
    for path in sorted(root.rglob("*")):
        header = read_header(path) if path.is_file() else "folder"
        if not isinstance(header, str):
            for frame in header:
                by_study.setdefault(frame.study_uid, []).append(frame)
    stacks = []
    for frames in by_study.values():
        found = sort_study(frames)
        for kind in filter(None, (found.cine, found.lge)):
            plan = plan_stack(kind)
            stacks.append(Stack(decode(plan), plan.affine, plan.spacing_mm))
    return stacks


def written(stack: Stack, at: tuple[int, int], size: int, slices: slice) -> Stack:
    """Return a stack with a name at (column, row), in the stack's brightest value."""
    image = Image.new("L", stack.pixels.shape[:1:-1], 0)
    ImageDraw.Draw(image).text(at, TEXT, fill=255, font_size=size)
    share = np.asarray(image, np.float32) / 255
    pixels = stack.pixels.copy()
    pixels[:, slices] = pixels[:, slices] * (1 - share) + share * pixels.max()
    return Stack(pixels, stack.affine, stack.spacing_mm)


def check(stacks: list[Stack], least: int) -> None:
    limit = QualityLimits().max_text_characters
    for stack in stacks:
        assert text_characters(stack.pixels) <= limit
        assert text_characters(stack.pixels[:1]) <= limit
        bottom = stack.pixels.shape[2] - 16
        for at, size, slices in (((4, 3), 10, slice(None)), ((8, bottom), 12, slice(1, 4))):
            assert text_characters(written(stack, at, size, slices).pixels) >= least


@pytest.mark.parametrize("name", ["elm", "fir", "oak"])
def test_a_name_in_a_phantom_image_is_found(phantom_hospitals: Path, name: str) -> None:
    check(studies(phantom_hospitals / name / "dicom"), least=4)


@pytest.mark.parametrize("name", ["SCD0000101", "SCD0000301", "SCD0000501", "vida"])
def test_a_name_in_a_real_image_is_found(real_studies: Path, name: str) -> None:
    check(studies(real_studies / name), least=8)


def test_the_study_is_set_aside_by_the_sites_limit(phantom_hospitals: Path) -> None:
    cine = next(s for s in studies(phantom_hospitals / "elm" / "dicom") if len(s.pixels) > 1)
    marked = examine_cine(written(cine, (4, 3), 10, slice(None)))
    assert BURNED_TEXT in problems(marked, QualityLimits())
    assert BURNED_TEXT not in problems(examine_cine(cine), QualityLimits())
    assert BURNED_TEXT not in problems(marked, QualityLimits(max_text_characters=100))


def test_what_is_bright_but_no_text() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(50, 10, (1, 2, 128, 128)).clip(0).astype(np.float32)
    assert text_characters(noise) <= 1
    blocks = noise.copy()
    for column in range(10, 100, 12):
        blocks[..., 8:16, column : column + 8] = 500
    assert text_characters(blocks) == 0, "full rectangles are markers"
    assert text_characters(np.zeros((1, 1, 64, 64), np.float32)) == 0
