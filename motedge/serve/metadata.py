"""What a server says of itself when a client connects."""

from __future__ import annotations

from typing import Any

import motedge
from motedge.bundle import Bundle
from motedge.client import protocol
from motedge.files import sha256_file
from motedge.runtime.policy.policy import Policy
from motedge.serve.observed_keys import observed_keys

# What may not change while clients are connected: their actions would mean something else, or what they send be refused
CONTRACT_KEYS = (
    "schema",
    "embodiment",
    "rate_hz",
    "action_rows",
    "action_fields",
    "action_units",
    "family",
    "image_size",
    "observation_keys",
)


def policy_metadata(bundle: Bundle, policy: Policy) -> dict[str, Any]:
    """Metadata of a policy.

    schema: str, of this map
    server: str, the version of motedge
    family, variant, revision: str or None, of the model; checkpoint: str, its name
    bundle_sha256: str, of its manifest, which holds the hashes of all its files
    embodiment: str; rate_hz: float, rows of actions a second
    action_rows, action_fields, action_units: int, list of str, list of str
    image_size: [rows, columns] of the one picture: a composed one, or a vehicle's, which may be larger
    observation_keys: list of str, what an observation may hold
    request_keys: list of str, what motedge's own clients may ask for besides
    """
    model = bundle.manifest.model
    return {
        "schema": protocol.METADATA_SCHEMA,
        "server": f"motedge {motedge.__version__}",
        "family": model.get("family"),
        "variant": model.get("variant"),
        "revision": model.get("revision"),
        "checkpoint": str((model.get("checkpoint") or {}).get("name", "")),
        "bundle_sha256": sha256_file(bundle.root / "manifest.json"),
        "embodiment": policy.embodiment.name,
        "rate_hz": float(policy.shape.fps),
        "action_rows": policy.shape.actions,
        "action_fields": list(policy.embodiment.fields),
        "action_units": list(policy.embodiment.units),
        "image_size": list(policy.protocol.image_size(policy.shape)),
        "observation_keys": list(observed_keys(policy.embodiment)),
        "request_keys": list(protocol.REQUEST_KEYS),
    }


def contract_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What a client that knows `old` would misunderstand of `new`; empty if nothing."""
    changed = [key for key in CONTRACT_KEYS if old.get(key) != new.get(key)]
    return "; ".join(f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in changed)
