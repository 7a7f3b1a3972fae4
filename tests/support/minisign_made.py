"""Keys and signatures in minisign's formats, made by OpenSSL for the length of a test. No key is ever kept."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from motedge.targets.install.ed25519 import libcrypto

_EVP_PKEY_ED25519 = 1087


@dataclass(frozen=True)
class MadeKey:
    """A pair of keys."""

    key_id: bytes
    seed: bytes

    @classmethod
    def new(cls) -> MadeKey:
        return cls(os.urandom(8), os.urandom(32))

    @property
    def raw_public(self) -> bytes:
        crypto, key = libcrypto(), self._private()
        out, size = ctypes.create_string_buffer(32), ctypes.c_size_t(32)
        function = crypto.EVP_PKEY_get_raw_public_key
        function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t)]
        assert function(key, out, ctypes.byref(size)) == 1
        crypto.EVP_PKEY_free(key)
        return out.raw

    @property
    def public(self) -> str:
        """The line that goes into trust files and behind --require-signature."""
        return _base64(b"Ed" + self.key_id + self.raw_public)

    @property
    def public_file(self) -> str:
        """A .pub file's text."""
        return f"untrusted comment: minisign public key\n{self.public}\n"

    @property
    def name(self) -> str:
        return self.key_id[::-1].hex().upper()

    def sign(self, message: bytes, comment: str = "made by a test", *, prehashed: bool = True) -> bytes:
        """A .minisig file."""
        signed = hashlib.blake2b(message).digest() if prehashed else message
        signature = self.raw_sign(signed)
        lines = (
            "untrusted comment: signature from a test",
            _base64((b"ED" if prehashed else b"Ed") + self.key_id + signature),
            f"trusted comment: {comment}",
            _base64(self.raw_sign(signature + comment.encode())),
        )
        return ("\n".join(lines) + "\n").encode()

    def raw_sign(self, message: bytes) -> bytes:
        crypto, key = libcrypto(), self._private()
        crypto.EVP_DigestSignInit.argtypes = [ctypes.c_void_p] * 5
        crypto.EVP_DigestSign.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_char_p, ctypes.c_size_t)
        ]
        context = crypto.EVP_MD_CTX_new()
        out, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        assert crypto.EVP_DigestSignInit(context, None, None, None, key) == 1
        assert crypto.EVP_DigestSign(context, out, ctypes.byref(size), message, len(message)) == 1
        crypto.EVP_MD_CTX_free(context)
        crypto.EVP_PKEY_free(key)
        return out.raw

    def _private(self) -> int:
        function = libcrypto().EVP_PKEY_new_raw_private_key
        function.restype = ctypes.c_void_p
        function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        return int(function(_EVP_PKEY_ED25519, None, self.seed, 32))


def install_fake_minisign(folder: Path) -> Path:
    """A program `minisign` that signs with a MadeKey whose id and seed are the secret key file's two lines in hex."""
    program = folder / "minisign"
    support = Path(__file__).resolve().parent
    program.write_text(
        f"""#!{sys.executable}
import pathlib, sys
sys.path.insert(0, {str(support)!r})
from minisign_made import MadeKey
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert sys.argv[1] == "-S" and set(options) == {{"-s", "-m", "-x", "-t"}}, sys.argv
try:
    key_id, seed = map(bytes.fromhex, pathlib.Path(options["-s"]).read_text().split())
except ValueError:
    sys.exit("not a secret key")
message = pathlib.Path(options["-m"]).read_bytes()
pathlib.Path(options["-x"]).write_bytes(MadeKey(key_id, seed).sign(message, options["-t"]))
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def secret_file(key: MadeKey, path: Path) -> Path:
    """What the program above takes for a secret key."""
    path.write_text(f"{key.key_id.hex()}\n{key.seed.hex()}\n")
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
