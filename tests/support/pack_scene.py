"""Bundles of a few bytes with the variants that devices differ by, and engines that were never built."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from motedge.bundle import SCHEMA
from motedge.bundle.contract import CONTRACT_SCHEMA
from motedge.files import sha256_file
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles

GRAPHS = ("und_prefill", "gen_step")
OPSETS = {"primitive": 20, "fused": 23}


def make_bundle(root: Path, variants: Sequence[str] = ("primitive-fp16",), opset: Optional[int] = None) -> Path:
    """A bundle with these variants of two graphs; "primitive-fp16-int8-sq" is one of a recipe."""
    files: dict[str, tuple[str, bytes]] = {
        "tables/inv_freq.bin": ("table", bytes(256)),
        "tokenizer/tokenizer.json": ("tokenizer", b"{}"),
        "samples/gen_step.npz": ("samples", b"sample"),
    }
    graphs: dict[str, Any] = {}
    for graph in GRAPHS:
        contract = {"schema": CONTRACT_SCHEMA, "graph": graph, "inputs": [], "outputs": [], "sizes": {}, "profile": {}}
        files[f"contracts/{graph}.json"] = ("contract", json.dumps(contract).encode())
        graphs[graph] = {"contract": f"contracts/{graph}.json", "variants": {}}
        for name in variants:
            graphs[graph]["variants"][name] = _variant(graph, name, files, opset)
    for recipe in {v["recipe"] for g in graphs.values() for v in g["variants"].values()} - {None}:
        files[f"calibration/{recipe}/ranges.npz"] = ("calibration", b"ranges")
        files[f"calibration/{recipe}/recipe.toml"] = ("calibration", _recipe(recipe))
        files[f"fidelity/{recipe}/report.json"] = ("fidelity", b"{}")
    for name, (_, content) in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    manifest = {
        "schema": SCHEMA,
        "model": {"family": "edge", "variant": "policy-droid", "revision": "abc", "checkpoint": {"name": "edge-ckpt"}},
        "shape_set": {"name": "droid"},
        "policy": {},
        "graphs": graphs,
        "files": {
            name: {"sha256": sha256_file(root / name), "bytes": len(content), "role": role}
            for name, (role, content) in files.items()
        },
        "tables": {"inv_freq": {"file": "tables/inv_freq.bin", "dtype": "fp32", "shape": [64], "meaning": "x"}},
        "samples": {"gen_step": {"file": "samples/gen_step.npz"}, "tick": {"none": "left out"}},
        "notes": ["weights are random"],
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def add_engines(root: Path, target: str, variant: str, graphs: Sequence[str] = GRAPHS, **fields: Any) -> None:
    """Files and a build.json as motedge build leaves them, beside one of another variant."""
    folder = root / "engines" / target
    folder.mkdir(parents=True)
    engines = []
    for graph, kind in [*((graph, variant) for graph in graphs), ("gen_step", "fused-fp16")]:
        path = folder / f"{graph}.{kind}.engine"
        path.write_bytes(f"engine of {graph} {kind}".encode())
        engines.append(_engine(path, graph, kind, **fields))
    (folder / BUILD_FILE).write_text(json.dumps(EngineFiles(folder, target, tuple(engines)).to_dict()))
    (folder / "timing.cache").write_bytes(b"timing")


def make_wheel(folder: Path, name: str = "motedge-0.1.0-py3-none-any.whl", licence: str = "Apache-2.0") -> Path:
    """A file that passes for a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    project, version = name.split("-")[:2]
    with zipfile.ZipFile(folder / name, "w") as archive:
        text = f"Metadata-Version: 2.4\nName: {project}\nVersion: {version}\nLicense-Expression: {licence}\n\nText\n"
        archive.writestr(zipfile.ZipInfo(f"{project}-{version}.dist-info/METADATA"), text)
    return folder / name


def _variant(graph: str, name: str, files: dict[str, tuple[str, bytes]], opset: Optional[int]) -> dict[str, Any]:
    dialect, dtype, *recipe = name.split("-", 2)
    weights = f"graphs/weights/{graph}.{'-'.join([dtype, *recipe])}.data"
    files[weights] = ("weights", f"{graph} {dtype}".encode() * 50)
    # An empty ONNX file is a valid protobuf message without initializers
    files[f"graphs/{graph}.{name}.onnx"] = ("graph", b"")
    return {
        "file": f"graphs/{graph}.{name}.onnx",
        "weights": [weights],
        "dialect": dialect,
        "dtype": dtype,
        "opset": opset or OPSETS[dialect],
        "recipe": recipe[0] if recipe else None,
    }


def _recipe(recipe: str) -> bytes:
    from motedge.quant.recipe import builtin_recipes

    known = builtin_recipes()
    scheme = {"int8-sq": "int8-sq", "fp8": "fp8", "nvfp4": "nvfp4"}[recipe]
    assert recipe in known
    text = f'schema = "motedge.recipe/v1"\nid = "{recipe}"\nrevision = 1\nsummary = "made"\n'
    return (text + f'[gen_step]\ndefault = "{scheme}"\n').encode()


def _engine(path: Path, graph: str, variant: str, **fields: Any) -> EngineFile:
    values: dict[str, Any] = {
        "graph": graph,
        "variant": variant,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "builder": "tensorrt-rtx",
        "builder_version": "1.7.1.116",
        "compute_capabilities": ("8.9",),
        "platform": "x86_64-linux",
        "created": "2026-11-26T00:00:00+00:00",
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "peak_anonymous_bytes": None,
        "device_memory_bytes": None,
        "settings": {},
        "source": "x",
    }
    return EngineFile(**{**values, **fields})
