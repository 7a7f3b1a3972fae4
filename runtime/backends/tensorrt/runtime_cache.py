"""TensorRT-RTX compiles kernels on the device; what it compiled is kept in a file, so that the next start is quick.

The file lies beside the engine, or in a folder of its own, and is named after everything that its content depends on.
The library refuses content of another GPU or version; a checksum in front finds damage that it might not.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import MotedgeError
from motedge.files import atomic_open, sha256_file, write_chunks
from motedge.runtime.cuda.interface import DeviceFacts

if TYPE_CHECKING:
    from motedge.runtime.backends.tensorrt.calls import LibraryCalls

_MAGIC = b"motedge runtime cache 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_KEY_LETTERS = 16
_log = logging.getLogger(__name__)


def cache_path(engine: Path, sha256: Optional[str], version: str, facts: DeviceFacts, folder: Optional[Path]) -> Path:
    """Where the cache of an engine lies.

    Args:
        engine: its file.
        sha256: of the file; None: computed.
        version: of TensorRT-RTX.
        facts: the GPU; its driver compiles the kernels.
        folder: None: the engine's own.
    """
    driver = ".".join(map(str, facts.driver_cuda))
    parts = [sha256 or sha256_file(engine), version, facts.name, facts.compute_capability, driver]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_LETTERS]
    return (folder or engine.parent) / f"{engine.name}.{key}.kernels"


class RuntimeCacheFile:
    """One engine's compiled kernels: an IRuntimeCache, and the file behind it. Losing it costs time, nothing else."""

    def __init__(self, path: Path, calls: LibraryCalls) -> None:
        self.path, self._calls = path, calls
        # IRuntimeCache, shared by the engine's contexts; made of the first IRuntimeConfig
        self._cache: Any = None
        self._saved: Optional[bytes] = None

    def give(self, config: Any) -> None:
        """Gives an IRuntimeConfig the cache, with what the file holds.

        Raises:
            EngineError: the library does not take it.
        """
        if self._cache is None:
            self._cache = self._calls.require("make a cache of kernels", config.create_runtime_cache)
            self._read()
        self._calls.require("take its cache of kernels", config.set_runtime_cache, self._cache)

    def save(self) -> bool:
        """Writes the file if there is something new. Failures are warnings: the engine runs without."""
        if self._cache is None:
            return False
        try:
            content = bytes(self._calls.require("write its cache of kernels", self._cache.serialize))
            digest = hashlib.sha256(content).digest()
            if digest == self._saved:
                return False
            with atomic_open(self.path) as stream:
                stream.write(_MAGIC + digest)
                write_chunks(stream, memoryview(content))
        except (MotedgeError, OSError) as error:
            _log.warning("compiled kernels are not kept: %s", error)
            return False
        self._saved = digest
        return True

    def _read(self) -> None:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s can't be read, kernels are compiled again: %s", self.path, error)
            return
        head = len(_MAGIC) + _DIGEST_BYTES
        digest, content = raw[len(_MAGIC) : head], raw[head:]
        if not raw.startswith(_MAGIC) or hashlib.sha256(content).digest() != digest:
            self._drop("it is damaged")
        elif not self._calls.value("read its cache of kernels", self._cache.deserialize, content):
            self._drop("; ".join(self._calls.logger.errors) or "the library refuses it")
        else:
            self._saved = digest

    def _drop(self, reason: str) -> None:
        _log.warning("%s is dropped, kernels are compiled again: %s", self.path, reason)
        try:
            self.path.unlink()
        except OSError as error:
            _log.warning("%s can't be removed: %s", self.path, error)
