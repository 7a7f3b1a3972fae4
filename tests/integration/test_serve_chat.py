"""Questions to a real bundle's reasoner behind the server, as OpenAI's client asks them."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from serve_bundle_scene import ENGINES, picture, serving
from serve_scene import DescribedClient, observation, served, until

from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident


@pytest.fixture(scope="module")
def bundle(reasoned_bundle: Path) -> Path:
    return reasoned_bundle


@pytest.fixture(scope="module")
def chat(bundle: Path) -> Iterator[Any]:
    with serving(bundle, chat=True, capacity=512) as running:
        yield running


@pytest.fixture
def client(chat: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chat.url.replace('ws', 'http')}/v1", api_key="unused", max_retries=0) as made:
        yield made


def data_url(array: np.ndarray, kind: str = "png") -> str:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def asked(text: str, *urls: str) -> list[dict[str, Any]]:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["checkpoint"]


def test_a_question_is_answered_as_without_the_server(client: openai.OpenAI, bundle: Path) -> None:
    from motedge.runtime.reasoner.events import Finished
    from motedge.runtime.reasoner.loader import load_reasoner
    from motedge.runtime.reasoner.sampling import SamplingOptions

    image = picture(4, (64, 64))
    with load_reasoner(bundle, **ENGINES) as reasoner:
        *_, last = reasoner.ask("What is there?", [image], options=SamplingOptions(max_new_tokens=6))
    assert isinstance(last, Finished)
    messages = asked("What is there?", data_url(image))
    reply = client.chat.completions.create(model="checkpoint", messages=messages, max_tokens=6)
    assert reply.choices[0].message.content == last.answer
    assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 6
    pieces = list(
        client.chat.completions.create(
            model="checkpoint",
            messages=messages,
            max_completion_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == last.answer and pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].usage.completion_tokens == 6 and pieces[-1].usage.prompt_tokens == reply.usage.prompt_tokens
    assert [piece.choices[0].finish_reason for piece in pieces[:-1]][-1] == "length"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError, match="unknown model 'gpt'") as caught:
            client.chat.completions.create(model="gpt", messages=asked("x"), stream=stream)
        assert caught.value.code == "model_not_found"


def test_a_reply_ends_at_a_text_that_was_told(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "checkpoint", "messages": asked("Tell"), "max_tokens": 30, "temperature": 9.0}
    given["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
    whole = client.chat.completions.create(**given)
    text = whole.choices[0].message.content
    # Some characters that come in several pieces, and not before
    end = next(text[at : at + 5] for at in range(10, len(text) - 5) if text.find(text[at : at + 5]) == at)
    cut = client.chat.completions.create(**given, stop=["never said", end])
    assert cut.choices[0].message.content == text[: text.index(end)] and cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens < whole.usage.completion_tokens
    pieces = list(client.chat.completions.create(**given, stop=end, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text[: text.index(end)]
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_a_conversation_and_how_it_is_sampled(client: openai.OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "And now?"},
    ]
    options = {"temperature": 1.0, "top_p": 0.9, "seed": 3, "max_tokens": 5, "presence_penalty": 0.5}
    more = {"top_k": 5, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}}
    replies = [
        client.chat.completions.create(model="checkpoint", messages=messages, extra_body=more, **options)
        for _ in range(2)
    ]
    assert replies[0].choices[0].message.content == replies[1].choices[0].message.content
    assert replies[0].id != replies[1].id


def test_a_video_is_seen(client: openai.OpenAI, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for number in range(20):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(number, (64, 64)), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    url = f"data:video/mp4;base64,{base64.b64encode(file.read_bytes()).decode()}"
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What happens?"}]
    shown: Any = [{"role": "user", "content": content}]
    reply = client.chat.completions.create(model="checkpoint", messages=shown, max_tokens=2)
    text: Any = [{"role": "user", "content": "What happens?"}]
    plain = client.chat.completions.create(model="checkpoint", messages=text, max_tokens=2)
    assert reply.usage.prompt_tokens > plain.usage.prompt_tokens + 8


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "without a role"),
        ({"messages": asked("x", "http://example.com/a.png")}, "fetches nothing"),
        ({"messages": asked("x", "file:///etc/passwd")}, "fetches nothing"),
        ({"messages": asked("x", "data:image/png;base64,!!!")}, "damaged"),
        ({"messages": asked("x", "data:image/png;base64,aGVsbG8=")}, "can't be read"),
        ({"messages": asked("x", data_url(np.zeros((4100, 4100, 3), np.uint8)))}, "too large"),
        ({"messages": [{"role": "user", "content": "<|image_pad|>"}]}, "placeholders"),
        ({"messages": asked("word " * 600)}, "too long"),
        ({"n": 2}, "n is not served"),
        ({"stop": ["x"] * 5}, "stop holds too many"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not served"),
        ({"temperature": -1}, "temperature is wrong"),
        ({"max_tokens": 0}, "max_new_tokens is wrong"),
        ({"extra_body": {"temprature": 1}}, "did you mean 'temperature'"),
        ({"extra_body": {"top_k": 1.5}}, "not a whole number"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(client: openai.OpenAI, change: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {"model": "checkpoint", "messages": asked("x"), "max_tokens": 2}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=re.escape(match)):
            client.chat.completions.create(**{**good, **change, "stream": stream})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"messages": 3}', b"[" * 100_000, b"\xff"])
def test_what_is_no_question_is_refused(chat: Any, body: bytes) -> None:
    status, text = chat.get("/v1/chat/completions", post=body)
    assert status == 400 and json.loads(text)["error"]["type"] == "invalid_request_error"


def test_observations_go_before_questions(chat: Any, client: openai.OpenAI) -> None:
    """A robot's tick waits for one token at most, not for the reply."""
    stream = client.chat.completions.create(model="checkpoint", messages=asked("Tell"), max_tokens=40, stream=True)
    pieces = iter(stream)
    next(pieces)
    with DescribedClient(chat.url) as robot:
        for _ in range(5):
            assert robot.infer(observation())["actions"].shape == (32, 8)
        took_ms = [robot.infer(observation())["server_timing"]["queue_ms"] for _ in range(3)]
    rest = list(pieces)
    assert rest and rest[-1].choices[0].finish_reason in ("length", "stop")
    assert min(took_ms) < 500


def test_no_more_questions_wait_than_may(bundle: Path) -> None:
    chosen = BundleChoice(bundle, engines=ENGINES, chat=True, serve_policy=False, capacity=512)
    body = json.dumps({"messages": asked("Tell"), "max_tokens": 300}).encode()
    answers: list[tuple[int, str]] = []
    with served(lambda n: load_resident(chosen, n), chat=True, policy=False, chats_waiting=1) as running:
        path = "/v1/chat/completions"
        threads = [threading.Thread(target=lambda: answers.append(running.get(path, post=body))) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) >= 3)
        assert {status for status, _ in answers} == {429}
        assert json.loads(answers[0][1])["error"]["type"] == "server_error"
        # Those that wait are given up with the server; what is under way gets its time
        running.call(running.server.stop)
        running.call(running.server.stop)
        for thread in threads:
            thread.join(20)
    assert len(answers) == 5


def test_a_body_that_is_too_large_or_too_slow(bundle: Path) -> None:
    chosen = BundleChoice(bundle, engines=ENGINES, chat=True, serve_policy=False, capacity=512)
    limits = {"body_bytes": 10_000, "patience_s": 0.3}
    with served(lambda n: load_resident(chosen, n), chat=True, policy=False, **limits) as running:
        large = json.dumps({"messages": asked("x" * 20_000)}).encode()
        assert running.get("/v1/chat/completions", post=large)[0] == 413
        with socket.create_connection(("127.0.0.1", running.server.port), timeout=10) as plain:
            plain.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert plain.recv(1000).startswith(b"HTTP/1.1 408")
        assert running.get("/healthz")[0] == 200


def test_who_goes_away_is_not_answered_further(chat: Any, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="checkpoint", messages=asked("Tell"), max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: chat.server.room.gpu._chat is None)
    until(lambda: 'motedge_chats_total{outcome="cancelled"} 1.0' in chat.get("/metrics")[1])


def test_questions_alone(bundle: Path) -> None:
    with serving(bundle, chat=True, serve_policy=False) as running:
        assert running.get("/")[0] == 404
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}).encode()
        assert running.get("/v1/chat/completions", post=body)[0] == 200
