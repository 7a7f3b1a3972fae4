"""What the card's own libraries reach at a generator step's shapes: the measure of every other figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from gpu_modules import Attention
from gpu_scene import GpuScene, Report
from gpu_timing import StreamClock
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Weights are taken in turn, so that the last one's lie no longer in the L2 cache
_SETS = 4


def run(scene: GpuScene, report: Report) -> None:
    """Large products, the step's products, its attention, and the sums that follow."""
    clock = StreamClock(scene.device)
    shapes = step_shapes(scene)
    flop = step_flop(shapes)
    report.put("shapes", {**shapes, "flop_per_step": flop})
    side = 8192 if scene.device == "cuda" else 128
    for name, dtype in DTYPES.items():
        large = product_ms(clock, (side, side, side), dtype, scene)
        rate_tflops = 2 * side**3 / large["median_ms"] / 1e9
        found: dict[str, Any] = {"square": {**large, "side": side, "tflops": round(rate_tflops, 1)}}
        found["roofline_ms"] = round(flop["total"] / rate_tflops / 1e9, 3)
        products = {what: product_ms(clock, shape, dtype, scene) for what, shape in products_of(shapes).items()}
        attention = {what: _attempt(clock, kind, shapes, dtype, scene) for what, kind in ATTENTIONS.items()}
        times = [entry["median_ms"] for entry in attention.values() if "median_ms" in entry]
        found.update(products=products, attention=attention)
        if times:
            counts = {"q": 1, "kv": 2, "out": 1, "up": 1, "down": 1}
            layer = sum(counts[what] * entry["median_ms"] for what, entry in products.items()) + min(times)
            found["library_kernels_ms"] = round(shapes["layers"] * layer, 3)
        report.put(name, found)


def step_shapes(scene: GpuScene) -> dict[str, int]:
    """Sizes of one generator step of the bundle's policy."""
    frames, rows, columns = scene.bundle.manifest.shape_set["latent"]
    config = scene.config
    head = int(config["head_dim"])
    return {
        "tokens": frames * -(-rows // 2) * -(-columns // 2) + int(scene.bundle.manifest.policy["chunk"]) + 1,
        "und_len": int(scene.bundle.manifest.shape_set["opt_prompt_tokens"]),
        "hidden": int(config["hidden_size"]),
        "inner": int(config["intermediate_size"]),
        "heads": int(config["num_attention_heads"]),
        "kv_heads": int(config["num_key_value_heads"]),
        "head": head,
        "layers": int(config["num_hidden_layers"]),
    }


def products_of(s: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Name -> (rows, inner, columns) of a layer's matrix products; k and v are one shape, taken twice."""
    wide, narrow = s["heads"] * s["head"], s["kv_heads"] * s["head"]
    return {
        "q": (s["tokens"], s["hidden"], wide),
        "kv": (s["tokens"], s["hidden"], narrow),
        "out": (s["tokens"], wide, s["hidden"]),
        "up": (s["tokens"], s["hidden"], s["inner"]),
        "down": (s["tokens"], s["inner"], s["hidden"]),
    }


def step_flop(s: Mapping[str, int]) -> dict[str, int]:
    """Floating-point operations of a step's products and attention; two a multiplication and addition."""
    products = products_of(s)
    one = {name: 2 * m * k * n for name, (m, k, n) in products.items()}
    matrix = s["layers"] * (sum(one.values()) + one["kv"])
    keys = s["tokens"] + s["und_len"]
    attention = s["layers"] * 4 * s["tokens"] * keys * s["heads"] * s["head"]
    return {"products": matrix, "attention": attention, "total": matrix + attention}


def product_ms(clock: StreamClock, shape: tuple[int, int, int], dtype: torch.dtype, scene: GpuScene) -> dict[str, Any]:
    """One matrix product, random data."""
    m, k, n = shape
    left = [torch.randn(m, k, device=scene.device, dtype=dtype) for _ in range(_SETS)]
    right = [torch.randn(k, n, device=scene.device, dtype=dtype) for _ in range(_SETS)]
    out, turn = torch.empty(m, n, device=scene.device, dtype=dtype), iter(range(1 << 30))

    def enqueue() -> None:
        index = next(turn) % _SETS
        torch.mm(left[index], right[index], out=out)

    found = clock.measure({"": enqueue}, scene.rounds, repeats=10 if scene.device == "cuda" else 1)[""]
    return {**found, "tflops": round(2 * m * k * n / found["median_ms"] / 1e9, 1)}


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def _cudnn_repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


def _default(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


# PyTorch's ways to the same attention; which of them a card and version has shows when they are tried
ATTENTIONS: Mapping[str, Attention] = {
    "default": _default,
    "flash": _flash,
    "cudnn": _cudnn,
    "cudnn, heads repeated": _cudnn_repeated,
}


def best_attention(scene: GpuScene, dtype: torch.dtype) -> tuple[str, Attention]:
    """The fastest of ATTENTIONS at the step's shapes."""
    clock = StreamClock(scene.device)
    shapes = step_shapes(scene)
    found = {name: _attempt(clock, kind, shapes, dtype, scene) for name, kind in ATTENTIONS.items()}
    name = min((n for n, entry in found.items() if "median_ms" in entry), key=lambda n: found[n]["median_ms"])
    return name, ATTENTIONS[name]


def _attempt(
    clock: StreamClock, attention: Callable[..., Tensor], s: Mapping[str, int], dtype: torch.dtype, scene: GpuScene
) -> dict[str, Any]:
    def tensor(heads: int, length: int) -> Tensor:
        return torch.randn(1, heads, length, s["head"], device=scene.device, dtype=dtype)

    q = tensor(s["heads"], s["tokens"])
    k, v = (tensor(s["kv_heads"], s["tokens"] + s["und_len"]) for _ in range(2))
    try:
        found = clock.measure({"": lambda: attention(q, k, v)}, scene.rounds)[""]
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[0][:300]}
    flop = 4 * s["tokens"] * k.shape[2] * s["heads"] * s["head"]
    return {**found, "tflops": round(flop / found["median_ms"] / 1e9, 1)}
