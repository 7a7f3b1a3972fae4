"""Low-rank adapters (LoRA), merged: W + alpha / rank * B A, in fp32, rounded once to the type of the weights.

Takes PEFT's files (adapter_config.json, adapter_model.safetensors; lora_A, lora_B) and the single-file forms of
diffusers and of kohya's trainer (lora_down, lora_up, alpha), over published names, the framework's or, of Edge's
reasoner, those that it is trained under on its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motedge.checkpoint import framework_keys, reasoner_keys
from motedge.checkpoint.keys import transformer_shapes
from motedge.checkpoint.provenance import Provenance
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.rewrite import rewrite_transformer
from motedge.checkpoint.safetensors_stream import SHARD_BYTES
from motedge.errors import CheckpointError, closest
from motedge.files import PathLike

if TYPE_CHECKING:
    import torch

MERGED = "lora"
_FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_down|lora_up)(?:\.\w+)?\.weight")
_SIDES = {"lora_A": "a", "lora_down": "a", "lora_B": "b", "lora_up": "b"}
_PREFIXES = ("base_model.model.", "transformer.", "model.", "net_ema.", "net.")
_CONFIG, _FILES = "adapter_config.json", ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


@dataclass
class Factors:
    """The two factors of one weight W [out, in]: B [out, r] A [r, in]."""

    # Names in the adapter's file, None while not seen
    a: str | None = None
    b: str | None = None
    alpha: str | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter that has been checked against a model."""

    file: Path
    # Published name of the weight -> its factors
    factors: dict[str, Factors]
    # alpha and use_rslora of adapter_config.json, where there is one
    config: dict[str, Any] = field(default_factory=dict)

    def delta(self, key: str, store: Any) -> torch.Tensor:
        """scale * B A, fp32; CheckpointError for factors that do not fit each other."""
        names = self.factors[key]
        a, b = store.get_tensor(names.a).float(), store.get_tensor(names.b).float()
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise CheckpointError(
                f"the factors of {key} do not fit each other",
                expected="A [r, in] and B [out, r]",
                got=f"{list(a.shape)} and {list(b.shape)}",
            )
        rank = a.shape[0]
        if self.config.get("r", rank) != rank:
            raise CheckpointError(
                f"the factors of {key} have another rank than {_CONFIG} says",
                expected=self.config["r"],
                got=rank,
                why="the scale of the product, alpha / rank, would be a guess",
                fix="give both files of the same training",
            )
        alpha = float(store.get_tensor(names.alpha)) if names.alpha else float(self.config.get("lora_alpha", rank))
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        product: torch.Tensor = b @ a
        return product.mul_(scale)


def merge_adapter(base: Checkpoint, adapter: PathLike, out: PathLike, *, shard_bytes: int = SHARD_BYTES) -> Path:
    """Writes `base` with an adapter merged into it, one tensor in memory at a time.

    Raises:
        CheckpointError: no adapter, one of another kind (DoRA, biases, whole modules), for a module that the model has
            not, or with factors that do not fit.
        UsageError: `out` exists.
    """
    from safetensors import safe_open

    found = read_adapter(Path(adapter), transformer_shapes(base.config))
    with safe_open(str(found.file), "pt") as store:

        def tensor(key: str) -> torch.Tensor:
            weight = base.transformer.tensor(key)
            if key not in found.factors:
                return weight
            delta = found.delta(key, store)
            if delta.shape != weight.shape:
                raise CheckpointError(
                    f"the adapter of {key} has another shape", expected=list(weight.shape), got=list(delta.shape)
                )
            return weight.float() + delta

        return rewrite_transformer(
            base, out, tensor, Provenance(source=MERGED, id=found.file.name), shard_bytes=shard_bytes
        )


def read_adapter(path: Path, shapes: Iterable[str]) -> Adapter:
    """Reads an adapter's names and holds them against the model's; `shapes`: published names of the weights.

    Raises:
        CheckpointError: see `merge_adapter`.
    """
    from safetensors import SafetensorError, safe_open

    file = _adapter_file(path)
    config = _read_config(file.parent / _CONFIG)
    try:
        with safe_open(str(file), "pt") as store:
            names = list(store.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a safetensors file", got=str(error)) from error
    known = {key: key for key in shapes}
    published = list(known)
    known.update(framework_keys.published_names(published))
    # Where it has no `model.` before it, as prefixes are taken off
    inner = reasoner_keys.PREFIX.removeprefix("model.")
    known.update({inner + name: key for name, key in reasoner_keys.published_names(published).items()})
    factors: dict[str, Factors] = {}
    for name in names:
        _sort_in(name, known, factors, file)
    for key, pair in factors.items():
        if pair.a is None or pair.b is None:
            raise CheckpointError(
                f"{file}: one of the two factors of {key} is missing", got=pair.a or pair.b or "alpha"
            )
    if not factors:
        raise CheckpointError(f"{file} holds no low-rank factors", expected="names with lora_A and lora_B")
    return Adapter(file, factors, config)


def _sort_in(name: str, known: dict[str, str], factors: dict[str, Factors], file: Path) -> None:
    match = _FACTOR.fullmatch(name)
    if match is None and not name.endswith(".alpha"):
        raise CheckpointError(
            f"{file}: {name} is no factor of a LoRA",
            expected="lora_A, lora_B, lora_down, lora_up or alpha",
            why="DoRA's magnitudes, biases and whole modules are not merged by a product",
            fix="merge it where it was trained, and give the merged checkpoint",
        )
    module = match.group(1) if match else name.removesuffix(".alpha")
    key = known.get(f"{_bare(module)}.weight")
    if key is None:
        raise CheckpointError(
            f"{file}: the model has no module {module}",
            fix=closest(_bare(module), [k.removesuffix(".weight") for k in known]).partition("known:")[0] or None,
        )
    pair = factors.setdefault(key, Factors())
    side = _SIDES[match.group(2)] if match else "alpha"
    setattr(pair, side, name)


def _bare(module: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if module.startswith(prefix):
                module, stripped = module[len(prefix) :], True
    return module


def _adapter_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"there is no adapter at {path}", expected=f"a .safetensors file, or {' or '.join(_FILES)} in a folder"
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.get("use_dora") or value.get("bias", "none") != "none" or value.get("modules_to_save"):
            raise CheckpointError(
                f"{path} asks for more than low-rank factors",
                expected="no DoRA, no biases, no modules_to_save",
                fix="merge it where it was trained, and give the merged checkpoint",
            )
        if value.get("rank_pattern") or value.get("alpha_pattern"):
            raise CheckpointError(f"{path} has ranks or alphas by module", expected="one alpha for all")
        return dict(value)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not an adapter's configuration", got=str(error)) from error
