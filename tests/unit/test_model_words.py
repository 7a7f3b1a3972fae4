"""Titles name the embodiment that a bundle acts for, not the one that its checkpoint's variant is called after."""

from __future__ import annotations

from typing import Optional

import pytest

from motedge.bundle.model_words import model_words, plain_model
from motedge.profile.conditions import bundle_words


@pytest.mark.parametrize(
    ("model", "embodiment", "plain", "whole"),
    [
        ("edge policy-droid", "droid_lerobot", "edge policy-droid", "edge policy-droid, embodiment droid_lerobot"),
        ("edge policy-droid", "av", "edge policy", "edge policy, embodiment av"),
        ("nano base", "av", "nano base", "nano base, embodiment av"),
        ("edge policy-droid", None, "edge policy-droid", "edge policy-droid"),
    ],
)
def test_titles(model: str, embodiment: Optional[str], plain: str, whole: str) -> None:
    assert plain_model(model, embodiment) == plain
    assert model_words(model, embodiment) == whole


def test_identities_of_before_have_no_embodiment() -> None:
    before = {"model": "edge policy-droid", "shape_set": "droid"}
    assert bundle_words(before) == "edge policy-droid, shape set droid"
    assert bundle_words({**before, "embodiment": "av"}) == "edge policy, embodiment av, shape set droid"
