"""What the reasoner's loop needs of engines: the understanding tower and the vision encoder, whatever runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.visual_input import VisualInput


@dataclass(frozen=True)
class VisualTokens:
    """What the vision encoder makes of one image or clip."""

    # fp32 [n, H], in order of the placeholders
    tokens: FloatArray
    # Nano and Super: what is added after each of the first layers, fp32 [layers, n, H]
    deepstack: Optional[FloatArray] = None


class VisionTower(Protocol):
    """Patches to visual tokens."""

    def encode(self, visual: VisualInput) -> VisualTokens:
        """Tokens of one image or clip; frames do not see each other."""
        ...


class UndStep(Protocol):
    """The understanding tower with the K and V of what it was given: prompt first, then token by token."""

    @property
    def capacity(self) -> int:
        """Tokens whose K and V it can hold."""
        ...

    @property
    def max_new(self) -> int:
        """Tokens of one step; a longer prompt comes in several."""
        ...

    def step(
        self,
        embeddings: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        start: int,
        deepstack: Optional[FloatArray],
    ) -> FloatArray:
        """Logits of the token after the last new one.

        Args:
            embeddings: fp32 [S, H].
            cos: fp32 [S, R].
            sin: fp32 [S, R].
            start: tokens held already; what was held beyond is forgotten, with 0 all of it.
            deepstack: fp32 [layers, S, H], zero for text; None if no token of the prompt is visual.

        Returns:
            fp32 [V], the caller's until the next step.
        """
        ...
