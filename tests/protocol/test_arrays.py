"""Layout, finiteness and fingerprint of named arrays."""

import numpy as np
import pytest

from protocol.arrays import ArraySpec, check_finite, check_layout, fingerprint, layout
from protocol.errors import PayloadError


def model() -> dict[str, np.ndarray]:
    return {
        "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "conv.bias": np.zeros(2, dtype=np.float32),
    }


def test_the_fingerprint_does_not_depend_on_the_order_of_the_dict() -> None:
    arrays = model()
    assert fingerprint(arrays) == fingerprint(dict(reversed(arrays.items())))


def test_the_fingerprint_does_not_depend_on_the_memory_order() -> None:
    arrays = model()
    turned = {name: np.asfortranarray(array) for name, array in arrays.items()}
    assert fingerprint(arrays) == fingerprint(turned)


@pytest.mark.parametrize(
    "change",
    [
        {"conv.weight": np.arange(6, dtype=np.float32).reshape(3, 2)},
        {"conv.weight": np.arange(6, dtype=np.float64).reshape(2, 3)},
        {"conv.bias": np.array([0.0, -0.0], dtype=np.float32)},
        {"conv.bias": np.array([0, np.nextafter(np.float32(0), np.float32(1))], np.float32)},
        {"other": np.zeros(1, dtype=np.float32)},
    ],
)
def test_the_fingerprint_sees_every_change(change: dict[str, np.ndarray]) -> None:
    assert fingerprint(model() | change) != fingerprint(model())


def test_layout_names_shape_and_dtype() -> None:
    assert layout(model())["conv.weight"] == ArraySpec((2, 3), "float32")


def test_the_same_layout_in_another_order_is_accepted() -> None:
    check_layout(dict(reversed(model().items())), layout(model()), "A")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"conv.bias": np.zeros(2, np.float32)}, "array 'conv.weight' is missing"),
        (model() | {"fc": np.zeros(2, np.float32)}, "array 'fc' is not part of the model"),
        (model() | {"conv.bias": np.zeros(1, np.float32)}, r"has shape \(1,\), expected \(2,\)"),
        (model() | {"conv.bias": np.zeros(2)}, "is float64, expected float32"),
    ],
)
def test_the_first_difference_is_named(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(PayloadError, match=f"^The reply of A: .*{sentence}"):
        check_layout(arrays, layout(model()), "The reply of A")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(np.nan, "a NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-2e9, "beyond 1e\\+09")],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_that_cannot_be_a_weight_is_named(value: float, sentence: str, dtype: type) -> None:
    arrays = {"good": np.ones(3), "bad": np.array([0, value, 1], dtype=dtype)}
    with pytest.raises(PayloadError, match=f"^The reply of A: array 'bad' holds .*{sentence}"):
        check_finite(arrays, "The reply of A")


def test_the_limit_itself_empty_arrays_and_counters_are_finite() -> None:
    check_finite({"a": np.array([1e9, -1e9]), "b": np.zeros((0, 3)), "c": np.array(7)}, "A")


@pytest.mark.parametrize("place", [0, 32_767, 69_999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1.01e9, -1.01e9])
@pytest.mark.parametrize("rest", [0.0, 1e-30, 0.1, -9e8])
def test_a_bad_value_is_found_wherever_it_is(place: int, value: float, rest: float) -> None:
    array = np.full((7, 10_000), rest, np.float32)
    check_finite({"good": array}, "The reply of A")
    array.flat[place] = value
    with pytest.raises(PayloadError, match="array 'bad' holds"):
        check_finite({"bad": array}, "The reply of A")


@pytest.mark.parametrize("limit", [1e9, 1e20, 1e160, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whatever_the_limit_an_infinity_is_none_within_it(limit: float, dtype: type) -> None:
    check_finite({"good": np.array([1, -2], dtype)}, "The reply of A", limit)
    with pytest.raises(PayloadError, match="an infinite value"):
        check_finite({"bad": np.array([1, np.inf], dtype)}, "The reply of A", limit)
