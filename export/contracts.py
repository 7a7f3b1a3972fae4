"""The contracts of the exported graphs: every tensor, once, for export, runtime and builders alike."""

from __future__ import annotations

from motedge.bundle import Contract, TensorSpec
from motedge.checkpoint.config import ModelConfig
from motedge.export.shapes import ShapeSet
from motedge.runtime.device.layout import StateLayout

# Values of solver_step's input `coefficients`, in this order; see motedge.runtime.unipc_coefficients
SOLVER_COEFFICIENTS = (
    "sigma",
    "guidance",
    *("correct_x", "correct_c1", "correct_m0", "correct_m1", "correct_m2"),
    *("predict_c", "predict_m0", "predict_m1"),
)
_COS = "cosine of the rotary angles, computed on the host in fp32 from the shipped inv_freq table"
_SIN = "sine of the rotary angles"
# torch.export takes 0 and 1 for constants, and what is traced must be within the profile
_TRACED = 2
_UND_KV = "per layer K for the generator (index 0, normalised and rotated) and V (index 1) of the prompt"


def und_prefill(config: ModelConfig, shapes: ShapeSet) -> Contract:
    """Prompt embeddings -> K and V."""
    return Contract(
        graph="und_prefill",
        inputs=(
            TensorSpec("embeddings", ("S", "H"), "fp32", "rows of the embedding table, one per prompt token"),
            TensorSpec("cos", ("S", "R"), "fp32", _COS),
            TensorSpec("sin", ("S", "R"), "fp32", _SIN),
        ),
        outputs=(TensorSpec("und_kv", ("L", 2, "K", "S", "D"), "graph", _UND_KV),),
        sizes=_model_sizes(config),
        profile={"S": (2, shapes.opt_prompt_tokens, shapes.max_prompt_tokens)},
    )


def gen_step(config: ModelConfig, shapes: ShapeSet) -> Contract:
    """One denoising forward of the generator."""
    low = {"T": shapes.min_latent_frames, "A": shapes.min_actions}
    opt = {"T": max(_TRACED, shapes.latent_frames), "A": max(_TRACED, shapes.actions)}
    high = {"T": shapes.max_latent_frames, "A": shapes.max_actions}
    for sizes in (low, opt, high):
        sizes["N"] = sizes["T"] * shapes.tokens_per_frame + sizes["A"]
    embodiment = "of one embodiment, from its table; columns beyond its action width are zeroed by the host"
    return Contract(
        graph="gen_step",
        inputs=(
            TensorSpec("vision", ("C", "T", "h", "w"), "fp32", "noisy latent state; clean frames hold their latent"),
            TensorSpec(
                "action", ("A", "Z"), "fp32", "noisy action state; clean rows hold their values", "as embodiment"
            ),
            TensorSpec("vision_noisy", ("T",), "fp32", "1 for a noisy frame, 0 for a clean (conditioning) one"),
            TensorSpec("action_noisy", ("A",), "fp32", "1 for a noisy row, 0 for a clean one"),
            TensorSpec(
                "t", (1,), "fp32", "timestep, 0 to 1000; whole numbers except in distilled models", "sigma * 1000"
            ),
            TensorSpec("cos", ("N", "R"), "fp32", _COS),
            TensorSpec("sin", ("N", "R"), "fp32", _SIN),
            TensorSpec("und_kv", ("L", 2, "K", "U", "D"), "graph", _UND_KV),
            TensorSpec("action_in_weight", ("Z", "H"), "fp32", f"action input projection {embodiment}"),
            TensorSpec("action_in_bias", ("H",), "fp32", f"bias of the action input projection {embodiment}"),
            TensorSpec("action_out_weight", ("H", "Z"), "fp32", f"action output projection {embodiment}"),
            TensorSpec("action_out_bias", ("Z",), "fp32", f"bias of the action output projection {embodiment}"),
        ),
        outputs=(
            TensorSpec("vision_velocity", ("C", "T", "h", "w"), "fp32", "noise minus data; 0 on clean frames"),
            TensorSpec("action_velocity", ("A", "Z"), "fp32", "noise minus data; 0 on clean rows", "as embodiment"),
        ),
        sizes={**_model_sizes(config), "C": config.latent_channel, "Z": config.action_dim, **_grid(shapes)},
        profile={
            **{k: (low[k], opt[k], high[k]) for k in ("T", "A", "N")},
            "U": (2, shapes.opt_prompt_tokens, shapes.max_prompt_tokens),
        },
    )


def vae_encoder(config: ModelConfig, shapes: ShapeSet) -> Contract:
    """One image -> one latent frame."""
    return Contract(
        graph="vae_encoder",
        inputs=(TensorSpec("image", (1, 3, "Y", "X"), "fp32", "RGB canvas, padded by reflection", "-1 to 1"),),
        outputs=(
            TensorSpec(
                "latent", ("C", 1, "h", "w"), "fp32", "latent of the content, normalised by the VAE's statistics"
            ),
        ),
        sizes={"C": config.latent_channel, "Y": shapes.canvas[0], "X": shapes.canvas[1], **_grid(shapes)},
        profile={},
    )


def solver_step(config: ModelConfig, shapes: ShapeSet, most_sound: tuple[int, int] = (0, 0)) -> Contract:
    """One step of guidance and UniPC on the flat state; order 2, Cosmos 3's. `most_sound`: Q and the largest J."""

    def size(frames: int, rows: int, sound: tuple[int, int] = (0, 0)) -> int:
        return StateLayout((config.latent_channel, frames, *shapes.grid), (rows, config.action_dim), sound).size

    flat = ("M",)
    return Contract(
        graph="solver_step",
        inputs=(
            TensorSpec("state", flat, "fp32", "x_k, which was fed to the network; zero in the gaps"),
            TensorSpec("corrected", flat, "fp32", "c_{k-1}, next_corrected of the step before; zero at first"),
            TensorSpec("history", (2, "M"), "fp32", "m_{k-1} and m_{k-2}; zero where there is none yet"),
            TensorSpec("v_cond", flat, "fp32", "velocity of the conditional branch; zero in the gaps"),
            TensorSpec("v_uncond", flat, "fp32", "velocity of the unconditional branch, or v_cond without guidance"),
            TensorSpec("noisy", flat, "fp32", "1 where the state moves; 0 on clean positions, unused channels, gaps"),
            TensorSpec("clean", flat, "fp32", "what the state holds where noisy is 0: clean values, else zero"),
            TensorSpec("coefficients", (len(SOLVER_COEFFICIENTS),), "fp32", ", ".join(SOLVER_COEFFICIENTS)),
        ),
        outputs=(
            TensorSpec("next_state", flat, "fp32", "x_{k+1}"),
            TensorSpec("next_corrected", flat, "fp32", "c_k"),
            TensorSpec("next_history", (2, "M"), "fp32", "m_k and m_{k-1}"),
            TensorSpec("magnitude", (2,), "fp32", "sum of |v_cond| and of |v_uncond|; not finite if any velocity is"),
        ),
        sizes={},
        profile={
            "M": (
                size(shapes.min_latent_frames, shapes.min_actions),
                size(max(_TRACED, shapes.latent_frames), max(_TRACED, shapes.actions)),
                size(shapes.max_latent_frames, shapes.max_actions, most_sound),
            )
        },
    )


CONTRACTS = {
    "und_prefill": und_prefill,
    "gen_step": gen_step,
    "vae_encoder": vae_encoder,
    "solver_step": solver_step,
}


def _grid(shapes: ShapeSet) -> dict[str, int]:
    return {"h": shapes.grid[0], "w": shapes.grid[1]}


def _model_sizes(config: ModelConfig) -> dict[str, int]:
    return {
        "H": config.hidden_size,
        "L": config.num_hidden_layers,
        "K": config.num_key_value_heads,
        "D": config.head_dim,
        "R": config.head_dim // 2,
    }
