"""Prompts of the generator, word for word."""

from __future__ import annotations

import json

import pytest

from motedge.errors import UsageError
from motedge.runtime.generate.caption import Take, action_caption, media_caption, negative_caption
from motedge.runtime.policy.embodiments import find_embodiment

VIDEO = Take(189, 24.0, (720, 1280))
IMAGE = Take(1, 24.0, (640, 640))


def test_sentences_behind_a_plain_prompt() -> None:
    assert media_caption(" A cube.. ", VIDEO) == (
        "A cube. The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."
    )
    assert media_caption("A cube", IMAGE) == "A cube. This image is of 640x640 resolution."
    assert media_caption("", IMAGE) == "This image is of 640x640 resolution."
    # Brackets alone make no JSON object
    assert media_caption("{a cube}", IMAGE) == "{a cube}. This image is of 640x640 resolution."


def test_facts_in_a_json_prompt() -> None:
    prompt = '{"lighting": "soft \\u00e9", "duration": "99s", "fps": 1}'
    assert media_caption(prompt, VIDEO) == (
        '{"lighting": "soft \\u00e9", "duration": "7s", "fps": 24.0, "resolution": {"H": 720, "W": 1280}, '
        '"aspect_ratio": "16,9"}'
    )
    caption = media_caption(prompt, IMAGE)
    assert list(json.loads(caption)) == ["lighting", "resolution", "aspect_ratio"]
    # A list is no caption
    assert media_caption("[1]", IMAGE).startswith("[1]. This image")


def test_the_negative_prompt() -> None:
    assert negative_caption("blurry", VIDEO) == "blurry"
    assert negative_caption("", VIDEO) == ""
    assert negative_caption("blurry", VIDEO, "inverse") == (
        "blurry. The video is not 7.9 seconds long and is not of 24 FPS. This video is not of 720x1280 resolution."
    )
    assert negative_caption("", IMAGE, "inverse") == "This image is not of 640x640 resolution."
    with pytest.raises(UsageError, match="did you mean 'inverse'"):
        negative_caption("", IMAGE, "invers")


def test_the_prompt_of_actions() -> None:
    framing = find_embodiment("av").framing()
    caption = action_caption(" turn left ", Take(61, 10.0, (480, 832)), framing)
    assert caption == (
        '{"cinematography": {"framing": "This video is captured from a first-person perspective looking at '
        'the scene."}, '
        '"actions": [{"time": "0:00-0:06", "description": "turn left."}], "duration": "6s", "fps": 10.0, '
        '"resolution": {"H": 480, "W": 832}, "aspect_ratio": "16,9"}'
    )
    bare = json.loads(action_caption("", Take(17, 5.0, (256, 256)), None))
    assert bare["actions"] == [{"time": "0:00-0:03", "description": ""}]
    assert "cinematography" not in bare
    assert action_caption("Stop!", VIDEO, None).count("Stop!") == 1
