"""Framing of messages: what goes through, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import contextlib
import io
import pickle
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from motedge.client.wire import WireError, WireLimits, pack, unpack

DTYPES = [f"{order}{kind}" for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8")]
DTYPES += ["|i1", "|u1", "|b1"]


def array_map(**changes: Any) -> dict[bytes, Any]:
    """An array by the public description, without any code of ours."""
    whole = {b"__ndarray__": True, b"data": bytes(24), b"dtype": "<f4", b"shape": [2, 3]}
    return {**whole, **{name.encode(): value for name, value in changes.items()}}


@given(
    st.sampled_from(DTYPES).flatmap(lambda d: arrays.arrays(np.dtype(d), arrays.array_shapes(min_dims=0, min_side=0)))
)
@settings(max_examples=60, deadline=None)
def test_arrays_come_back(array: np.ndarray) -> None:
    back = unpack(pack({"a": array, "b": [array.T]}))
    assert back["a"].dtype == array.dtype and back["a"].shape == array.shape
    np.testing.assert_array_equal(back["a"], array)
    np.testing.assert_array_equal(back["b"][0], array.T)
    assert not back["a"].flags.writeable or not back["a"].size


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(200), np.float16(2)])
def test_scalars_come_back(value: Any) -> None:
    back = unpack(pack(value))
    assert back == value and back.dtype == value.dtype


def test_bytes_are_those_of_the_public_description() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert pack(array) == msgpack.packb(array_map(data=array.tobytes(), shape=(2, 3)))
    assert pack(np.float32(2)) == msgpack.packb({b"__npgeneric__": True, b"data": 2.0, b"dtype": "<f4"})
    np.testing.assert_array_equal(unpack(msgpack.packb(array_map(data=array.tobytes()))), array)
    # Some packers write the type as bytes
    assert unpack(msgpack.packb(array_map(dtype=b"<f4"))).dtype == np.float32


@pytest.mark.parametrize(
    "message",
    [
        array_map(dtype="|O"),
        array_map(dtype="O8"),
        array_map(dtype="<U6"),
        array_map(dtype="<M8[ns]"),
        array_map(dtype="<c8"),
        array_map(dtype="i4,O"),
        array_map(dtype="<f4\n"),
        array_map(dtype=[["a", "O"]]),
        array_map(dtype=None),
        array_map(dtype="<f16"),
        array_map(shape=[2, 4]),
        array_map(shape=[-2, -3]),
        array_map(shape=[True, 6]),
        array_map(shape=[2.0, 3]),
        array_map(shape=6),
        array_map(shape=None),
        array_map(shape=[1] * 9, data=bytes(4)),
        array_map(shape=[0, 2**31 - 1, 2**31 - 1, 2**31 - 1], data=b""),
        array_map(shape=[2**62, 2**62, 0], data=b""),
        array_map(shape=[2**40, 2**24], data=b""),
        array_map(data="text"),
        array_map(data=None),
        {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"},
        {b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": 1, b"dtype": "O"},
        msgpack.ExtType(5, b"x"),
        msgpack.ExtType(5, b""),
        msgpack.Timestamp(1, 2),
        "x" * (65 << 10),
        list(range(1025)),
        [[]] * 600,
        {(1, 2): 3},
    ],
)
def test_what_is_no_message_is_refused(message: Any) -> None:
    with pytest.raises(WireError):
        unpack(msgpack.packb(message))


@pytest.mark.parametrize(
    "data", [b"", b"\x93\x01", b"\x01\x01", b"\xc1", b"\x91" * 5000, b"\x81\x90\x01", b"\xa2\xff\xff"]
)
def test_what_is_no_msgpack_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(data)


def test_pickles_are_bytes_and_stay_so() -> None:
    """What openpi's predecessors did with arrays of objects."""
    harm = pickle.dumps(io.BytesIO())
    assert unpack(msgpack.packb({"a": harm})) == {"a": harm}
    with pytest.raises(WireError, match="not taken"):
        unpack(msgpack.packb(array_map(dtype="|O", data=harm, shape=[1])))


def test_what_a_header_promises_is_not_allocated() -> None:
    promises = [b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
    tracemalloc.start()
    try:
        for promise in promises:
            with pytest.raises(WireError):
                unpack(promise)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_size_and_limits_of_the_caller() -> None:
    with pytest.raises(WireError, match="too large"):
        unpack(bytes(101), WireLimits(message_bytes=100))
    assert unpack(pack([1, 2]), WireLimits(entries=2, containers=1)) == [1, 2]


@pytest.mark.parametrize(
    "value", [np.array([None]), np.array(["a"]), np.array(1j), object(), 2**65, np.datetime64("now")]
)
def test_what_can_not_be_sent_says_so(value: Any) -> None:
    with pytest.raises(WireError, match="can't be sent"):
        pack({"a": value})


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=40),
)
_NAMES = st.sampled_from([b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape", "prompt"])
_TYPES = st.sampled_from([*DTYPES, "O", "|O8", "V4", "<f4,<f4", "", "f"])
_MESSAGES = st.recursive(
    st.one_of(_LEAVES, _TYPES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(_NAMES, st.text(max_size=3)), inner)
    ),
    max_leaves=12,
)


@given(_MESSAGES)
@settings(max_examples=300, deadline=None)
def test_any_message_is_read_or_refused(message: Any) -> None:
    with contextlib.suppress(WireError):
        unpack(msgpack.packb(message))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, place: int, value: int) -> None:
    """Noise, and a sound message with a byte changed."""
    sound = bytearray(pack({"image": np.zeros((8, 4, 3), np.uint8), "prompt": "go", "state": np.zeros(7)}))
    sound[place % len(sound)] = value
    for message in (data, bytes(sound), bytes(sound[:place])):
        with contextlib.suppress(WireError):
            unpack(message)
