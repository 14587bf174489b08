"""Contours: areas and overlaps by hand."""

from pathlib import Path

import numpy as np
import pytest

from client.contours import fraction_inside, polygon_area_px, read_contour
from protocol.errors import DataError

SQUARE = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])


def test_the_area_does_not_depend_on_direction_or_start() -> None:
    assert polygon_area_px(SQUARE) == 100.0
    assert polygon_area_px(SQUARE[::-1]) == 100.0
    assert polygon_area_px(np.roll(SQUARE, 1, axis=0) + 37.5) == 100.0


def test_a_shifted_contour_lies_half_outside() -> None:
    assert fraction_inside(SQUARE, SQUARE * 3 - 10) == 1.0
    assert fraction_inside(SQUARE, SQUARE + np.array([5.0, 0.0])) == pytest.approx(0.5, abs=0.06)
    assert fraction_inside(SQUARE, SQUARE + 100.0) == 0.0


def test_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "contour.txt"
    path.write_text("1.00 2.00\n3.00 4.50\n\n5 6\n")
    np.testing.assert_array_equal(read_contour(path), [[1, 2], [3, 4.5], [5, 6]])


@pytest.mark.parametrize("text", ["1 2\n3 4\n", "1 2 3\n4 5 6\n7 8 9\n", "a b\n", ""])
def test_what_is_no_contour_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "contour.txt"
    path.write_text(text)
    with pytest.raises(DataError, match="two numbers a line"):
        read_contour(path)
