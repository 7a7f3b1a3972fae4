"""LICENSE and NOTICE of an archive: what is passed on under which licence, and what is not passed on at all."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import motedge
from motedge.errors import HostError, UsageError
from motedge.targets.pack.wheels import Wheel, checkout, licence_of

MODEL_LICENCE = "licenses/MODEL-LICENSE"
# What runs beside motedge on the device -> licence, as their package metadata says (numpy 2.4, onnxruntime 1.27,
# tokenizers 0.23, Jinja2 3.1, tomli 2.2); a test holds the names against pyproject.toml
RUNTIME_LICENCES = {
    "numpy": "BSD-3-Clause, parts under 0BSD, MIT, Zlib and CC0-1.0",
    "onnxruntime": "MIT",
    "tokenizers": "Apache-2.0",
    "jinja2": "BSD-3-Clause",
    "tomli": "MIT",
}
# Model cards on Hugging Face: license: other, license_name: openmdw-1.1
_MODEL_LICENCE_NAME = "OpenMDW-1.1"


def own_licence() -> str:
    """motedge's licence text, from its package or its source folder; HostError where neither has it."""
    root = checkout()
    if root is not None:
        return (root / "LICENSE").read_text(encoding="utf-8")
    for file in importlib.metadata.files("motedge") or []:
        if file.name == "LICENSE":
            return file.read_text(encoding="utf-8")
    raise HostError("motedge's LICENSE is not in its package", fix="install motedge again")


def read_model_licence(path: Path) -> bytes:
    """The text of --model-license; UsageError where it can't be read as text."""
    try:
        data = path.read_bytes()
        data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the model's licence {path}", got=str(error)) from error
    return data


def notice(model: Mapping[str, Any], model_licence: Optional[bytes], wheels: Sequence[Wheel]) -> str:
    """NOTICE: three parts, the program, the model, the packages."""
    checkpoint = model.get("checkpoint") or {}
    name = checkpoint.get("name") if isinstance(checkpoint, Mapping) else checkpoint
    lines = [
        f"motedge {motedge.__version__}",
        "Licensed under the Apache License 2.0, whose text is in LICENSE.",
        "",
        "Model",
        f"Weights, graphs, tables, tokenizer and samples derive from the checkpoint {name or 'of unknown name'}, "
        f"revision {model.get('revision') or 'not recorded'}.",
        f"NVIDIA publishes the Cosmos 3 models under {_MODEL_LICENCE_NAME}; what the checkpoint itself says counts.",
        f"Its text is in {MODEL_LICENCE}."
        if model_licence is not None
        else "Its text is not in this archive: whoever passes the archive on has to pass the licence on with it.",
        "",
        "Packages that motedge needs on the device",
    ]
    if wheels:
        lines += ["In this archive, each with its licence inside the wheel:"]
        lines += [f"  {wheel.name} {wheel.version}: {licence_of(wheel)}" for wheel in wheels if wheel.name != "motedge"]
    carried = {wheel.name for wheel in wheels}
    rest = {name: licence for name, licence in RUNTIME_LICENCES.items() if name not in carried}
    if rest:
        lines += ["Not in this archive:"]
        lines += [f"  {name}: {licence}" for name, licence in rest.items()]
    lines += [
        "",
        "CUDA, TensorRT, TensorRT-RTX and the drivers are not in this archive. They come with the device's system",
        "software, or from NVIDIA, under NVIDIA's own licences.",
    ]
    return "\n".join(lines) + "\n"
