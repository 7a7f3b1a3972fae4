"""What a checkpoint holds, counted from the shard headers, and everything that is wrong with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from motedge.checkpoint.agreement import check_latent, check_sound, check_transformer, check_vae, check_vision
from motedge.checkpoint.configs import CheckpointConfigs
from motedge.checkpoint.fp8_layout import is_scale, read_precision
from motedge.checkpoint.keys import TOWERS, tower_counts, tower_of, transformer_shapes
from motedge.checkpoint.provenance import Provenance
from motedge.checkpoint.tensor_store import TensorStore, has_weights
from motedge.checkpoint.tokenizer_files import special_tokens
from motedge.errors import CheckpointError
from motedge.files import PathLike

SCHEMA = "motedge.checkpoint-inspect/v1"
# Parts that actions and video do not need: their absence is told, and is no fault
OPTIONAL = ("vision_encoder", "sound_tokenizer")


def inspect_checkpoint(path: PathLike, *, values: bool = False) -> dict[str, Any]:
    """Looks at a checkpoint folder without stopping at the first fault.

    Args:
        path: the folder.
        values: read every weight, and report NaN and infinity.

    Returns:
        A JSON-ready object; `problems` lists the faults (what, expected, got, why, fix), empty for a sound checkpoint.

    Raises:
        CheckpointError: not a Cosmos 3 checkpoint, or its configs can't be read.
    """
    root = Path(path)
    configs = CheckpointConfigs.read(root)
    precision = read_precision(root)
    problems: list[CheckpointError] = []
    transformer = _open(root / "transformer", problems)
    vae = _open(root / "vae", problems)
    vision = _open(root / "vision_encoder", problems) if has_weights(root / "vision_encoder") else None
    sound = _open(root / "sound_tokenizer", problems) if has_weights(root / "sound_tokenizer") else None
    if transformer is not None:
        _collect(problems, lambda: check_transformer(transformer, configs.config, precision))
    _collect(problems, lambda: check_latent(configs.config, configs.vae_config))
    if vae is not None:
        _collect(problems, lambda: check_vae(vae, configs.vae_config))
    vision_config = configs.vision_config
    if vision is not None and vision_config is not None:
        _collect(problems, lambda: check_vision(vision, vision_config))
    sound_config = configs.sound_config
    if sound is not None and sound_config is not None:
        _collect(problems, lambda: check_sound(sound, sound_config, configs.config))
    _collect(problems, lambda: special_tokens(root))
    stores = {"transformer": transformer, "vae": vae, "vision_encoder": vision, "sound_tokenizer": sound}
    if values:
        for store in filter(None, stores.values()):
            _collect_values(problems, store)
    provenance = configs.provenance
    return {
        "schema": SCHEMA,
        "checkpoint": str(root),
        "family": configs.family,
        "variant": configs.variant,
        "revision": provenance.revision if provenance else None,
        "precision": precision,
        "origin": _origin(provenance),
        "config": configs.config.to_dict(),
        "policy": vars(configs.policy) if configs.policy else None,
        "distilled_sigmas": list(configs.distilled_sigmas) if configs.distilled_sigmas else None,
        "towers": _towers(transformer, configs),
        "components": {name: _component(store) for name, store in stores.items() if store is not None},
        "absent": [name for name in OPTIONAL if not has_weights(root / name)],
        "values_checked": values,
        "problems": [
            {"what": e.what, "expected": _text(e.expected), "got": _text(e.got), "why": e.why, "fix": e.fix}
            for e in problems
        ],
    }


def _open(folder: Path, problems: list[CheckpointError]) -> TensorStore | None:
    try:
        return TensorStore(folder)
    except CheckpointError as error:
        problems.append(error)
        return None


def _collect(problems: list[CheckpointError], check: Callable[[], object]) -> None:
    try:
        check()
    except CheckpointError as error:
        problems.append(error)


def _collect_values(problems: list[CheckpointError], store: TensorStore) -> None:
    for key in store:
        _collect(problems, lambda key=key: store.finite_tensor(key))  # type: ignore[misc]


def _towers(store: TensorStore | None, configs: CheckpointConfigs) -> dict[str, Any]:
    """Parameters by the config, and as found in the shards (None where those can't be read)."""
    expected = tower_counts(transformer_shapes(configs.config))
    towers: dict[str, Any] = {}
    for tower in TOWERS:
        keys = [key for key in store or () if not is_scale(key) and tower_of(key) == tower]
        towers[tower] = {
            "parameters": None if store is None else sum(math.prod(store.shape(key)) for key in keys),
            "parameters_by_config": expected[tower],
            "dtypes": [] if store is None else _dtypes(store, keys),
        }
    return towers


def _component(store: TensorStore) -> dict[str, Any]:
    return {
        "tensors": len(store),
        "parameters": sum(math.prod(store.shape(key)) for key in store if not is_scale(key)),
        "bytes": sum(store.entry(key).size for key in store),
        "files": len(store.headers),
        "dtypes": _dtypes(store, store.keys()),
    }


def _dtypes(store: TensorStore, keys: Iterable[str]) -> list[str]:
    """The dtypes in use, the most common first."""
    return [dtype for dtype, _ in Counter(store.dtype(key) for key in keys).most_common()]


def _origin(provenance: Provenance | None) -> dict[str, Any]:
    if provenance is None:
        return {"source": "unknown"}
    return {name: value for name, value in vars(provenance).items() if value is not None}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
