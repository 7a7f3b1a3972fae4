"""motedge run --reason on fakes: what it prints and writes, how it thinks between requests, what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_fakes import CONTRACT, make_policy
from scripted_reasoner import ScriptedReasoner

import motedge.runtime.reasoned.loader
from motedge.cli.main import main
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import write_observation
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import with_reasoning

pytest.importorskip("PIL")
ANSWER = json.dumps({"plan": ["Open it slowly"]})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    views = {"wrist": np.full((360, 640, 3), 9, np.uint8)}
    write_observation(tmp_path / "seen", Observation(np.zeros(7), 0.25, "Open the drawer", views=views))
    return str(tmp_path / "seen")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[ReasonOptions]:
    """Puts fakes in the place of the bundle; returns the options of each loading."""
    calls: list[ReasonOptions] = []

    def load(bundle: str, options: ReasonOptions, **more: Any) -> Any:
        calls.append(options)
        longer = dataclasses.replace(CONTRACT, profile={"U": (2, 16, 200)})
        policy = make_policy(gen_contract=longer)[0]
        policy._tick.prepares_aside = True
        return with_reasoning(policy, ScriptedReasoner(ANSWER), options)

    monkeypatch.setattr(motedge.runtime.reasoned.loader, "load_reasoned_policy", load)
    return calls


def test_both_texts_are_shown(folder: str, loaded: list[ReasonOptions], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "b", "--observation", folder, "--reason"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"reasoner     {ANSWER!r} (4 tokens)" in printed and "Open the drawer. Open it slowly." in printed
    assert "reasoner, within the tick" in printed
    # Cut before its end
    assert main([*command, "--reason-tokens", "2"]) == 0
    printed = capsys.readouterr().out
    assert "2 tokens, cut at the limit" in printed and "no plan      no JSON object" in printed
    assert [options.max_tokens for options in loaded] == [None, 2]


def test_slices_between_requests(folder: str, loaded: list[ReasonOptions], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "b", "--observation", folder, "--reason", "--reason-every", "50", "--reason-slice", "4"]
    assert main([*command, "--repeat", "6", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reasoning"]["fell_back"]
    first, then = document["reasoning_changes"]
    # 9 steps: the question, the prompt's pieces, the words, their end, what follows from them
    assert (first["request"], then["request"], then["age_ticks"]) == (0, 3, 3) and then["answer"] == ANSWER
    assert (loaded[0].every, loaded[0].slice_tokens, loaded[0].slice_ms) == (50, 4, None)


@pytest.mark.parametrize("deadline", [[], ["--deadline-ms", "5000"]])
def test_in_the_background(
    folder: str, loaded: list[ReasonOptions], capsys: pytest.CaptureFixture[str], deadline: list[str]
) -> None:
    command = ["run", "b", "--observation", folder, "--reason", "--reason-every", "99", "--reason-background"]
    assert main([*command, *deadline, "--repeat", "300", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    # Whichever request is the first to have it
    assert document["reasoning_changes"][-1]["answer"] == ANSWER and loaded[0].background


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reason", "--reason-slice", "3", "--reason-background"], "in the background or in slices"),
        (["--reason-every", "2"], "--reason-every is for the reasoner"),
        (["--reason", "--reason-every", "0"], "every of the reasoning is wrong"),
        (["--reason", "--reason-slice-ms", "-1"], "slice_ms of the reasoning is wrong"),
        (["--reason", "--reason-mode", "plans"], "did you mean 'plan'"),
        (["--reason", "--deadline-ms", "100"], "don't go together"),
    ],
)
def test_refused(
    folder: str, loaded: list[ReasonOptions], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    try:
        code = main(["run", "b", "--observation", folder, *arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == 2 and words in capsys.readouterr().err and not loaded
