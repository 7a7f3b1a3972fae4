"""motedge reason: what is asked, what is streamed where, and refusals before anything is loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motedge.cli.main import main
from motedge.runtime.policy import GpuOptions
from motedge.runtime.reasoner import loader
from motedge.runtime.reasoner.events import LENGTH, Finished, Started
from motedge.runtime.reasoner.thinking import ANSWER, THINKING, Part
from motedge.runtime.reasoner.vision_settings import EDGE


class Scripted:
    """A reasoner that thinks, then answers."""

    settings = EDGE
    capacity = 16_384

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.closed = False

    def ask(self, text: str, **more: Any) -> Any:
        self.asked.append((text, more))
        yield Started(30, 12, 5.0, 7.0)
        yield from (Part(THINKING, "hm "), Part(THINKING, "so"), Part(ANSWER, "left "), Part(ANSWER, "把"))
        yield Finished(LENGTH, "hm so", "left 把", (4, 5, 6, 7), 20.0)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> tuple[Scripted, list[dict[str, Any]]]:
    """The reasoner, and how it was loaded."""
    reasoner, calls = Scripted(), []
    monkeypatch.setattr(loader, "load_reasoner", lambda bundle, **given: calls.append(given) or reasoner)
    return reasoner, calls


def test_answer_and_thoughts_go_apart(loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reason", "b", "--prompt", "where?"]) == 0
    out, err = capsys.readouterr()
    assert out == "left 把\n"
    assert err.startswith("hm so\nprompt   30 tokens, 12 of them visual, vision encoder 5 ms, prefill 7 ms\n")
    assert "4 tokens, 5 ms a token, cut at the limit" in err
    assert loaded[0].closed


def test_json(loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reason", "b", "--prompt", "where?", "--json"]) == 0
    out, err = capsys.readouterr()
    reply = json.loads(out)
    assert not err
    assert (reply["answer"], reply["thinking"], reply["reason"]) == ("left 把", "hm so", "length")
    assert reply["token_ids"] == [4, 5, 6, 7] and reply["timings_ms"]["per_token_ms"] == 5


def test_options_of_the_gpu_reach_the_reasoner(loaded: Any) -> None:
    assert main(["reason", "b", "--prompt", "p"]) == 0
    options = "--engine tensorrt --capacity 4096 --target t --gpu 1 --priority low --no-cuda-graph --trust-engines"
    assert main(["reason", "b", "--prompt", "p", *options.split(), "--weight-budget-gb", "1.5"]) == 0
    plain, given = loaded[1]
    assert (plain["capacity"], plain["gpu"]) == (None, GpuOptions())
    assert (given["engine"], given["capacity"]) == ("tensorrt", 4096)
    assert given["gpu"] == GpuOptions("t", 1, "low", cuda_graph=False, trust_host_code=True, weight_budget_gb=1.5)
    assert main(["reason", "b", "--prompt", "p", "--gpu", "-1"]) == 2


def test_options_reach_the_reasoner(loaded: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((8, 9, 3), 7, np.uint8)).save(tmp_path / "a.png")
    options = "--system s --no-think --temperature 0.7 --top-k 20 --top-p 0.8 --presence-penalty 1.5 --seed 3 "
    options += "--max-tokens 9 --variant v --recipe r --threads 2 --check size"
    assert main(["reason", "b", "--prompt", "p", "--image", str(tmp_path / "a.png"), *options.split()]) == 0
    (text, asked), how = loaded[0].asked[0], loaded[1][0]
    assert (text, asked["system"], asked["thinking"]) == ("p", "s", False)
    assert [image.shape for image in asked["images"]] == [(8, 9, 3)]
    chosen = asked["options"]
    assert (chosen.temperature, chosen.top_k, chosen.top_p, chosen.presence_penalty) == (0.7, 20, 0.8, 1.5)
    assert (chosen.seed, chosen.max_new_tokens) == (3, 9)
    named = {"engine": "onnxruntime", "variant": "v", "recipe": "r", "threads": 2, "check": "size"}
    assert how == {**named, "capacity": None, "gpu": GpuOptions()}


def test_defaults(loaded: Any) -> None:
    assert main(["reason", "b", "--prompt", "p"]) == 0
    asked = loaded[0].asked[0][1]
    assert asked["thinking"] is None and asked["system"] is None
    assert (asked["options"].temperature, asked["options"].max_new_tokens) == (0.0, 1024)


def test_the_prompt_may_come_from_stdin(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what now?"))
    assert main(["reason", "b", "--prompt", "-"]) == 0
    assert loaded[0].asked[0][0] == "what now?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "p", "--image", "absent.png"], "there is no image absent.png"),
        (["--prompt", "p", "--temperature", "-1"], "temperature is wrong"),
        (["--prompt", "p", "--top-p", "2"], "top_p is wrong"),
        (["--prompt", "p", "--max-tokens", "0"], "max_new_tokens is wrong"),
    ],
)
def test_refused_before_loading(
    loaded: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reason", "b", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not loaded[1]


def test_videos_that_are_none(loaded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    assert main(["reason", "b", "--prompt", "p", "--video", "absent.mp4"]) == 2
    assert "there is no video" in capsys.readouterr().err
    (tmp_path / "text.mp4").write_text("no video")
    assert main(["reason", "b", "--prompt", "p", "--video", str(tmp_path / "text.mp4")]) == 2
    assert "not a video that can be read" in capsys.readouterr().err
