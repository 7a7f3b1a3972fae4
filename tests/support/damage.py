"""Damaging copies of checkpoints and bundles on purpose."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx
from safetensors.torch import load_file, save_file

from motedge.bundle import Bundle
from motedge.export.journal import JOURNAL
from motedge.files import sha256_file, write_json


def edit_json(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON object."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites one safetensors file."""
    # Copied out of the map, because the file is then written over
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def transformer_file(checkpoint: Path) -> Path:
    """The only weight file of a tiny transformer."""
    return checkpoint / "transformer/diffusion_pytorch_model.safetensors"


def interrupt(bundle: Path, missing: Iterable[str] = (), **changes: Any) -> Path:
    """Makes a finished bundle look like one whose export was stopped: no manifest, some files missing."""
    manifest = Bundle.open(bundle).manifest
    files = {name: dataclasses.asdict(entry) for name, entry in manifest.files.items()}
    for name in missing:
        del files[name]
        (bundle / name).unlink()
    origin = manifest.model["checkpoint"]["fingerprint"]
    write_json(bundle / JOURNAL, {"origin": origin, "files": files, **changes})
    (bundle / "manifest.json").unlink()
    return bundle


def forget(bundle: Path, graph: str, variant: str) -> str:
    """Takes one variant of a graph out of a bundle, as if it had never been exported; returns its file."""
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    file = raw["graphs"][graph]["variants"].pop(variant)["file"]
    del raw["files"][file]
    path.write_text(json.dumps(raw))
    (bundle / file).unlink()
    return file


def record_again(bundle: Path, name: str) -> None:
    """Gives a changed file the size and hash that it has now, as someone who means harm would."""
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    raw["files"][name].update(sha256=sha256_file(bundle / name), bytes=(bundle / name).stat().st_size)
    path.write_text(json.dumps(raw))


def flip_byte(path: Path) -> None:
    """Changes the last byte; the size stays."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)


def overwrite_weight(bundle: Bundle, graph: str, name: str, value: float, out: Path) -> Bundle:
    """A copy of a bundle in which one value of a weight is another."""
    shutil.copytree(bundle.root, out)
    variant = bundle.variant(graph, "primitive-fp32")
    model = onnx.load(str(out / variant.file), load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    place = {entry.key: entry.value for entry in tensor.external_data}
    with open(out / Path(variant.file).parent / place["location"], "r+b") as stream:
        stream.seek(int(place["offset"]))
        stream.write(struct.pack("<f", value))
    return Bundle.open(out)


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    """sha256 and modification time (ns) of every file below a folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): (sha256_file(path), path.stat().st_mtime_ns) for path in files}


def contents(root: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    return {name: digest for name, (digest, _) in snapshot(root).items()}
