"""Arrays to Flower's records and back: exact, without copies, without trust."""

import io
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from protocol.errors import PayloadError
from protocol.records import from_array_record, to_array_record

LIMIT = 2**20


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((4, 3, 2)).astype(np.float32),
        "half": rng.standard_normal(5).astype(np.float16),
        "double": np.array([-0.0, 1e-310]),
        "count": np.array(7, dtype=np.int64),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }


def test_a_round_trip_is_exact() -> None:
    back = from_array_record(to_array_record(arrays()), "A", LIMIT)
    assert list(back) == list(arrays())
    for name, array in arrays().items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_flower_reads_what_we_write_and_we_read_what_flower_writes() -> None:
    ours = to_array_record(arrays())
    for name, array in arrays().items():
        assert ours[name].data == Array(array).data
        np.testing.assert_array_equal(ours[name].numpy(), array)


def test_arrays_in_another_memory_order_travel_in_c_order() -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    back = from_array_record(to_array_record({"w": turned}), "A", LIMIT)
    np.testing.assert_array_equal(back["w"], turned)
    assert back["w"].flags.c_contiguous


def test_reading_copies_nothing_and_the_view_cannot_be_written() -> None:
    record = to_array_record({"w": np.zeros(2**20, dtype=np.float32)})
    tracemalloc.start()
    try:
        view = from_array_record(record, "A", 2**23)["w"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**16
    assert not view.flags.writeable


def npy(array: np.ndarray, **kwargs: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


GOOD = npy(np.zeros(4, dtype=np.float32))
HUGE = (10**6, 10**6)


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", HUGE, "numpy.ndarray", GOOD),
        Array("float32", (10**30,), "numpy.ndarray", GOOD),
        Array("float32", (0, 10**30), "numpy.ndarray", GOOD),
        Array("float32", (-4,), "numpy.ndarray", GOOD),
        Array("float32", (True,) * 4, "numpy.ndarray", GOOD),
        Array("float32", (1,) * 40, "numpy.ndarray", GOOD),
        Array("float32", (4,), "numpy.ndarray", GOOD[:-1]),
        Array("float32", (4,), "numpy.ndarray", GOOD + b"\0"),
        Array("float32", (4,), "numpy.ndarray", b""),
        Array("float32", (4,), "numpy.ndarray", GOOD.replace(b"(4,)", b"(9,)")),
        Array("float32", (4,), "torch.tensor", GOOD),
        Array("object", (1,), "numpy.ndarray", npy(np.array([{}]), allow_pickle=True)),
        Array(">f4", (4,), "numpy.ndarray", npy(np.zeros(4, dtype=">f4"))),
        Array("float32", (2, 2), "numpy.ndarray", npy(np.asfortranarray(np.eye(2, dtype="f4")))),
    ],
)
def test_bytes_that_are_not_the_claimed_array_are_refused(array: Array) -> None:
    record = ArrayRecord()
    record["w"] = array
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match=r"^A: array 'w' .*; send it with this version\.$"):
            from_array_record(record, "A", LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_too_many_bytes_are_refused_and_the_limit_is_named() -> None:
    record = to_array_record({"w": np.zeros(2**18, dtype=np.float32)})
    size = len(record["w"].data)
    assert from_array_record(record, "A", size)
    with pytest.raises(PayloadError, match=r"exceed the limit of 1.0 MiB; raise rounds.max_reply"):
        from_array_record(record, "A", size - 1)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 257, "../ü"])
def test_a_name_that_is_no_state_name_is_refused_both_ways(name: str) -> None:
    record = ArrayRecord()
    record[name] = Array(np.zeros(1, dtype=np.float32))
    with pytest.raises(PayloadError, match="use the network's own state names"):
        from_array_record(record, "A", LIMIT)
    with pytest.raises(PayloadError, match="use the network's own state names"):
        to_array_record({name: np.zeros(1, dtype=np.float32)})


def test_too_many_arrays_are_refused() -> None:
    record = ArrayRecord()
    for index in range(10_001):
        record[str(index)] = Array("float32", (4,), "numpy.ndarray", GOOD)
    with pytest.raises(PayloadError, match="10001 arrays are more than the 10000 allowed"):
        from_array_record(record, "A", 2**30)


def test_a_dtype_that_cannot_travel_is_named() -> None:
    with pytest.raises(PayloadError, match="array 'w' is complex128, expected one of float16"):
        to_array_record({"w": np.zeros(1, dtype=complex)})
