"""Signatures: RFC 8032's own vectors, minisign's formats, and the program itself as the oracle."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from minisign_made import MadeKey

from motedge.errors import BundleError, UsageError
from motedge.targets.install import ed25519
from motedge.targets.install.minisign import PublicKey, Signature

# RFC 8032, section 7.1: TEST 1, 2, 3 (public key, message, signature)
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]
MINISIGN = shutil.which("minisign")
needs_minisign = pytest.mark.skipif(MINISIGN is None, reason="minisign is not installed: apt install minisign")


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_vectors_of_the_rfc(key: str, message: str, signature: str) -> None:
    public, text, good = bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)
    assert ed25519.verify(public, text, good)
    assert not ed25519.verify(public, text + b"x", good)
    assert not ed25519.verify(public, text, good[:-1] + bytes([good[-1] ^ 1]))
    assert not ed25519.verify(bytes.fromhex(VECTORS[0][0] if key != VECTORS[0][0] else VECTORS[1][0]), text, good)
    assert not ed25519.verify(public, text, good[:-1]) and not ed25519.verify(public[:-1], text, good)


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    assert not ed25519.verify(b"\xff" * 32, b"text", bytes(64))


@pytest.mark.parametrize("prehashed", [True, False])
def test_a_good_signature_and_each_way_of_spoiling_it(prehashed: bool) -> None:
    key, other = MadeKey.new(), MadeKey.new()
    public = PublicKey.parse(key.public_file)
    data = key.sign(b"text", "comment", prehashed=prehashed)
    signature = Signature.parse(data)
    assert signature.matches(b"text", public) and signature.key_name == public.name == key.name
    assert not signature.matches(b"texT", public)
    assert not signature.matches(b"text", PublicKey.parse(other.public))
    # The same id with another key: ids are not secret
    assert not signature.matches(b"text", PublicKey(key.key_id, other.raw_public))
    assert not Signature.parse(data.replace(b"comment: comment", b"comment: Comment")).matches(b"text", public)
    swapped = Signature(b"Ed" if prehashed else b"ED", *_rest(signature))
    assert not swapped.matches(b"text", public)


def _rest(signature: Signature) -> tuple[bytes, bytes, str, bytes]:
    return signature.key_id, signature.signature, signature.trusted_comment, signature.global_signature


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"untrusted comment: x\nAAAA\ntrusted comment: x\nAAAA\n"])
def test_a_damaged_signature_is_no_signature(damage: bytes) -> None:
    with pytest.raises(BundleError, match="signature is damaged"):
        Signature.parse(damage)
    whole = MadeKey.new().sign(b"text")
    with pytest.raises(BundleError, match="signature is damaged"):
        Signature.parse(whole[:-20])


@pytest.mark.parametrize(
    "text",
    ["", "RW", "hello world", "RWQ" + "A" * 52, pytest.param(MadeKey.new().public[:-4], id="cut off"), "a\nb\nc"],
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(UsageError, match="not a public key"):
        PublicKey.parse(text)


def test_a_key_is_given_as_text_or_as_a_file(tmp_path: Path) -> None:
    key = MadeKey.new()
    (tmp_path / "key.pub").write_text(key.public_file)
    assert PublicKey.load(key.public) == PublicKey.load(str(tmp_path / "key.pub"))
    with pytest.raises(UsageError, match="can't read the public key"):
        PublicKey.load(str(tmp_path / "none.pub"))


@needs_minisign
def test_minisign_and_we_agree(tmp_path: Path) -> None:
    """Its key and signature are good here, ours are good there, and its refusals are ours."""
    message = tmp_path / "text"
    message.write_bytes(b"some text\n")
    _minisign(tmp_path, "-G", "-W", "-p", "its.pub", "-s", "its.key")
    for arguments in ([], ["-l"]):
        _minisign(tmp_path, "-S", *arguments, "-s", "its.key", "-m", "text", "-x", "its.sig", "-t", "comment")
        public = PublicKey.load(str(tmp_path / "its.pub"))
        its = Signature.parse((tmp_path / "its.sig").read_bytes())
        assert its.matches(b"some text\n", public) and its.trusted_comment == "comment"
        assert not its.matches(b"some text", public)
    key = MadeKey.new()
    (tmp_path / "ours.sig").write_bytes(key.sign(b"some text\n"))
    assert _minisign(tmp_path, "-V", "-m", "text", "-x", "ours.sig", "-P", key.public) == 0
    message.write_bytes(b"another text\n")
    assert _minisign(tmp_path, "-V", "-m", "text", "-x", "ours.sig", "-P", key.public, check=False) != 0


def _minisign(folder: Path, *arguments: str, check: bool = True) -> int:
    command = [str(MINISIGN), *arguments]
    return subprocess.run(command, cwd=folder, check=check, capture_output=True, stdin=subprocess.DEVNULL).returncode
