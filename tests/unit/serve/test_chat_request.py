"""Bodies of questions: what they become, and that any bytes are read or refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from motedge.errors import MotedgeError, ObservationError, UsageError
from motedge.serve.chat_request import ChatRequest, chat_request
from motedge.serve.data_url import decode_data_url, decode_image

HELLO = [{"role": "user", "content": "Hello"}]


def read(**fields: Any) -> ChatRequest:
    return chat_request(json.dumps({"model": "m", "messages": HELLO, **fields}).encode(), 16)


def _shown(kind: str, data: bytes) -> dict[str, Any]:
    url = f"data:{kind}/x;base64,{base64.b64encode(data).decode()}"
    # Both forms are about
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url} if kind == "image" else url}


def test_what_a_body_becomes() -> None:
    asked = read(
        messages=[
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, _shown("image", b"1"), _shown("video", b"2")]},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [_shown("image", b"3")]},
        ],
        temperature=1,
        max_completion_tokens=7,
        seed=3.0,
        stream=True,
        stream_options={"include_usage": True},
        chat_template_kwargs={"enable_thinking": False},
        user="me",
        n=1,
        stop=["\n", ""],
    )
    assert asked.images == (b"1", b"3") and asked.videos == (b"2",)
    assert [message["role"] for message in asked.messages] == ["system", "user", "assistant", "user"]
    assert asked.messages[1]["content"] == [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "video"}]
    options = asked.options
    assert (
        (options.temperature, options.max_new_tokens, options.seed) == (1.0, 7, 3)
        and options.stop == ("\n",)
        and options.top_p == 1.0
    )
    assert asked.stream and asked.usage and asked.thinking is False
    assert read().options.temperature == 0 and read().thinking is None and not read().stream
    assert read(stop="a").options.stop == ("a",) and read(stop=None).options.stop == read(stop="").options.stop == ()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"frequency_penalty": 1}, "frequency_penalty is not served"),
        ({"response_format": {"type": "json_object"}}, "response_format is not served"),
        ({"stop": 3}, "neither a text nor a list"),
        ({"stop": ["a", 3]}, "neither a text nor a list"),
        ({"stop": list("abcde")}, "at most 4"),
        (
            {"messages": [{"role": "user", "content": [_shown("image", b"")] * 9 + [_shown("video", b"")] * 8}]},
            "at most 16",
        ),
        ({"stream": 1}, "neither true nor false"),
        ({"stream_options": 3}, "not an object"),
        ({"stream_options": {"usage": True}}, "unknown field 'usage'"),
        ({"chat_template_kwargs": {"think": True}}, "unknown field 'think'"),
        ({"temperature": "hot"}, "not a number"),
        ({"temperature": True}, "not a number"),
        ({"temperature": 10**400}, "temperature is too large"),
        ({"presence_penalty": -(10**400)}, "presence_penalty is too large"),
        ({"temperature": float("inf")}, "temperature is wrong"),
        ({"seed": 10**400}, "seed is wrong"),
        ({"messages": [{"role": "user", "content": "hi \ud83d"}]}, "content holds half a character"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ude00"}]}]}, "text holds half"),
        ({"stop": "\ud83d"}, r"stop holds half a character\n.*\n  got: +'\\ud83d'"),
        ({"top_p": 0}, "top_p is wrong"),
        ({"seed": -1}, "seed is wrong"),
        ({"max_tokens": 1.5}, "not a whole number"),
        ({"messages": "Hello"}, "messages is not a list"),
        ({"messages": [{"content": "x"}]}, "without a role"),
        ({"messages": ["x"]}, "without a role"),
        ({"messages": [{"role": "user"}]}, "content is not a list"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "not served"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "without a URL"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(MotedgeError, match=match):
        read(**fields)


def test_whole_characters_are_taken() -> None:
    asked = chat_request(b'{"messages": [{"role": "user", "content": "hi \\ud83d\\ude00"}]}', 16)
    assert asked.messages[0]["content"] == "hi \U0001f600"


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "seed",
        "max_tokens",
        "n",
        "stop",
        "tools",
    ]
)


@given(st.dictionaries(st.one_of(_FIELDS, st.text(max_size=5)), _JSON, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError, ObservationError):
        chat_request(json.dumps({"messages": HELLO, **fields}).encode(), 16)


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(UsageError, ObservationError):
        chat_request(body, 16)


def picture(kind: str, array: Any = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8) if array is None else array).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_are_decoded(kind: str) -> None:
    decoded = decode_image(picture(kind), 600)
    assert decoded.shape == (20, 30, 3) and decoded.dtype == np.uint8 and abs(int(decoded[5, 5, 0]) - 90) < 4
    with pytest.raises(ObservationError, match="too large"):
        decode_image(picture(kind), 599)


def test_pictures_stand_upright_and_have_three_channels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(picture("JPEG", exif=exif.tobytes()), 600).shape == (30, 20, 3)
    assert decode_image(picture("PNG", np.zeros((20, 30), np.uint8)), 600).shape == (20, 30, 3)
    assert decode_image(picture("PNG", np.zeros((20, 30, 4), np.uint8)), 600).shape == (20, 30, 3)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data with these tags: number, type, count, and the value or where it is."""
    tags = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II" + struct.pack("<HIH", 42, 8, len(entries)) + tags + bytes(4)


@pytest.mark.parametrize("value", range(10))
def test_all_ways_to_hold_a_camera(value: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    data = picture("PNG", drawn, exif=exif((0x0112, 3, 1, bytes((value, 0, 0, 0)))))
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(decode_image(data, 600), expected) and (expected.shape == (30, 20, 3)) == (5 <= value <= 8)


@pytest.mark.parametrize(
    "odd",
    [
        # Numbers where texts belong; a pointer to more tags that points nowhere
        (0x0110, 11, 1, struct.pack("<f", 0.5)),
        (0x0110, 12, 1, b"\x08\0\0\0"),
        (0x0132, 5, 1, b"\x08\0\0\0"),
        (0x8769, 8, 1, b"Q\xe8t\xe9"),
    ],
)
def test_a_tag_that_no_picture_depends_on_may_be_odd(odd: tuple[int, int, int, bytes]) -> None:
    turned = (0x0112, 3, 1, b"\x06\0\0\0")
    for kind in ("PNG", "JPEG", "WEBP"):
        assert decode_image(picture(kind, exif=exif(odd, turned)), 600).shape == (30, 20, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_data_that_end_too_early_are_refused() -> None:
    whole = exif((0x0112, 3, 1, b"\x06\0\0\0"))
    for length in range(7, len(whole)):
        with contextlib.suppress(ObservationError):
            decode_image(picture("PNG", exif=whole[:length]), 600)
    with pytest.raises(ObservationError, match="can't be read"):
        decode_image(picture("PNG", exif=whole[:11]), 600)


@pytest.mark.parametrize("data", [b"", b"GIF89a", picture("GIF"), picture("BMP"), picture("TIFF"), picture("PNG")[:60]])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ObservationError, match="can't be read"):
        decode_image(data, 600)


def test_a_bomb_is_not_unpacked() -> None:
    """A file that says it is 60,000 pixels wide and high, and holds next to nothing."""
    whole = bytearray(picture("PNG"))
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ObservationError):
        decode_image(bytes(whole), 16 << 20)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_url_is_read_or_refused(url: str) -> None:
    for each in (url, f"data:{url}", f"data:image/png;base64,{url}"):
        with contextlib.suppress(ObservationError):
            decode_data_url(each)
