"""Signing with minisign, the program: the secret key never passes through this one, and its password is asked there."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from motedge.errors import HostError, UsageError
from motedge.targets.install.listing import LISTING, SIGNATURE
from motedge.targets.install.minisign import Signature


def sign(message: bytes, secret_key: Path, comment: str) -> bytes:
    """A .minisig file over `message`. The same key, message and comment give the same bytes.

    Args:
        message: pack.json.
        secret_key: a secret key of minisign's.
        comment: one line, signed as well; `minisign -V` shows it.

    Raises:
        UsageError: no such key, a wrong password, or a file that is no secret key.
        HostError: minisign is not installed.
    """
    program = require_minisign()
    if not secret_key.is_file():
        raise UsageError(f"there is no key {secret_key}", fix="minisign -G makes a pair of keys")
    with tempfile.TemporaryDirectory(prefix="motedge-sign-") as folder:
        path, out = Path(folder) / LISTING, Path(folder) / SIGNATURE
        path.write_bytes(message)
        command = [program, "-S", "-s", str(secret_key), "-m", str(path), "-x", str(out), "-t", comment]
        # stdin and stderr stay the terminal's: minisign asks for the key's password
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode != 0 or not out.is_file():
            raise UsageError(
                f"minisign did not sign with {secret_key}",
                got=f"exit code {done.returncode}",
                fix="minisign says above why: a wrong password, or not a secret key",
            )
        signature = out.read_bytes()
    Signature.parse(signature)
    return signature


def require_minisign() -> str:
    """The program's path; HostError where it is not installed."""
    found = shutil.which("minisign")
    if found is None:
        raise HostError(
            "minisign is needed to sign, and is not installed",
            fix="sudo apt install minisign, brew install minisign, or https://jedisct1.github.io/minisign",
        )
    return found
