"""One branch of classifier-free guidance: a context of gen_step with its prompt's K, V and rotary tables bound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from motedge.errors import InternalError
from motedge.runtime.engine import Array, Context, Engine, FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.gen_state import GenState
from motedge.runtime.tables import EmbodimentWeights


class GenBranch:
    """Keeps its context while the sizes stay; the prompt lengths of the two branches differ, so each has its own."""

    def __init__(self, name: str, engine: Engine) -> None:
        """`name`: "conditional" or "unconditional", for messages."""
        self.name = name
        self._engine = engine
        self._context: Optional[Context] = None
        self._dims: Mapping[str, int] = {}
        # "gen_step", or "gen_step_sound"
        self._graph = engine.contract.graph
        self._with_sound = "J" in engine.contract.profile

    def bind(
        self,
        dims: Mapping[str, int],
        state: GenState,
        rotary: tuple[FloatArray, FloatArray],
        und_kv: Array,
        weights: EmbodimentWeights,
    ) -> None:
        """Binds everything that a tick needs; costs nothing for what is bound already.

        Raises:
            ContractError: sizes outside the graph's profile, or an array that differs from its contract.
        """
        if self._context is None or self._dims != dims:
            self._context, self._dims = self._engine.context(dims), dict(dims)
        inputs: dict[str, Array] = {
            "vision": state.vision,
            "action": state.action,
            "vision_noisy": state.vision_noisy,
            "action_noisy": state.action_noisy,
            "t": state.t,
            "cos": rotary[0],
            "sin": rotary[1],
            "und_kv": und_kv,
            "action_in_weight": weights.in_weight,
            "action_in_bias": weights.in_bias,
            "action_out_weight": weights.out_weight,
            "action_out_bias": weights.out_bias,
        }
        if self._with_sound:
            inputs.update(sound=state.sound, sound_noisy=state.sound_noisy)
        for name, value in inputs.items():
            self._context.set_input(name, value)

    def forward(self, step: int) -> tuple[FloatArray, ...]:
        """Runs the graph on what is bound; returns all velocities, valid until the next forward.

        They are those of vision, action and, where the graph has it, sound.

        Raises:
            NonFiniteError: NaN or infinity; names the step and the branch.
        """
        if self._context is None:
            raise InternalError(f"the {self.name} branch was run before it was bound")
        self._context.run()
        modalities = ("vision", "action", "sound") if self._with_sound else ("vision", "action")
        velocities = tuple(self._context.output(f"{name}_velocity") for name in modalities)
        for velocity in velocities:
            check_finite(velocity, f"graph {self._graph!r} returned NaN or infinity at step {step}, {self.name} branch")
        return velocities
