"""Packed changes: laws of the methods, bytes to the letter, and payloads that are refused."""

from typing import Any

import numpy as np
import pytest

from protocol.arrays import Arrays, Layout, layout
from protocol.compression import (
    Codec,
    apply_change,
    change_of,
    decode,
    encode,
    encode_with_feedback,
    encoded_size,
    no_residual,
)
from protocol.config import Study
from protocol.errors import ConfigError, PayloadError
from protocol.yaml_files import parse

CODECS = [Codec("bf16"), Codec("int8"), Codec("top-k", 0.1), Codec("top-k", 1.0)]
WHERE = "The reply of A"


def change(seed: int = 0, scale: float = 1e-2) -> Arrays:
    rng = np.random.default_rng(seed)
    # Every channel has a magnitude of its own.
    rows = rng.standard_normal((6, 3, 3, 3)) * 10.0 ** rng.uniform(-3, 3, (6, 1, 1, 1))
    return {
        "conv.weight": (scale * rows).astype(np.float32),
        "conv.bias": (scale * rng.standard_normal(6)).astype(np.float32),
        "a.scalar": np.array(0.25, np.float32),
        "none": np.zeros((0, 4), np.float32),
        "head.weight": (scale * rng.standard_normal((2, 6))).astype(np.float32),
        "steps": np.array([3, 2**20], np.int64),
    }


def sent(arrays: Arrays, codec: Codec) -> Arrays:
    return decode(encode(arrays, codec), layout(arrays), codec, WHERE)


# Laws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-2, 1e5])
def test_int8_is_right_to_half_a_step_of_each_channel(scale: float) -> None:
    arrays = change(1, scale)
    found = sent(arrays, Codec("int8"))["conv.weight"]
    for row, back in zip(arrays["conv.weight"], found, strict=True):
        # The scale is bf16, rounded up: at most 1/128 more than max / 127.
        step = float(np.abs(row).max()) / 127 * (1 + 2**-7)
        assert np.abs(row.astype(np.float64) - back).max() <= step / 2 * (1 + 1e-6)


def test_bf16_is_right_to_the_eighth_bit_and_ties_go_to_even() -> None:
    arrays = change(2)
    found = sent(arrays, Codec("bf16"))["conv.weight"]
    size = np.abs(arrays["conv.weight"])
    assert (np.abs(found - arrays["conv.weight"]) <= size * 2.0**-8).all()
    # 1 + 2^-8 lies halfway between 1 and 1 + 2^-7; 1 + 3/2^8 between 1 + 2^-7 and 1 + 2^-6.
    ties = {"w": np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)}
    assert sent(ties, Codec("bf16"))["w"].tolist() == [1.0, 1 + 2**-6, -1.0]


def test_top_k_sends_the_largest_over_all_arrays_and_the_first_of_equals() -> None:
    arrays = {
        "b": np.array([[1, -8, 2], [2, 0, -2]], np.float32),
        "a": np.array([[4, 0.5, 2, 0]], np.float32),
    }
    found = sent(arrays, Codec("top-k", 0.4))
    assert found["a"].tolist() == [[4, 0, 2, 0]]
    assert found["b"].tolist() == [[0, -8, 2], [0, 0, 0]]


@pytest.mark.parametrize("codec", [Codec("int8"), Codec("top-k", 0.05)])
def test_what_was_sent_is_the_sum_of_the_changes_less_the_last_residual(codec: Codec) -> None:
    model = change()
    residual, total, wanted = no_residual(model), {}, {}
    for number in range(30):
        step = change(number)
        payload, residual = encode_with_feedback(step, residual, codec)
        back = decode(payload, layout(step), codec, WHERE)
        for name in residual:
            total[name] = total.get(name, 0.0) + back[name].astype(np.float64)
            wanted[name] = wanted.get(name, 0.0) + step[name].astype(np.float64)
    for name, left in residual.items():
        size = max(float(np.abs(wanted[name]).max(initial=0.0)), 1e-9)
        np.testing.assert_allclose(total[name] + left, wanted[name], atol=30 * 2**-23 * size)
    assert any(np.abs(left).max(initial=0.0) > 0 for left in residual.values())


def test_a_payload_carries_exactly_what_the_residual_lacks() -> None:
    arrays = change(3)
    payload, residual = encode_with_feedback(arrays, no_residual(arrays), Codec("int8"))
    back = decode(payload, layout(arrays), Codec("int8"), WHERE)
    # By Sterbenz' lemma the difference of two floats that near each other is exact.
    for name, left in residual.items():
        exact = arrays[name].astype(np.float64) - back[name]
        near = np.abs(back[name]) >= np.abs(arrays[name]) / 2
        assert (left[near] == exact[near]).all()


@pytest.mark.parametrize("codec", CODECS)
def test_equal_changes_have_equal_bytes_whatever_the_order_and_the_strides(codec: Codec) -> None:
    arrays = change(4)
    turned = {name: arrays[name] for name in reversed(arrays)}
    turned["conv.weight"] = np.asfortranarray(arrays["conv.weight"])
    assert encode(turned, codec).tobytes() == encode(arrays, codec).tobytes()


@pytest.mark.parametrize("codec", CODECS)
def test_the_length_follows_from_the_layout_alone(codec: Codec) -> None:
    arrays = change(5)
    assert encode(arrays, codec).shape == (encoded_size(layout(arrays), codec),)
    nothing = {name: np.zeros_like(array) for name, array in arrays.items()}
    assert encode(nothing, codec).shape == (encoded_size(layout(arrays), codec),)
    assert list(sent(arrays, codec)) == list(arrays)
    assert layout(sent(arrays, codec)) == layout(arrays)


@pytest.mark.parametrize("codec", CODECS)
def test_a_model_after_its_change_is_near_and_counters_are_exact(codec: Codec) -> None:
    old, new = change(6), change(7)
    found = apply_change(old, sent(change_of(new, old), codec))
    assert found["steps"].tolist() == new["steps"].tolist()
    assert found["a.scalar"] == np.float32(0.25)
    if codec.fraction == 1 or codec.method != "top-k":
        for name in no_residual(old):
            size = float(np.abs(new[name] - old[name]).max(initial=0.0))
            assert np.abs(found[name] - new[name]).max(initial=0.0) <= size / 100


def test_a_model_that_did_not_change_is_the_same_to_the_bit() -> None:
    old = change(8)
    for codec in CODECS:
        found = apply_change(old, sent(change_of(old, old), codec))
        assert all(found[name].tobytes() == old[name].tobytes() for name in old)


# Golden -----------------------------------------------------------------------------------------


def test_int8_to_the_byte() -> None:
    # Row 1: 254 / 127 = 2 = 0x4000; row 2 is zero. The bias 1 is 0x3f80. Names in their order.
    arrays = {"w": np.array([[254, -3, 0], [0, 0, 0]], np.float32), "b": np.ones(1, np.float32)}
    assert encode(arrays, Codec("int8")).tolist() == [
        *(0x80, 0x3F),
        *(0x00, 0x40, 0x00, 0x00),
        *(127, 256 - 2, 0, 0, 0, 0),
    ]


def test_int8_of_a_network_is_little_more_than_a_quarter() -> None:
    model = layout(
        {
            "conv.weight": np.zeros((64, 32, 3, 3), np.float32),
            "conv.bias": np.zeros(64, np.float32),
            "norm.weight": np.zeros(64, np.float32),
        }
    )
    whole = 4 * (64 * 32 * 9 + 128)
    assert encoded_size(model, Codec("int8")) / whole < 0.26
    assert encoded_size(model, Codec("bf16")) / whole == 0.5
    assert encoded_size(model, Codec("top-k", 0.01)) / whole < 0.02


# Refused ----------------------------------------------------------------------------------------


def spoilt(payload: np.ndarray, at: int, *values: int) -> np.ndarray:
    copy = payload.copy()
    copy[at : at + len(values)] = values
    return copy


def test_a_payload_of_another_length_or_type_is_refused() -> None:
    arrays = change()
    for codec in CODECS:
        payload = encode(arrays, codec)
        for wrong in (payload[:-1], np.append(payload, 0), payload.view(np.int8), payload[None]):
            with pytest.raises(PayloadError, match="The reply of A: the compressed change is no"):
                decode(wrong, layout(arrays), codec, WHERE)


@pytest.mark.parametrize(
    ("at", "values", "problem"),
    [
        (0, (0xC0, 0x7F), "the scales of w' holds a number that is not finite"),
        (0, (0x80, 0x7F), "the scales of w' holds a number that is not finite"),
        (0, (0x00, 0x60), "beyond 1e9"),
        (0, (0x00, 0xC0), "a scale below 0"),
        (4, (0x80,), "a step outside -127 to 127"),
    ],
)
def test_a_wrong_scale_or_step_is_refused(at: int, values: tuple[int, ...], problem: str) -> None:
    arrays = {"w": np.array([[254, -3, 0], [0, 0, 0]], np.float32)}
    payload = spoilt(encode(arrays, Codec("int8")), at, *values)
    with pytest.raises(PayloadError, match=problem):
        decode(payload, layout(arrays), Codec("int8"), WHERE)


@pytest.mark.parametrize("places", [(0, 0, 2), (2, 1, 0), (0, 1, 6), (0, 1, 2**32 - 1), (1, 2, 2)])
def test_places_that_repeat_fall_or_are_nowhere_are_refused(places: tuple[int, ...]) -> None:
    arrays, codec = {"w": np.ones((2, 3), np.float32)}, Codec("top-k", 0.5)
    payload = spoilt(encode(arrays, codec), 0, *np.array(places, "<u4").tobytes())
    with pytest.raises(PayloadError, match="has places that repeat, do not rise, or are not"):
        decode(payload, layout(arrays), codec, WHERE)


def test_a_nan_is_packed_by_nobody_and_unpacked_by_nobody() -> None:
    arrays = {"w": np.full((2, 2), np.nan, np.float32)}
    for codec in CODECS:
        with pytest.raises(PayloadError, match="array 'w' holds a NaN"):
            encode(arrays, codec)
        fine = encode({"w": np.ones((2, 2), np.float32)}, codec)
        with pytest.raises(PayloadError, match="not finite"):
            decode(np.full_like(fine, 0xFF) if codec.method == "bf16" else nan_in(fine, codec),
                   layout(arrays), codec, WHERE)  # fmt: skip


def nan_in(payload: np.ndarray, codec: Codec) -> np.ndarray:
    at = 0 if codec.method == "int8" else payload.size - 2
    return spoilt(payload, at, 0xC0, 0x7F)


def unpacked(payload: np.ndarray, model: Layout, codec: Codec) -> Arrays | None:
    try:
        return decode(payload, model, codec, WHERE)
    except PayloadError:
        return None


def test_any_bytes_are_a_model_or_refused() -> None:
    model, rng = layout(change()), np.random.default_rng(11)
    for codec in CODECS:
        for _ in range(200):
            payload = rng.integers(0, 256, encoded_size(model, codec)).astype(np.uint8)
            found = unpacked(payload, model, codec)
            assert found is None or layout(found) == model
            assert all(np.isfinite(array).all() for array in (found or {}).values())


# The study --------------------------------------------------------------------------------------


def study(**sections: Any) -> dict[str, Any]:
    base = {"name": "s", "seed": 1, "hospitals": {"train": ["a", "b", "c", "d"]}}
    return base | {"rounds": {"compression": {"up": "int8", "down": "int8"}}} | sections


def test_a_study_compresses_nothing_unless_it_says_so() -> None:
    plain = parse(Study, study(rounds={}), "s.yaml").rounds.compression
    assert (plain.up, plain.down, plain.is_used) == ("none", "none", False)
    assert Codec.of(plain.up, plain.fraction) is None
    asked = parse(Study, study(), "s.yaml").rounds.compression
    assert Codec.of(asked.up, asked.fraction) == Codec("int8", 0.01)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"secure_aggregation": {"min_hospitals": 3}}, "secure_aggregation exclude each other"),
        (
            {"segment": {"strategy": {"name": "scaffold"}, "training": {"optimizer": "sgd"}}},
            "segment.strategy scaffold computes a hospital's control variate",
        ),
        ({"segment": {"strategy": {"ask": "in turn"}}}, "set rounds.compression.down to none"),
        ({"prognosis": {"head": "cox_two_phase"}}, "adds up exact gradients, not models"),
        ({"rounds": {"compression": {"up": "int4"}}}, "up"),
        ({"rounds": {"compression": {"fraction": 0}}}, "fraction"),
    ],
)
def test_what_does_not_go_together_is_refused(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(Study, study(**sections), "s.yaml")
