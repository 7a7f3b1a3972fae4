"""Whose bundles a device takes: a file of its own, which an option may tighten and nothing may loosen.

schema = "motedge.trust/v1"
require_signature = true
public_keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"]    # second line of a minisign .pub file
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.errors import BundleError, UsageError
from motedge.targets.catalog.read import known_keys, parse_toml
from motedge.targets.install.minisign import PublicKey, Signature

SCHEMA = "motedge.trust/v1"
SYSTEM_FILE = Path("/etc/motedge/trust.toml")
VARIABLE = "MOTEDGE_TRUST"


@dataclass(frozen=True)
class Demand:
    """A signature by one of these keys."""

    keys: tuple[PublicKey, ...]
    # Who demands it, for messages
    source: str


def demands(option: Optional[str], system_file: Path = SYSTEM_FILE) -> list[Demand]:
    """Everything that a bundle's signature must satisfy here: the device's file, the file that the environment names,
    and the key that was given. Each adds to the others, so that neither variable nor option lets in what the device's
    own file keeps out.

    Args:
        option: a public key, or the file of one.
        system_file: the device's own file.

    Raises:
        UsageError: a file or key that can't be read: doubt counts as a demand that can't be met.
    """
    found = []
    files = [system_file] if system_file.exists() else []
    if os.environ.get(VARIABLE):
        files.append(Path(os.environ[VARIABLE]))
    for file in files:
        keys = _read(file)
        if keys:
            found.append(Demand(keys, str(file)))
    if option is not None:
        found.append(Demand((PublicKey.load(option),), "--require-signature"))
    return found


def check_signature(message: bytes, signature: Optional[bytes], wanted: Sequence[Demand]) -> Optional[Signature]:
    """The signature of pack.json, once it satisfies all demands; None where there is neither a signature nor a demand.

    Raises:
        BundleError: not signed, signed by another key, or changed since.
    """
    if signature is None:
        if not wanted:
            return None
        raise BundleError(
            "the bundle is not signed",
            expected=f"a signature by {_names(wanted[0])}, which {wanted[0].source} demands",
            fix="motedge pack BUNDLE --target T --out FILE --sign KEY",
        )
    parsed = Signature.parse(signature)
    for demand in wanted:
        if parsed.key_id not in [key.key_id for key in demand.keys]:
            raise BundleError(
                "the bundle is signed by a key that is not trusted here",
                expected=f"{_names(demand)}, which {demand.source} demands",
                got=parsed.key_name,
                fix="have it signed by a trusted key, or add this one if you know whose it is",
            )
        if not any(parsed.matches(message, key) for key in demand.keys):
            raise BundleError(
                "the bundle's signature is wrong",
                expected=f"pack.json as {_names(demand)} signed it",
                why="pack.json or its signature was changed since, or somebody else made them",
                fix="don't use it; fetch the archive again from where it was made",
            )
    return parsed


def _read(file: Path) -> tuple[PublicKey, ...]:
    """Keys of a trust file; empty where it demands no signature."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {file}, which says whose bundles are trusted", got=str(error)) from error
    raw = known_keys(str(file), parse_toml(text, str(file)), ("schema", "require_signature", "public_keys"))
    if raw.get("schema") != SCHEMA:
        raise UsageError(f"{file} has another schema", expected=SCHEMA, got=raw.get("schema"))
    required, texts = raw.get("require_signature"), raw.get("public_keys", [])
    if not isinstance(required, bool) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise UsageError(
            f"{file}: a value is missing or of a wrong kind",
            expected="require_signature = true or false, public_keys = [text, ...]",
            got=f"require_signature {required!r}, public_keys {texts!r}",
        )
    keys = tuple(PublicKey.parse(text) for text in texts)
    if required and not keys:
        raise UsageError(f"{file} demands signatures and names no key", fix="public_keys = [...], or nothing installs")
    return keys if required else ()


def _names(demand: Demand) -> str:
    return " or ".join(key.name for key in demand.keys)
