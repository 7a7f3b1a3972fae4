"""Fine-tuned weights as safetensors under other names than the published ones: the framework's, or the reasoner's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from motedge.checkpoint import reasoner_keys
from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.framework_keys import PREFIXES, framework_name
from motedge.checkpoint.keys import transformer_shapes
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.tensor_store import TensorStore
from motedge.errors import CheckpointError, closest

if TYPE_CHECKING:
    import torch

_HEAD = "lm_head.weight"
_log = logging.getLogger(__name__)


class RenamedStore:
    """The transformer's tensors of a folder of safetensors, by their published names."""

    def __init__(self, folder: Path, base: Checkpoint, weights: str) -> None:
        """Finds out whose names they are and that every tensor is there; CheckpointError where not."""
        self._store, self._base = TensorStore(folder), base
        shapes = transformer_shapes(base.config)
        self._names = _framework(self._store, list(shapes), weights) or _reasoner(self._store, base.config)
        if not self._names:
            raise CheckpointError(
                f"{folder} names its tensors in no known way",
                expected=f"{PREFIXES[weights]}{framework_name('embed_tokens.weight')} (framework), or "
                f"{reasoner_keys.PREFIX}{reasoner_keys.PROBE} (Edge's reasoner)",
                got=", ".join(self._store.keys()[:3]) or "no tensors",
                fix="give a checkpoint in the published layout as it is",
            )
        for key, name in self._names.items():
            if name not in self._store:
                fix = closest(name, self._store.keys()).partition("known:")[0]
                raise CheckpointError(f"{folder} lacks {name}", expected=f"{key} {list(shapes[key])}", fix=fix or None)
            if self._store.shape(name) != shapes[key]:
                raise CheckpointError(
                    f"a weight has the wrong shape: {name}",
                    expected=f"{list(shapes[key])}, by {base.root}",
                    got=list(self._store.shape(name)),
                    fix="give the base that it was trained from",
                )
        kept = [key for key in shapes if key not in self._names]
        if kept:
            _log.warning("%d tensors are the base's own: %s, ...", len(kept), ", ".join(kept[:2]))

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor by its published name, in its stored type: the base's where only the reasoner was trained."""
        name = self._names.get(key)
        return self._base.transformer.tensor(key) if name is None else self._store.tensor(name)


def _framework(store: TensorStore, keys: list[str], weights: str) -> dict[str, str]:
    """Published name -> name in the store; empty where the names are not the framework's."""
    prefix = _prefix(store, PREFIXES[weights] + framework_name("embed_tokens.weight"))
    return {} if prefix is None else {key: prefix + PREFIXES[weights] + framework_name(key) for key in keys}


def _reasoner(store: TensorStore, config: ModelConfig) -> dict[str, str]:
    """As `_framework`, of the reasoner's tensors alone; only Edge's is a Nemotron."""
    prefix = _prefix(store, reasoner_keys.PROBE)
    if prefix is None:
        return {}
    if config.gated:
        raise CheckpointError(
            f"{store.folder} is of Edge's reasoner", got=reasoner_keys.PROBE, fix="give a base of the Edge family"
        )
    names = reasoner_keys.published_names(transformer_shapes(config))
    heads = [name for name in (_HEAD, prefix + _HEAD) if name in store]
    return {**{key: prefix + name for name, key in names.items()}, _HEAD: heads[0] if heads else _HEAD}


def _prefix(store: TensorStore, name: str) -> str | None:
    return next((known[: -len(name)] for known in store if known == name or known.endswith(f".{name}")), None)
