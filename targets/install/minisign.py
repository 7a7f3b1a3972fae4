"""minisign's files: public keys and signatures (https://jedisct1.github.io/minisign/, sections on formats)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from motedge.errors import BundleError, UsageError
from motedge.targets.install import ed25519

_KEY_ALGORITHM = b"Ed"
# "ED": over the message's BLAKE2b-512, minisign's default since 0.8; "Ed": over the message itself
_PREHASHED, _PLAIN = b"ED", b"Ed"
_TRUSTED = "trusted comment: "
_ID_BYTES = 8


@dataclass(frozen=True)
class PublicKey:
    """Whom signatures are believed."""

    key_id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """As minisign prints it: 16 hexadecimal digits."""
        return _id_text(self.key_id)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From a .pub file's text, or its second line alone; UsageError where it is none."""
        lines = [line.strip() for line in text.strip().splitlines()]
        data = _decode(lines[-1] if lines else "")
        sound = len(lines) <= 2 and len(data) == len(_KEY_ALGORITHM) + _ID_BYTES + ed25519.KEY_BYTES
        if not sound or not data.startswith(_KEY_ALGORITHM):
            raise UsageError(
                "this is not a public key of minisign",
                expected="a .pub file, or the line of 56 characters in it that begins with RW",
                got=repr(text[:80]),
                fix="minisign -G makes a pair of keys",
            )
        return cls(data[2:10], data[10:])

    @classmethod
    def load(cls, text_or_file: str) -> PublicKey:
        """From a key given as text, or from a file."""
        path = Path(text_or_file)
        # A key in base64 may hold slashes, but no dot
        looks_like_a_file = "." in text_or_file or path.is_file()
        if not looks_like_a_file:
            return cls.parse(text_or_file)
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"can't read the public key {path}", got=str(error)) from error


@dataclass(frozen=True)
class Signature:
    """A .minisig file."""

    algorithm: bytes
    key_id: bytes
    signature: bytes
    # Signed too, by the second signature
    trusted_comment: str
    global_signature: bytes

    @property
    def key_name(self) -> str:
        """Of the key that claims to have signed."""
        return _id_text(self.key_id)

    @classmethod
    def parse(cls, data: bytes) -> Signature:
        """From a file's bytes; BundleError where they are none."""
        lines = data.decode("utf-8", errors="replace").splitlines()
        if len(lines) == 4 and lines[2].startswith(_TRUSTED):
            first, second = _decode(lines[1]), _decode(lines[3])
            if len(first) == 2 + _ID_BYTES + ed25519.SIGNATURE_BYTES and len(second) == ed25519.SIGNATURE_BYTES:
                return cls(first[:2], first[2:10], first[10:], lines[2][len(_TRUSTED) :], second)
        raise BundleError("the signature is damaged", expected="a .minisig file of minisign", fix="sign again")

    def matches(self, message: bytes, key: PublicKey) -> bool:
        """Whether this key signed this message and the trusted comment; HostError as in `ed25519.verify`."""
        if self.key_id != key.key_id or self.algorithm not in (_PREHASHED, _PLAIN):
            return False
        signed = hashlib.blake2b(message).digest() if self.algorithm == _PREHASHED else message
        comment = self.signature + self.trusted_comment.encode("utf-8")
        return ed25519.verify(key.key, signed, self.signature) and ed25519.verify(
            key.key, comment, self.global_signature
        )


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _id_text(key_id: bytes) -> str:
    # minisign prints the number, little-endian
    return key_id[::-1].hex().upper()
