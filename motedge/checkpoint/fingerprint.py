"""A checkpoint's identity in milliseconds: configs, shard headers, and a few bytes of every tensor.

Hashing 130 GB takes minutes. A retrained or repaired checkpoint changes its tensors all over, so four short samples of
each tell it apart from the old one. It is no proof against tampering: the bundle's own files carry full sha256 sums.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from motedge.checkpoint.tensor_store import TensorStore

CONFIG_FILES = (
    "config.json",
    "checkpoint.json",
    "model_index.json",
    "modular_model_index.json",
    "motedge.json",
    "transformer/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_tokenizer/tokenizer.json",
    "text_tokenizer/tokenizer_config.json",
    "text_tokenizer/chat_template.jinja",
)
_SAMPLES = 4
_SAMPLE_BYTES = 256


def fingerprint(root: Path, stores: Iterable[TensorStore], revision: str | None) -> str:
    """The hex sha256 over everything that says which checkpoint this is; equal for a copy elsewhere."""
    digest = hashlib.sha256(f"motedge.fingerprint/v1 {revision}".encode())
    for name in CONFIG_FILES:
        path = root / name
        if path.exists():
            digest.update(f"\n{name} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
    for store in stores:
        for file, header in store.headers.items():
            digest.update(f"\n{store.folder.name}/{file.name} {file.stat().st_size}\n".encode())
            digest.update(header)
        _add_samples(digest, store)
    return digest.hexdigest()


def _add_samples(digest: hashlib._Hash, store: TensorStore) -> None:
    descriptors = {file: os.open(file, os.O_RDONLY) for file in store.headers}
    try:
        for key in store:
            entry = store.entry(key)
            span = max(entry.size - _SAMPLE_BYTES, 0)
            for index in range(_SAMPLES):
                start = entry.offset + span * index // (_SAMPLES - 1)
                length = min(_SAMPLE_BYTES, entry.size)
                digest.update(os.pread(descriptors[entry.file], length, start))
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
