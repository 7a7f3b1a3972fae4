"""A full-size bundle for a machine with a GPU: graphs and contracts travel, weights are drawn there.

    python tests/support/gpu_bundle.py skeleton BUNDLE OUT       here: everything but weights and large tables (2 MB)
    python tests/support/gpu_bundle.py fill OUT --variants fused-fp16     there: draws what is missing, 6 GB in seconds

Values follow from a tensor's name and the seed alone, so that two variants hold the same weights. Their scale is that
of a trained network: projections keep the variance of what they are given, norms are near one.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import MotedgeError, UsageError, closest

# Larger files of these roles are drawn anew instead of copied
LARGE_BYTES, DRAWN_ROLES = 100_000, ("weights", "table")
NOTE = "weights and tables were drawn anew after export: sha256 of their files do not hold, open with check='size'"
ONNX_TYPES = {1: "fp32", 10: "fp16", 16: "bf16"}


@dataclass(frozen=True)
class Slot:
    """One tensor in a file of the bundle."""

    file: str
    offset: int
    name: str
    shape: tuple[int, ...]
    # "fp32", "fp16" or "bf16"
    dtype: str


def write_skeleton(source: Path, out: Path) -> list[str]:
    """Copies a bundle without its weights and large tables; returns what was left out.

    Raises:
        UsageError: `out` exists.
        BundleError: `source` is no bundle, or a file is missing.
    """
    if out.exists():
        raise UsageError(f"{out} exists", fix="remove it, or give another folder")
    bundle = Bundle.open(source)
    left_out = []
    for name, entry in bundle.manifest.files.items():
        if entry.role in DRAWN_ROLES and entry.bytes > LARGE_BYTES:
            left_out.append(name)
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path(name), target)
    raw = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    raw["notes"] = [*raw.get("notes", ()), NOTE]
    (out / "manifest.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    return left_out


def fill(root: Path, variants: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Draws the weights of these variants, and the tables, where a file is missing or of another size.

    Returns:
        Bytes and seconds, and where the numbers were drawn ("cuda" or "cpu").

    Raises:
        UsageError: no graph of the bundle has such a variant.
    """
    bundle, draw = Bundle.open(root), _drawing(seed)
    known = {name for graph in bundle.manifest.graphs.values() for name in graph.variants}
    for name in variants:
        if name not in known:
            raise UsageError(f"the bundle has no variant {name!r}", fix=closest(name, known))
    start, written = time.perf_counter(), 0
    by_file: dict[str, dict[int, Slot]] = {}
    for slot in (*weight_slots(bundle, variants), *table_slots(bundle)):
        by_file.setdefault(slot.file, {})[slot.offset] = slot
    for name, slots in by_file.items():
        path, size = root / name, bundle.manifest.files[name].bytes
        if path.is_file() and path.stat().st_size == size:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with open(partial, "wb") as stream:
            stream.truncate(size)
            for slot in slots.values():
                stream.seek(slot.offset)
                stream.write(draw(slot))
        partial.replace(path)
        written += size
    where = "cuda" if isinstance(draw, _TorchDrawing) else "cpu"
    return {"bytes": written, "seconds": round(time.perf_counter() - start, 2), "drawn_on": where, "seed": seed}


def weight_slots(bundle: Bundle, variants: Sequence[str]) -> Iterator[Slot]:
    """Every weight of these variants that lies in an external file, as the ONNX files tell it."""
    import onnx

    for entry in bundle.manifest.graphs.values():
        for name in variants:
            if name not in entry.variants:
                continue
            path = bundle.path(entry.variants[name].file)
            model = onnx.load(str(path), load_external_data=False)
            for tensor in model.graph.initializer:
                where = {item.key: item.value for item in tensor.external_data}
                if where:
                    file = (path.parent / where["location"]).relative_to(bundle.path(".")).as_posix()
                    offset, dtype = int(where.get("offset", 0)), ONNX_TYPES[tensor.data_type]
                    yield Slot(file, offset, tensor.name, tuple(tensor.dims), dtype)


def table_slots(bundle: Bundle) -> Iterator[Slot]:
    """Every large table."""
    for name, table in bundle.manifest.tables.items():
        if bundle.manifest.files[table["file"]].bytes > LARGE_BYTES:
            yield Slot(table["file"], 0, name, tuple(table["shape"]), table["dtype"])


def spread(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor, from its name and shape.

    Matrices are [in, out] and convolutions [out, in, y, x]: 1 / sqrt(inputs), so that variance is kept. Norms are one
    with some spread, so that a norm that is left out shows.
    """
    if "norm" in name or name.endswith("gamma"):
        return 1.0, 0.1
    if name == "embed_tokens":
        return 0.0, 1.0
    if name.endswith("bias") or len(shape) < 2:
        return 0.0, 0.02
    inputs = math.prod(shape[1:]) if len(shape) == 4 else shape[-2]
    return 0.0, inputs**-0.5


class _NumpyDrawing:
    """Draws on the CPU: for small bundles and dry runs."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, slot: Slot) -> bytes:
        mean, deviation = spread(slot.name, slot.shape)
        random = np.random.default_rng(_seed_of(slot.name, self._seed))
        values = random.standard_normal(slot.shape, np.float32) * np.float32(deviation) + np.float32(mean)
        if slot.dtype == "bf16":
            return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        return values.astype("<f2" if slot.dtype == "fp16" else "<f4").tobytes()


class _TorchDrawing:
    """Draws on the GPU: 3 billion numbers take a second there and minutes on a CPU."""

    def __init__(self, seed: int) -> None:
        import torch

        self._torch, self._seed = torch, seed
        self._types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

    def __call__(self, slot: Slot) -> Any:
        torch = self._torch
        mean, deviation = spread(slot.name, slot.shape)
        generator = torch.Generator("cuda").manual_seed(_seed_of(slot.name, self._seed))
        values = torch.randn(slot.shape, generator=generator, device="cuda").mul_(deviation).add_(mean)
        return values.to(self._types[slot.dtype]).cpu().reshape(-1).view(torch.uint8).numpy().data


def _seed_of(name: str, seed: int) -> int:
    return (zlib.crc32(name.encode()) + seed) % 2**31


def _drawing(seed: int) -> Any:
    try:
        import torch
    except ImportError:
        return _NumpyDrawing(seed)
    return _TorchDrawing(seed) if torch.cuda.is_available() else _NumpyDrawing(seed)


def main(arguments: list[str] | None = None) -> int:
    """The two verbs; prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    skeleton = verbs.add_parser("skeleton", help="a bundle without weights")
    skeleton.add_argument("bundle", type=Path)
    skeleton.add_argument("out", type=Path)
    filled = verbs.add_parser("fill", help="draw what is missing")
    filled.add_argument("bundle", type=Path)
    filled.add_argument("--variants", default="fused-fp16", help="comma-separated (default fused-fp16)")
    filled.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    try:
        if args.verb == "skeleton":
            result: Any = {"left_out": write_skeleton(args.bundle, args.out)}
        else:
            result = fill(args.bundle, args.variants.split(","), args.seed)
    except MotedgeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
