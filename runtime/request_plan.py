"""What a request needs before anything is computed: its prompts, its sizes, and whether the graphs take them."""

from __future__ import annotations

from collections.abc import Sequence

from motedge.bundle import Contract
from motedge.errors import ContractError, UsageError
from motedge.runtime.engine import IntArray
from motedge.runtime.guidance import GuidancePlan
from motedge.runtime.request import GenInputs, Schedule
from motedge.runtime.rope import GenLayout


def prompts_of(inputs: GenInputs, plan: GuidancePlan, schedule: Schedule) -> list[IntArray]:
    """The prompts that the schedule needs: the unconditional one only where guidance is active at some step.

    Raises:
        UsageError: it is needed and the request has none.
    """
    if plan.forwards(schedule.timesteps.tolist()) == schedule.steps:
        return [inputs.cond_tokens]
    if inputs.uncond_tokens is None:
        raise UsageError(
            "guidance needs an unconditional prompt",
            expected="uncond_tokens (the empty instruction in the chat template)",
            got="none",
            fix="give them, or set guidance to 1",
        )
    return [inputs.cond_tokens, inputs.uncond_tokens]


def check_request(inputs: GenInputs, prompts: Sequence[IntArray], contract: Contract) -> None:
    """Holds shapes and lengths against the contract of gen_step, or of gen_step_sound.

    Raises:
        ContractError: another shape, or a length outside the profile.
    """
    counts = {"T": inputs.vision_noisy.size, "A": inputs.action_noisy.size}
    if "J" in contract.profile:
        counts["J"] = inputs.sound_latents
    elif inputs.sound_latents:
        raise ContractError(
            f"graph {contract.graph!r} makes no sound",
            expected="sound_latents 0, or graph 'gen_step_sound'",
            got=inputs.sound_latents,
            fix="export a Nano or Super checkpoint with --extras sound",
        )
    for tokens in prompts:
        contract.check_dims({"U": tokens.size, **counts})
    sizes = {**contract.sizes, **counts}
    for name, value in (("vision", inputs.vision_clean), ("action", inputs.action_clean)):
        expected = contract.tensor(name).shape(sizes)
        if value.shape != expected:
            raise ContractError(
                f"{name}_clean does not fit graph {contract.graph!r}",
                expected=list(expected),
                got=list(value.shape),
                fix="use the shape set that the bundle was exported for",
            )


def gen_dims(inputs: GenInputs, und_len: int, patch: int) -> dict[str, int]:
    """The dynamic sizes of gen_step for a prompt of `und_len` tokens; `patch`: latent pixels of a token's side."""
    _, frames, rows, columns = inputs.vision_clean.shape
    actions, sound = inputs.action_clean.shape[0], inputs.sound_latents
    tokens = frames * -(-rows // patch) * -(-columns // patch) + actions + sound
    return {"T": frames, "A": actions, "U": und_len, "N": tokens, **({"J": sound} if sound else {})}


def gen_layout(inputs: GenInputs, und_len: int) -> GenLayout:
    """What the generator's positions depend on, for a prompt of `und_len` tokens."""
    _, frames, rows, columns = inputs.vision_clean.shape
    fps_action = inputs.fps if inputs.fps_action is None else inputs.fps_action
    offset, actions = inputs.action_start_offset, inputs.action_clean.shape[0]
    return GenLayout(
        und_len, frames, rows, columns, actions, inputs.fps, fps_action, offset, sound=inputs.sound_latents
    )
