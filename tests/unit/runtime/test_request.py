from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import ContractError, UsageError
from motedge.runtime.request import SamplerSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_clean": np.zeros((2, 3, 3, 4))}, "vision_clean has the wrong type"),
        ({"vision_clean": [[1.0]]}, "vision_clean has the wrong type"),
        ({"vision_clean": np.full((2, 3, 3, 4), np.nan, np.float32)}, "NaN"),
        ({"action_clean": np.full((5, 4), np.inf, np.float32)}, "NaN or infinity"),
        ({"vision_noisy": np.ones(4, np.float32)}, "vision_noisy has the wrong length"),
        ({"action_noisy": np.ones(4, np.float32)}, "action_noisy has the wrong length"),
        ({"action_noisy": np.full(5, 0.5, np.float32)}, "not a mask"),
        ({"cond_tokens": np.zeros(3, np.int32)}, "cond_tokens has the wrong type"),
        ({"uncond_tokens": np.zeros((1, 3), np.int64)}, "uncond_tokens has the wrong type"),
    ],
)
def test_refuses_arrays(gen_inputs, changes, message) -> None:
    with pytest.raises(ContractError, match=message):
        gen_inputs(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0.0}, "fps is wrong"),
        ({"fps": float("nan")}, "fps is wrong"),
        ({"fps_action": -1.0}, "fps_action is wrong"),
        ({"raw_dim": 0}, "raw_dim"),
        ({"raw_dim": 5}, "raw_dim"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_refuses_numbers(gen_inputs, changes, message) -> None:
    with pytest.raises(UsageError, match=message):
        gen_inputs(**changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "denoising steps"),
        ({"steps": 2.5}, "denoising steps"),
        ({"steps": True}, "denoising steps"),
        ({"shift": -1.0}, "flow shift"),
        ({"guidance": float("nan")}, "guidance scale"),
        ({"guidance_interval": (5, 1)}, "interval is empty"),
    ],
)
def test_refuses_settings(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        SamplerSettings(**settings)


def test_an_interval_from_json() -> None:
    assert SamplerSettings(guidance_interval=[960, 1001]) == SamplerSettings(guidance_interval=(960, 1001))
