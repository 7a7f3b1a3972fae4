"""All files of an archive, each with where its bytes are and what they must be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from motedge.bundle import Bundle
from motedge.bundle.folder import MANIFEST
from motedge.files import sha256_file
from motedge.targets.catalog import Target
from motedge.targets.install.listing import PackedFile
from motedge.targets.pack.engines import PackedEngines
from motedge.targets.pack.notices import MODEL_LICENCE, notice, own_licence
from motedge.targets.pack.reduce import reduced_manifest
from motedge.targets.pack.scripts import ScriptFacts, install_scripts
from motedge.targets.pack.serve import Served
from motedge.targets.pack.wheels import Wheel
from motedge.targets.pack.write import Member

PLAN = "plan.json"
# As targets.builders.checks: engines hold the weights, kernels and little else
_ENGINE_OVERHEAD, _ENGINE_BASE_BYTES = 1.02, 20_000_000


@dataclass(frozen=True)
class Sources:
    """What goes into an archive."""

    bundle: Bundle
    target: Target
    served: Served
    engines: PackedEngines
    # Whether graphs and weights stay behind
    engines_only: bool = False
    wheels: Sequence[Wheel] = ()
    # Text of the model's licence
    model_licence: Optional[bytes] = None
    # plan.json; None where none could be made
    plan: Optional[bytes] = None
    # Description of a target that is not in the catalogue
    target_file: Optional[Path] = None
    name: str = ""
    notes: Sequence[str] = field(default=())


def bundle_members(sources: Sources) -> list[Member]:
    """The bundle itself: its manifest, reduced, and the files that it names, engines, the plan."""
    bundle, choices = sources.bundle, sources.served.choices
    without = [choice.graph for choice in choices] if sources.engines_only else []
    note = f"packed for {sources.target.id}: {_kinds(sources)}"
    manifest = reduced_manifest(bundle, choices, without, note)
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    found = [Member.of_bytes(MANIFEST, text.encode("utf-8"))]
    for name, entry in manifest.files.items():
        found.append(Member(name, bundle.path(name), PackedFile(entry.sha256, entry.bytes)))
    if sources.engines.engines:
        found.append(Member.of_bytes(*sources.engines.record))
    for engine in sources.engines.engines:
        data = {name: (int(e["bytes"]), str(e["sha256"])) for name, e in engine.data_files.items()}
        for name, (size, digest) in {engine.file: (engine.bytes, engine.sha256), **data}.items():
            path = sources.engines.files.inside(name)
            found.append(Member(f"{sources.engines.folder}/{name}", path, PackedFile(digest, size)))
    if sources.plan is not None:
        found.append(Member.of_bytes(f"{sources.engines.folder}/{PLAN}", sources.plan))
    return found


def all_members(sources: Sources) -> list[Member]:
    """The bundle with licences, wheels and install scripts."""
    found = bundle_members(sources)
    wheels = [Member(w.member, w.path, PackedFile(sha256_file(w.path), w.path.stat().st_size)) for w in sources.wheels]
    own = next((m for w, m in zip(sources.wheels, wheels) if w.name == "motedge"), None)
    found += wheels
    facts = ScriptFacts(
        name=sources.name,
        bundle_bytes=sum(member.entry.bytes for member in found),
        engine_bytes=engine_bytes(sources),
        wheel=own.name.rpartition("/")[2] if own is not None else "",
        wheel_digest=own.entry.sha256[:8] if own is not None else "none",
        offline=len(wheels) > 1,
    )
    scripts = install_scripts(sources.target, sources.served.releases, facts)
    found += [Member.of_bytes(name, text.encode("utf-8"), executable=True) for name, text in scripts.items()]
    found.append(Member.of_bytes("LICENSE", own_licence().encode("utf-8")))
    text = notice(sources.bundle.manifest.model, sources.model_licence, sources.wheels)
    found.append(Member.of_bytes("NOTICE", text.encode("utf-8")))
    if sources.model_licence is not None:
        found.append(Member.of_bytes(MODEL_LICENCE, sources.model_licence))
    if sources.target_file is not None:
        found.append(Member.of_bytes(target_member(sources.target), sources.target_file.read_bytes()))
    return found


def target_member(target: Target) -> str:
    """Path in the archive of a target's own description."""
    return f"target/{target.id}.toml"


def engine_bytes(sources: Sources) -> int:
    """What the device will build, about; 0 where all engines come along or none are needed."""
    if sources.target.engine == "onnxruntime":
        return 0
    there = {(engine.graph, engine.variant) for engine in sources.engines.engines}
    total = 0
    for choice in sources.served.choices:
        if (choice.graph, choice.variant) not in there:
            weights = sum(sources.bundle.manifest.files[name].bytes for name in choice.entry.weights)
            total += int(weights * _ENGINE_OVERHEAD) + _ENGINE_BASE_BYTES
    return total


def _kinds(sources: Sources) -> str:
    what = "engines of " if sources.engines_only else ""
    return what + ", ".join(f"{choice.graph} {choice.variant}" for choice in sources.served.choices)
