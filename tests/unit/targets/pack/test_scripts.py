"""Install scripts: sound by shellcheck, and on devices made of stubs they do what they say or say what is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from device_stubs import Device
from minisign_made import MadeKey
from pack_scene import make_bundle, make_wheel

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.targets.catalog import load_target
from motedge.targets.pack import PackOptions, pack
from motedge.targets.pack.scripts import ScriptFacts, fill, install_scripts
from motedge.targets.pack.serve import Wish

FACTS = ScriptFacts(
    "edge-policy-droid-droid", 6_000_000_000, 6_000_000_000, "motedge-0.1.0-py3-none-any.whl", "0" * 8, False
)
SHELLCHECK = shutil.which("shellcheck")


def _scripts(target: str) -> dict[str, str]:
    found = load_target(target)
    return dict(install_scripts(found, found.software, FACTS))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return _archive(tmp_path)


def _archive(folder: Path, **options: Any) -> Path:
    bundle = Bundle.open(make_bundle(folder / "bundle"))
    values = {"plan": False, "wheel": make_wheel(folder / "wheel"), "wish": Wish(release="JetPack 6.2"), **options}
    pack(bundle, load_target("jetson-orin-nano-8gb"), folder / "a.tar", PackOptions(**values))
    return folder / "a.tar"


def _script(archive: Path) -> Path:
    subprocess.run(["tar", "-xf", archive.name, "install-jetpack6.sh"], cwd=archive.parent, check=True)
    return archive.parent / "install-jetpack6.sh"


def test_a_script_a_generation_of_system_software() -> None:
    assert set(_scripts("jetson-orin-nano-8gb")) == {"install-jetpack6.sh", "install-jetpack7.sh"}
    assert set(_scripts("jetson-agx-thor-t5000")) == {"install-jetpack7.sh"}
    for target in ("rtx-4090", "cpu", "dgx-spark", "drive-agx-thor", "h200"):
        assert set(_scripts(target)) == {"install.sh"}
    six, seven = _scripts("jetson-orin-nano-8gb").values()
    assert 'PYTHONS="3.10"' in six and 'L4T_RELEASES="36.4 36.5"' in six and 'MODULE_LEAST="10.3"' in six
    assert 'PYTHONS="3.12"' in seven and 'L4T_RELEASES="39.2"' in seven and 'MODULE_LEAST="10.16"' in seven
    assert 'MODULE="tensorrt_rtx"' in _scripts("rtx-4090")["install.sh"]


def test_values_can_not_leave_their_quotes() -> None:
    for value in ('a"; rm -rf /; "', "$(id)", "`id`", "a\\", "a\nb"):
        with pytest.raises(InternalError, match="within quotes"):
            fill('x="@X@"', {"X": value})
    with pytest.raises(InternalError, match="places and values"):
        fill('x="@X@"', {"Y": "1"})
    assert fill('x="@X@"', {"X": "1"}) == 'x="1"'


@pytest.mark.parametrize(
    "target", ["jetson-orin-nano-8gb", "jetson-agx-thor-t5000", "drive-agx-thor", "rtx-4090", "cpu"]
)
def test_every_script_is_sound_shell(target: str, tmp_path: Path) -> None:
    for name, text in _scripts(target).items():
        path = tmp_path / name
        path.write_text(text)
        subprocess.run(["bash", "-n", str(path)], check=True)
        if SHELLCHECK is not None:
            done = subprocess.run([SHELLCHECK, str(path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("piped", [False, True])
def test_one_command_installs_the_program_and_then_the_bundle(piped: bool, archive: Path, tmp_path: Path) -> None:
    device, root = Device(tmp_path / "device"), tmp_path / "opt"
    done = device.run(_script(archive), str(archive), "--root", str(root), piped=piped)
    assert done.returncode == 0, done.stderr
    made, pip, motedge = device.calls
    assert "--system-site-packages" in made and str(root / "venvs") in made
    assert pip.endswith("wheels/motedge-0.1.0-py3-none-any.whl") and "--no-index" not in pip
    assert motedge == f"motedge install {archive} --root {root} --build"
    assert (root / "motedge").is_symlink() and (root / "motedge").exists()
    # Again: the program is there
    device.run(_script(archive), str(archive), "--root", str(root))
    assert device.calls[3:] == [motedge]


def test_wheels_in_the_archive_need_no_network(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "jinja2-3.1.6-py3-none-any.whl")
    archive = _archive(tmp_path, wheels=tmp_path / "wheels")
    device = Device(tmp_path / "device")
    assert device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt")).returncode == 0
    assert "--no-index" in device.calls[1]


def test_only_looking_changes_nothing(archive: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    done = device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt"), "--check")
    assert done.returncode == 0 and device.calls == [] and not (tmp_path / "opt").exists()


@pytest.mark.parametrize(
    ("says", "error", "fix"),
    [
        ({"machine": "x86_64"}, "processor is x86_64", "run this on the device"),
        ({"l4t": None}, "this is no Jetson", ""),
        (
            {"l4t": "39.2.0-2026"},
            "runs Jetson Linux 39.2.0",
            "motedge pack BUNDLE --target jetson-orin-nano-8gb --release",
        ),
        ({"l4t": "35.4.1-2023"}, "runs Jetson Linux 35.4.1", "--release"),
        ({"python": None}, "there is no Python", "apt install python3"),
        ({"python": "3.12"}, "is Python 3.12", "--python /usr/bin/python3"),
        ({"venv": False}, "can't make virtual environments", "apt install python3-venv"),
        ({"module": None}, "can't import tensorrt", "apt install python3-libnvinfer"),
        ({"module": "8.6.2"}, "TensorRT 8.6.2 is not what", "--release"),
        ({"module": "11.4.1"}, "TensorRT 11.4.1 is not what", "--release"),
        ({"free_kb": 1000}, "too little disk space", "free some space"),
    ],
)
def test_what_is_missing_is_said_and_nothing_changed(
    says: dict[str, Any], error: str, fix: str, archive: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path / "device", **says)
    done = device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt"))
    assert done.returncode == 3 and error in done.stderr and fix in done.stderr
    assert "1 problems; nothing was changed" in done.stderr
    assert device.calls == [] and not (tmp_path / "opt").exists()


def test_all_that_is_missing_is_said_at_once(archive: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", machine="x86_64", l4t=None, module=None, free_kb=1)
    done = device.run(_script(archive), str(tmp_path / "none.tar"), "--root", str(tmp_path / "opt"))
    assert done.returncode == 3 and "5 problems" in done.stderr


@pytest.mark.parametrize("l4t", ["36.4.7-2025", "36.6.0-2027"])
def test_a_newer_patch_of_the_same_generation_goes_on(l4t: str, archive: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", l4t=l4t, module="10.7.0")
    done = device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt"))
    assert done.returncode == 0 and ("warning" in done.stderr) == (not l4t.startswith("36.4"))


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--rot", "x"], ["a", "--root"]])
def test_usage(arguments: list[str], archive: Path, tmp_path: Path) -> None:
    done = Device(tmp_path / "device").run(_script(archive), *arguments)
    assert done.returncode == 2 and "usage:" in done.stderr


def test_what_is_no_archive(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(b"text")
    done = Device(tmp_path / "device").run(_script(archive), str(tmp_path / "other.tar"), "--root", str(tmp_path / "o"))
    assert done.returncode == 3 and "is not an archive of motedge pack" in done.stderr


def test_a_wheel_that_was_exchanged_is_not_installed(archive: Path, tmp_path: Path) -> None:
    """The wheel runs before motedge could check anything, so the script checks it."""
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"License-Expression: Apache-2.0", b"License-Expression: Apache-2.1"))
    device = Device(tmp_path / "device")
    done = device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt"))
    assert done.returncode != 0 and "differs from what was packed" in done.stderr
    assert not [call for call in device.calls if call.startswith(("pip", "motedge"))]


def test_a_failure_of_pip_is_not_taken_for_an_installation(archive: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", pip_code=1)
    assert device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt")).returncode != 0
    assert len(device.calls) == 2
    device.pip_code = 0
    assert device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt")).returncode == 0
    assert len(device.calls) == 5


def test_motedge_s_own_refusal_is_the_script_s(archive: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", motedge_code=2)
    assert device.run(_script(archive), str(archive), "--root", str(tmp_path / "opt"), "--any-device").returncode == 2
    assert device.calls[-1].endswith("--any-device --build")


def test_a_device_without_a_wheel_needs_motedge(tmp_path: Path) -> None:
    archive = _archive(tmp_path, wheel=None, no_wheel=True)
    device = Device(tmp_path / "device", environment={"HOME": str(tmp_path)})
    script = _script(archive)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/motedge").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "opt/motedge").chmod(0o755)
    assert device.run(script, str(archive), "--root", str(tmp_path / "opt")).returncode == 0


@pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed: apt install minisign")
def test_a_signature_that_is_required_is_checked_before_anything_is_installed(archive: Path, tmp_path: Path) -> None:
    key = ["minisign", "-G", "-W", "-p", str(tmp_path / "k.pub"), "-s", str(tmp_path / "k.sec")]
    subprocess.run(key, check=True, capture_output=True)
    device, script = Device(tmp_path / "device"), _script(archive)
    for public in (str(tmp_path / "k.pub"), MadeKey.new().public):
        done = device.run(script, str(archive), "--root", str(tmp_path / "opt"), "--require-signature", public)
        assert done.returncode == 3 and "not signed by the key" in done.stderr and device.calls == []
    shutil.rmtree(tmp_path / "bundle")
    signed = _archive(tmp_path, sign=tmp_path / "k.sec")
    for public in (str(tmp_path / "k.pub"), (tmp_path / "k.pub").read_text().splitlines()[1]):
        done = device.run(script, str(signed), "--root", str(tmp_path / "opt"), "--require-signature", public)
        assert done.returncode == 0, done.stderr
        assert device.calls[-1].endswith(f"--require-signature {public} --build")
