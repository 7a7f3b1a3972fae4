"""Power fails at any step of an installation: what was active stays so or what comes is, and either is whole.

A child process installs; an audit hook (PEP 578) sees every file that it opens, renames, links or removes, and ends the
process at the n-th of them, without any clean-up, for every n there is.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packed import FILES, make_archive, stream

from motedge.files import sha256_file
from motedge.targets.install import InstallOptions, PackListing, Store, install

_KILLED, _FAILED = 9, 1
_EVENTS = ("open", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.link")


def _install(root: Path, data: bytes) -> str:
    return install(stream(data), root, InstallOptions(trust_file=root / "none")).id


def _run(root: Path, last: int, action: Callable[[], object]) -> int:
    """Runs an action in a process that dies at the last-th change below `root`; 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_Killer(str(root), last))
            action()
            os._exit(0)
        finally:
            os._exit(_FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class _Killer:
    def __init__(self, root: str, last: int) -> None:
        self._root, self._left = root, last

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS and self._root in " ".join(map(str, arguments)):
            self._left -= 1
            if self._left == 0:
                os._exit(_KILLED)


def _go_back(root: Path) -> None:
    with Store(root).lock():
        Store(root).rollback()


def _require_whole(root: Path, allowed: set[str]) -> str:
    current = Store(root).current
    assert current in allowed
    for entry in Store(root).installed():
        # Whatever has a bundle's name is whole, active or not
        listing = PackListing.from_bytes((entry.path / "pack.json").read_bytes())
        for name, file in listing.files.items():
            assert sha256_file(entry.path / name) == file.sha256
    return str(current)


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, bytes, list[str]]:
    """A store of two bundles, the archive of a third, the two ids."""
    root = tmp_path / "device"
    ids = [_install(root, make_archive({**FILES, "number": bytes([number])})) for number in range(2)]
    return root, make_archive({**FILES, "number": b"third"}), ids


def test_while_a_bundle_is_installed(scene: tuple[Path, bytes, list[str]], tmp_path: Path) -> None:
    root, third, ids = scene
    seen: list[bool] = []
    for last in range(1, 200):
        copy = tmp_path / f"copy{last}"
        subprocess.run(["cp", "-a", str(root), str(copy)], check=True)
        ended = _run(copy, last, functools.partial(_install, copy, third))
        current = _require_whole(copy, {ids[1], *_new(copy, ids)})
        seen.append(current == ids[1])
        # The next attempt succeeds, and the way back leads to what was active
        new = _install(copy, third)
        assert _require_whole(copy, {new}) == new
        assert not [p for p in (copy / "bundles").iterdir() if p.name.startswith(".")]
        assert Store(copy).rollback() == (new, ids[1])
        if ended == 0:
            # Before the switch, and after it
            assert seen.count(True) > 20 and seen.count(False) > 1 and current == new
            return
        assert ended == _KILLED
    pytest.fail("the installation takes more steps than were tried")


def test_while_one_goes_back(scene: tuple[Path, bytes, list[str]], tmp_path: Path) -> None:
    root, _, ids = scene
    seen = set()
    for last in range(1, 50):
        copy = tmp_path / f"copy{last}"
        subprocess.run(["cp", "-a", str(root), str(copy)], check=True)
        ended = _run(copy, last, functools.partial(_go_back, copy))
        seen.add(_require_whole(copy, set(ids)))
        if ended == 0:
            assert Store(copy).current == ids[0] and seen == set(ids)
            return
    pytest.fail("going back takes more steps than were tried")


def _new(root: Path, known: list[str]) -> set[str]:
    return {entry.id for entry in Store(root).installed()} - set(known)


def test_everything_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename may reach the disk before the data does, unless the data was flushed: every file and folder is."""
    flushed: list[Path] = []
    renamed: list[tuple[Path, list[Path]]] = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_sync(descriptor)

    def rename(self: Path, target: Any) -> Path:
        renamed.append((self, sorted(self.rglob("*"))))
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    root = tmp_path / "device"
    _install(root, make_archive())
    (folder, content), *_ = renamed
    assert len(content) > len(FILES) and set(content) | {folder} <= set(flushed)
    # And the names of the bundle and of the link
    assert {root / "bundles", root} <= set(flushed)
