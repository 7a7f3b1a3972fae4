"""A bundle's reasoner and policy together: what the generator is given, when, and from whose weights."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quant_scene import observation

from motedge.bundle import Bundle
from motedge.cli.main import main
from motedge.errors import UsageError
from motedge.media.image import write_image
from motedge.runtime.policy import load_policy
from motedge.runtime.reasoned.loader import load_reasoned_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy
from motedge.runtime.reasoner.sampling import Sampler
from motedge.runtime.text.codec import TextCodec

CUP = json.dumps({"plan": ["lift the cup", "put it down"]})
DRAWER = json.dumps({"plan": ["open the drawer"]})


@pytest.fixture(scope="module")
def bundle(reasoned_bundle: Path) -> Path:
    return reasoned_bundle


@pytest.fixture
def write(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the reasoner choose the tokens of a text, whatever its logits say; everything else stays as it is."""
    opened = Bundle.open(bundle)
    codec = TextCodec.read(opened.path("tokenizer"))
    eos = opened.manifest.model["special_tokens"]["eos"]

    def script(text: str) -> None:
        tokens = [*codec.encode(text).tolist(), eos]
        assert codec.tokenizer.decode(tokens[:-1], skip_special_tokens=False) == text
        monkeypatch.setattr(Sampler, "next", lambda sampler, logits: tokens[len(_said(sampler))])

    def _said(sampler: Sampler) -> list[int]:
        said: list[int] = sampler.__dict__.setdefault("said", [])
        said.append(0)
        return said[1:]

    return script


@pytest.fixture
def load(bundle: Path) -> Iterator[Callable[..., ReasonedPolicy]]:
    opened = []

    def open_one(**options: Any) -> ReasonedPolicy:
        acting = load_reasoned_policy(bundle, ReasonOptions(**options), check="size", threads=1, steps=2)
        opened.append(acting)
        return acting

    yield open_one
    for acting in opened:
        acting.close()


def test_the_text_changes_the_actions_and_nothing_else_does(
    bundle: Path, load: Callable[..., ReasonedPolicy], write: Callable[[str], None]
) -> None:
    seen, acting, chunks = observation(), load(), []
    for text in (CUP, DRAWER, f"Sure! {CUP}"):
        write(text)
        chunks.append(acting.act(seen, seed=3))
    first, other, again = chunks
    assert first.reasoning.answer == CUP and not first.reasoning.fell_back
    assert np.abs(first.actions - other.actions).max() > 1e-4
    # Another answer with the same plan is the same text
    np.testing.assert_array_equal(first.actions, again.actions)
    # Neither the reasoner nor its weights leave a trace: a policy that is told the text acts alike
    with load_policy(bundle, check="size", threads=1, steps=2) as alone:
        told = alone.act(dataclasses.replace(seen, instruction="put the cup down. lift the cup. put it down."), seed=3)
        np.testing.assert_allclose(first.actions, told.actions, rtol=0, atol=1e-5)
        plain = alone.act(seen, seed=3)
    assert np.abs(first.actions - plain.actions).max() > 1e-4
    # What random weights write by themselves is no plan
    write("no plan at all")
    fallen = acting.act(seen, seed=3)
    assert fallen.reasoning.fell_back and "no JSON object" in fallen.reasoning.problem
    np.testing.assert_allclose(fallen.actions, plain.actions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("slices", [{"slice_tokens": 4}, {"slice_ms": 5.0}])
def test_the_change_over_costs_no_prefill(
    load: Callable[..., ReasonedPolicy], write: Callable[[str], None], slices: dict[str, Any]
) -> None:
    acting = load(every=1000, **slices)
    write(CUP)
    prefills, lengths, plans = [], [], []
    for _ in range(400):
        chunk = acting.act(observation(), seed=3)
        prefills.append(chunk.details["prefills"])
        lengths.append(chunk.details["und_len"])
        plans.append(chunk.reasoning.plan)
        if chunk.reasoning.plan is not None:
            break
        acting.think()
    # Both branches once, at the first tick; the plan's prompt is another one, and was made ready between ticks
    assert prefills[0] == 2 and not any(prefills[1:]) and len(prefills) > 4
    assert lengths[-1] > lengths[-2] and plans[-2:] == [None, json.loads(CUP)]
    # Thinking in slices leaves the same text and the same actions as thinking at once
    whole = load().act(observation(), seed=3)
    assert whole.reasoning.prompt == chunk.reasoning.prompt
    np.testing.assert_array_equal(whole.actions, chunk.actions)


def test_acting_meanwhile_does_not_disturb_the_thought(load: Callable[..., ReasonedPolicy]) -> None:
    """Both towers take turns on the same weights; the tokens are those of a reply without a break."""
    acting, whole = load(every=1000, slice_tokens=3, max_tokens=24), load(max_tokens=24)
    expected = whole.act(observation(), seed=3).reasoning
    acting.act(observation(), seed=3)
    while acting.think():
        acting.act(observation(1), seed=4)
    said = acting.act(observation(), seed=3).reasoning
    assert (said.answer, said.tokens, said.ended) == (expected.answer, expected.tokens, expected.ended)
    assert said.tokens == 24 or said.ended == "stop"


def test_the_reasoner_sees_the_image(load: Callable[..., ReasonedPolicy]) -> None:
    acting = load(max_tokens=24)
    answers = {acting.act(observation(seed), seed=3).reasoning.answer for seed in range(3)}
    assert len(answers) > 1


def _generate(bundle: Path, *arguments: str) -> dict[str, Any]:
    """The document of one request of two steps."""
    target = bundle.parent / "made.json"
    common = ["--out", str(target), "--check", "size", "--threads", "1", "--steps", "2", "--seed", "5"]
    assert main(["generate", arguments[0], str(bundle), *arguments[1:], *common]) == 0
    document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


def test_an_image_from_a_caption_that_the_reasoner_wrote(
    bundle: Path, write: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    caption = {"subjects": "a red cup", "lighting": "dim"}
    write(json.dumps(caption))
    made = _generate(bundle, "text2image", "--prompt", "a cup", "--reason")
    assert made["reasoning"]["plan"] == caption and made["prompt"] == made["reasoning"]["prompt"]
    assert "reasoner     " in capsys.readouterr().out
    # The same as if the caption had been given; JSON is not asked about again
    told = _generate(bundle, "text2image", "--prompt", json.dumps(caption), "--reason")
    assert told["reasoning"]["tokens"] == 0 and "JSON object already" in told["reasoning"]["problem"]
    plain = _generate(bundle, "text2image", "--prompt", "a cup")
    assert made["prompt_tokens"] == told["prompt_tokens"] > plain["prompt_tokens"] and "reasoning" not in plain
    # What the model writes by itself is cut, and the prompt stays
    write("word " * 40)
    cut = _generate(bundle, "text2image", "--prompt", "a cup", "--reason", "--reason-tokens", "9")
    assert (cut["reasoning"]["ended"], cut["reasoning"]["tokens"], cut["prompt"]) == ("length", 9, "a cup")
    assert "the plain prompt stands in" in capsys.readouterr().err


def test_actions_from_a_plan(bundle: Path, write: Callable[[str], None], tmp_path: Path) -> None:
    image = tmp_path / "seen.png"
    write_image(image, np.full((84, 107, 3), 90, np.uint8))
    given = ["policy", "--image", str(image), "--embodiment", "av", "--frames", "9"]
    write(DRAWER)
    planned = _generate(bundle, *given, "--prompt", "go", "--reason")
    told = _generate(bundle, *given, "--prompt", "go. open the drawer.")
    plain = _generate(bundle, *given, "--prompt", "go")
    assert planned["prompt"] == "go. open the drawer."
    np.testing.assert_allclose(planned["actions"], told["actions"], rtol=0, atol=1e-4)
    assert np.abs(np.array(planned["actions"]) - plain["actions"]).max() > 1e-4


def test_the_benchmarks_figures(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    module = importlib.import_module("reasoned_ticks")
    monkeypatch.setattr(module, "make_bundle", lambda *_: Bundle.open(bundle))
    monkeypatch.setattr(module, "WAYS", {name: module.WAYS[name] for name in ("whole", "8 tokens")})
    try:
        assert module.main(["--work", str(tmp_path), "--results", str(tmp_path), "--threads", "1"]) == 0
    finally:
        for name in ("reasoned_ticks", "conditions"):
            sys.modules.pop(name, None)
    result = json.loads((tmp_path / "reasoned_ticks.json").read_text(encoding="utf-8"))
    whole, sliced = result["rows"]
    assert "random" in result["note"] and whole["slice_ms_median"] is None
    assert (whole["ticks_until_plan"], sliced["prefills_at_change"]) == (0, 0)
    assert 1 < sliced["ticks_until_plan"] < sliced["reply_tokens"] == whole["reply_tokens"]


def test_in_the_background_on_the_host(bundle: Path) -> None:
    with pytest.raises(UsageError, match="written in the background"):
        load_reasoned_policy(bundle, ReasonOptions(background=True), check="size", threads=1)
