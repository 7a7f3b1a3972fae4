"""Archives as motedge pack writes them, of a few bytes, and such as somebody who means harm would write."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from motedge.targets.install.listing import LISTING, SIGNATURE, PackedFile, PackListing, Release

FILES = {
    "LICENSE": b"licence",
    "graphs/gen_step.primitive-fp16.onnx": b"graph",
    "graphs/weights/gen_step.fp16.data": bytes(range(256)) * 20,
    "install-jetpack6.sh": b"#!/bin/sh\n",
    "manifest.json": b"{}",
}


def make_listing(files: Mapping[str, bytes] = FILES, **changes: Any) -> PackListing:
    """A listing that fits the files."""
    values: dict[str, Any] = {
        "name": "edge-policy-droid-droid",
        "target": "jetson-orin-nano-8gb",
        "builder": "tensorrt",
        "motedge": "0.1.0",
        "variants": {"gen_step": "primitive-fp16"},
        "releases": (Release("JetPack 6.2", "36.4.3", "10.3.0.30", "3.10"),),
        "files": {name: packed(content, name.endswith(".sh")) for name, content in files.items()},
    }
    return PackListing(**{**values, **changes})


def packed(content: bytes, executable: bool = False) -> PackedFile:
    return PackedFile(hashlib.sha256(content).hexdigest(), len(content), executable)


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """One entry of a tar file, of any kind."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict") + content + bytes(-len(content) % 512)


def archive_of(entries: Iterable[bytes]) -> bytes:
    return b"".join(entries) + bytes(1024)


def make_archive(
    files: Mapping[str, bytes] = FILES, listing: Optional[bytes] = None, signature: Optional[bytes] = None
) -> bytes:
    """A sound archive, unless the listing that is given says otherwise."""
    listing = make_listing(files).to_bytes() if listing is None else listing
    first = [entry(LISTING, listing)]
    if signature is not None:
        first.append(entry(SIGNATURE, signature))
    return archive_of([*first, *(entry(name, files[name]) for name in sorted(files))])


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
