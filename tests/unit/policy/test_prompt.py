"""Prompts against the frozen vectors, byte for byte."""

from __future__ import annotations

import json

import pytest
from droid_vectors import vectors

from motedge.errors import UsageError
from motedge.runtime.policy.prompt import FORMATS, Clip, build_prompt

DROID = Clip(frames=33, fps=15.0, canvas=(544, 736))


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("case", vectors()["prompts"], ids=lambda case: repr(case["instruction"][:30]))
def test_droid_prompts(case, prompt_format: str) -> None:
    assert build_prompt(case["instruction"], DROID, prompt_format) == case[prompt_format]


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("case", vectors()["prompts_other"], ids=lambda case: f"{case['frames']}@{case['fps']}")
def test_other_clips(case, prompt_format: str) -> None:
    clip = Clip(case["frames"], case["fps"], tuple(case["image_size"][:2]))
    assert build_prompt(case["instruction"], clip, prompt_format) == case[prompt_format]


def test_json_form_is_json_in_the_trained_order() -> None:
    keys = ["cinematography", "actions", "duration", "fps", "resolution", "aspect_ratio"]
    assert list(json.loads(build_prompt("go", DROID))) == keys


@pytest.mark.parametrize(("canvas", "ratio"), [((768, 512), "2,3"), ((1088, 832), "13,17"), ((48, 96), "2,1")])
def test_aspect_ratio(canvas: tuple[int, int], ratio: str) -> None:
    """Nominal where the canvas is one of the trained ones, reduced otherwise."""
    expected = {"13,17": "3,4"}.get(ratio, ratio)
    assert json.loads(build_prompt("go", Clip(33, 15.0, canvas)))["aspect_ratio"] == expected


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match="did you mean 'json'"):
        build_prompt("go", DROID, "jsno")
