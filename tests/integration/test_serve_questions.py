"""Questions that would take too much, or come at a bad moment; the reasoner is made up."""

from __future__ import annotations

import base64
import io
import json
import resource
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serve_scene import MadeResident, Served, served, until

from motedge.errors import HostError
from motedge.runtime.reasoner.events import Finished, Pause, Started
from motedge.runtime.reasoner.thinking import Part
from motedge.runtime.reasoner.vision_settings import EDGE
from motedge.serve.waiting_room import RoomFullError

PATH = "/v1/chat/completions"


class MadeReasoner:
    """Says its name; `look` is called with each prompt's pictures, `work` before each word."""

    settings, capacity = EDGE, 4096

    def __init__(self, name: str = "a", words: int = 1, work: Callable[[], Any] = lambda: None) -> None:
        self.name, self.words, self.work = name, words, work
        self.prompts: list[Any] = []
        self.look: Callable[[Any], Any] = list

    def prompt(self, messages: Any, images: Any = (), videos: Any = (), *, thinking: Any = None) -> Any:
        self.prompts.append((self.look(images), list(videos)))
        return SimpleNamespace(of=self.name)

    def steps(self, prompt: Any, options: Any, *, piece: Any = None) -> Iterator[Any]:
        assert prompt.of == self.name, "tokens of another bundle"
        yield Started(3, 0, 0.0, 1.0)
        for number in range(self.words):
            self.work()
            yield Pause(number + 1)
            yield Part("answer", self.name)
        yield Finished("stop", "", self.name * self.words, tuple(range(self.words)), 1.0)


def resident(reasoner: MadeReasoner, generation: int = 1) -> MadeResident:
    made = MadeResident(generation)
    made.reasoner = reasoner
    return made


def body(*parts: dict[str, Any], **more: Any) -> bytes:
    content = [*parts, {"type": "text", "text": "What?"}]
    return json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()


def shown(rows: int, columns: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((rows, columns), np.uint8)).save(stream, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def error(answer: tuple[int, str]) -> tuple[int, str]:
    """Status and what is said."""
    return answer[0], json.loads(answer[1])["error"]["message"]


def refused(running: Served, question: bytes) -> tuple[int, str | None, str | None]:
    """Status, code and Retry-After."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{running.server.port}{PATH}", question, timeout=10)
    said = json.loads(caught.value.read())["error"]
    return caught.value.code, said["code"], caught.value.headers["Retry-After"]


@pytest.mark.parametrize(
    ("count", "size", "told"),
    [
        (17, (8, 8), "too many images and videos\n  expected: at most 16"),
        (16, (2048, 4096), "too large together\n  expected: at most 67108864 pixels\n  got:      134217728 pixels"),
        (3, (4096, 4096), "49152 tokens of 3 pictures"),
    ],
)
def test_more_than_a_question_may_show_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, count: int, size: tuple[int, int], told: str
) -> None:
    decoded: list[Any] = []
    monkeypatch.setattr("motedge.serve.question_media.decode_image", lambda *given: decoded.append(given))
    reasoner = MadeReasoner()
    with served(resident(reasoner), chat=True) as running:
        status, text = error(running.get(PATH, post=body(*[shown(*size)] * count)))
        assert status == 400 and told in text and not decoded and not reasoner.prompts
        assert running.get(PATH, post=body())[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory in KB")
def test_pictures_are_in_memory_one_at_a_time() -> None:
    """Each takes 48 MB; all together would take 768."""
    reasoner = MadeReasoner()
    reasoner.capacity, reasoner.look = 1 << 20, lambda images: [image.shape for image in images]
    with served(resident(reasoner), chat=True, chat_pixels=1 << 30) as running:
        question = body(*[shown(4096, 4096)] * 16)
        running.get(PATH, post=body(shown(4096, 4096)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert running.get(PATH, post=question)[0] == 200
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert reasoner.prompts[-1][0] == [(4096, 4096, 3)] * 16 and grown_mb < 200


def test_nothing_is_decoded_of_a_question_that_has_no_place() -> None:
    go = threading.Event()
    reasoner = MadeReasoner(work=lambda: go.wait(10))
    answers: list[tuple[int, str]] = []
    with served(resident(reasoner), chat=True, chats_waiting=1) as running:
        ask = [threading.Thread(target=lambda: answers.append(running.get(PATH, post=body()))) for _ in range(2)]
        for thread in ask:
            thread.start()
        until(lambda: len(reasoner.prompts) == 2)
        status, text = error(running.get(PATH, post=body(shown(64, 64))))
        assert status == 429 and "too many questions wait" in text and len(reasoner.prompts) == 2
        go.set()
        for thread in ask:
            thread.join(10)
        assert [status for status, _ in answers] == [200, 200]
        assert running.get(PATH, post=body(shown(64, 64)))[0] == 200


def test_who_asks_questions_too_often_is_told() -> None:
    with served(resident(MadeReasoner()), chat=True, chat_rate_hz=0.01, chat_burst=3) as running:
        answers = [running.get(PATH, post=body()) for _ in range(4)]
    assert [status for status, _ in answers] == [200, 200, 200, 429]
    assert error(answers[3])[1].startswith("too many questions\n  expected: at most 0.01 a second of one address")


def test_a_question_that_waits_through_a_reload_is_asked_anew() -> None:
    go, begun = threading.Event(), threading.Event()
    residents = [resident(MadeReasoner("a", work=lambda: (begun.set(), go.wait(10))), 1)]
    residents.append(resident(MadeReasoner("b"), 2))
    answers: dict[str, tuple[int, str]] = {}
    with served(lambda number: residents[number - 1], chat=True) as running:

        def ask(name: str, stream: bool) -> None:
            answers[name] = running.get(PATH, post=body(stream=stream))

        first = threading.Thread(target=ask, args=("first", False))
        first.start()
        assert begun.wait(10)
        second = [threading.Thread(target=ask, args=(f"second {stream}", stream)) for stream in (False, True)]
        for thread in second:
            thread.start()
        until(lambda: len(residents[0].reasoner.prompts) == 3)
        assert running.get("/reload", post=b"")[0] == 200
        until(lambda: running.server.room.gpu.busy_s() > 0)
        go.set()
        for thread in (first, *second):
            thread.join(10)
    said = {
        name: json.loads(text)["choices"][0]["message"]["content"]
        for name, (_, text) in answers.items()
        if text[0] == "{"
    }
    assert said == {"first": "a", "second False": "b"}
    assert answers["second True"][0] == 200 and '"content":"b"' in answers["second True"][1]
    assert [made.closed for made in residents] == [1, 1] and len(residents[1].reasoner.prompts) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (None, (404, "model_not_found", None)),
        (HostError("no room"), (503, None, "1")),
        (RoomFullError("too many questions wait"), (429, "rate_limit_exceeded", "1")),
        (RuntimeError("/secret/path"), (500, None, None)),
    ],
    ids=["model", "host", "room", "bug"],
)
def test_a_question_asked_anew_is_refused_as_a_first_one(
    trouble: Exception | None, expected: tuple[Any, ...], stream: bool
) -> None:
    go, begun = threading.Event(), threading.Event()
    old, new = resident(MadeReasoner("a", work=lambda: (begun.set(), go.wait(10))), 1), resident(MadeReasoner("b"), 2)

    def fail(images: Any) -> None:
        if trouble is not None:
            raise trouble

    new.reasoner.look = fail
    if trouble is None:
        new.model = "another"
    answers: list[tuple[Any, ...]] = []
    with served(lambda number: (old, new)[number - 1], chat=True) as running:
        first = threading.Thread(target=running.get, args=(PATH,), kwargs={"post": body()})
        first.start()
        assert begun.wait(10)
        asked = body(model="made", stream=stream)
        second = threading.Thread(target=lambda: answers.append(refused(running, asked)))
        second.start()
        until(lambda: len(old.reasoner.prompts) == 2)
        assert running.get("/reload", post=b"")[0] == 200
        until(lambda: running.server.room.gpu.busy_s() > 0)
        go.set()
        for thread in (first, second):
            thread.join(10)
        # As it is said to one that comes now, but for the bug's text
        assert answers == [refused(running, asked)] == [expected]


def test_who_takes_nothing_of_a_stream_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motedge.serve.chat_endpoint.SEND_S", 0.2)
    reasoner = MadeReasoner("a" * 100_000, words=1000)
    with served(resident(reasoner), chat=True) as running, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", running.server.port))
        question = body(stream=True)
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(question)}\r\n\r\n"
        plain.sendall(head.encode() + question)
        until(lambda: running.server._questions.open == 1)
        until(lambda: running.server._questions.open == 0)
        until(lambda: running.server.room.gpu.busy_s() == 0 and running.server.room.gpu._chat is None)
        assert 'motedge_chats_total{outcome="cancelled"} 1.0' in running.get("/metrics")[1]


def test_no_room_for_a_video_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    video = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    with served(resident(MadeReasoner()), chat=True) as running:
        assert running.get(PATH, post=body(video))[0] == 400
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
        status, text = error(running.get(PATH, post=body(video)))
        assert status == 503 and text.startswith("there is no room for the video") and str(tmp_path) not in text
        monkeypatch.undo()
        assert running.get(PATH, post=body())[0] == 200


def test_what_the_server_can_not_do_is_not_the_questions_fault() -> None:
    trouble: list[Exception] = [HostError("no memory"), RuntimeError("/secret/path")]

    def fail() -> None:
        if trouble:
            raise trouble.pop(0)

    with served(resident(MadeReasoner(work=fail)), chat=True) as running:
        assert error(running.get(PATH, post=body())) == (500, "no memory")
        assert error(running.get(PATH, post=body())) == (500, "the reasoner failed; see the server's log")
        assert running.get(PATH, post=body())[0] == 200


def test_a_bug_while_a_question_is_read_is_told_in_openais_form() -> None:
    reasoner = MadeReasoner()
    reasoner.look = lambda images: 1 / 0
    with served(resident(reasoner), chat=True) as running:
        assert error(running.get(PATH, post=body())) == (500, "the server failed; its log says more")


def test_a_question_that_comes_too_early_is_told_when_to_come_again() -> None:
    go = threading.Event()

    def load(number: int) -> MadeResident:
        go.wait(10)
        return resident(MadeReasoner())

    with served(load, chat=True, wait=False) as running:
        try:
            assert refused(running, body()) == (503, None, "1")
        finally:
            go.set()
        until(lambda: running.get(PATH, post=body())[0] == 200)


def test_engines_that_are_not_wanted_are_freed_beside_the_event_loop() -> None:
    go, other = threading.Event(), MadeResident(2)
    other.metadata["rate_hz"] = 30.0
    closed_by: list[str] = []

    def close() -> None:
        closed_by.append(threading.current_thread().name)
        go.wait(10)

    other.close = close  # type: ignore[method-assign]
    answers: list[tuple[int, str]] = []
    with served(lambda number: MadeResident() if number == 1 else other) as running:
        reload = threading.Thread(target=lambda: answers.append(running.get("/reload", post=b"")))
        reload.start()
        until(lambda: bool(closed_by))
        began_s = time.monotonic()
        assert running.get("/healthz")[0] == 200 and time.monotonic() - began_s < 5
        go.set()
        reload.join(10)
    assert answers[0][0] == 409 and closed_by == ["motedge-load"]
