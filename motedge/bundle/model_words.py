"""What a bundle is, for titles: its model, and the embodiment that it acts for."""

from __future__ import annotations

from typing import Optional

# The variant of every checkpoint with a policy is named after this embodiment, whichever it was trained on
_NAMESAKE, _SUFFIX = "droid_lerobot", " policy-droid"


def plain_model(model: str, embodiment: Optional[str]) -> str:
    """The model, not called after an embodiment that the bundle is not of: "edge policy-droid", or "edge policy".

    Args:
        model: family and variant of the manifest.
        embodiment: of its policy; None: not recorded.
    """
    foreign = embodiment not in (None, _NAMESAKE) and model.endswith(_SUFFIX)
    return model[: -len("-droid")] if foreign else model


def model_words(model: str, embodiment: Optional[str]) -> str:
    """The title: "edge policy-droid, embodiment droid_lerobot", or "edge policy, embodiment av". See `plain_model`."""
    return plain_model(model, embodiment) + ("" if embodiment is None else f", embodiment {embodiment}")
