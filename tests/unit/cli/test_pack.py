"""`motedge pack` and `motedge install` as a user types them: what they print, exit codes, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from minisign_made import MadeKey
from pack_scene import make_bundle
from packed import make_archive, make_listing

from motedge.cli.main import main
from motedge.targets.install import Store, trust
from motedge.targets.install.archive import Archive

ORIN = "jetson-orin-nano-8gb"


@pytest.fixture(autouse=True)
def no_trust_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", ["primitive-fp16", "fused-bf16"])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "edge.tar").write_bytes(make_archive())
    return tmp_path / "edge.tar"


def _pack(bundle: Path, *options: str, target: str = ORIN) -> int:
    return main(["pack", str(bundle), "--target", target, "--no-wheel", "--no-plan", *options])


def test_packing_says_what_and_for_what(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "edge.tar"
    assert _pack(bundle, "--release", "JetPack 6.2", "--out", str(out)) == 0
    said = capsys.readouterr()
    assert "gen_step primitive-fp16" in said.out and f"{ORIN}: JetPack 6.2" in said.out and "signed    no" in said.out
    assert "tar -xOf edge.tar install-jetpack6.sh | sudo bash -s -- edge.tar" in said.out
    assert "--model-license" in said.err
    with out.open("rb") as stream:
        assert Archive(stream).listing.variants == {"gen_step": "primitive-fp16", "und_prefill": "primitive-fp16"}


def test_packing_as_json(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "edge.tar"
    assert _pack(bundle, "--variant", "fused-bf16", "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["archive"], found["target"], found["signed"]) == (str(out), ORIN, False)
    assert [release["release"] for release in found["releases"]] == ["JetPack 7.2", "JetPack 7.2.1", "JetPack 7.2.2"]
    assert found["total_bytes"] == sum(entry["bytes"] for entry in found["files"].values())


def test_a_dry_run_lists_files(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _pack(bundle, "--release", "JetPack 6.2", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "graphs/weights/gen_step.fp16.data" in said and "fused-bf16" not in said
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize(
    ("options", "target", "code", "said"),
    [
        (["--dry-run"], ORIN, 2, "need different graphs"),
        ([], ORIN, 2, "--out FILE"),
        (["--dry-run"], "jetson-orin-nano-9gb", 2, "did you mean 'jetson-orin-nano-8gb'"),
        (["--dry-run", "--release", "JetPack 6.9"], ORIN, 2, "no release"),
        (["--dry-run", "--recipe", "fp8"], ORIN, 2, "motedge quantize"),
        (["--dry-run"], "cpu", 2, "primitive-fp32"),
        (["--dry-run", "--release", "JetPack 6.2", "--wheels", "/nowhere"], ORIN, 2, "no wheels"),
        (["--dry-run", "--release", "JetPack 6.2", "--engines-only"], ORIN, 2, "motedge build"),
    ],
)
def test_what_packing_refuses(
    options: list[str], target: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = ["fused-bf16"] if target == "cpu" else ["primitive-fp16", "fused-bf16"]
    assert _pack(make_bundle(tmp_path / "bundle", variants), *options, target=target) == code
    assert said in capsys.readouterr().err


def test_from_archive_to_active_bundle_and_back(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path / "device")]
    assert main(["install", "--list", *root]) == 0 and "nothing is installed" in capsys.readouterr().err
    assert main(["install", str(archive), "--any-device", *root]) == 0
    said = capsys.readouterr()
    assert "signature none" in said.out and "active    yes" in said.out and "not signed" in said.err
    first = Store(tmp_path / "device").current
    second = tmp_path / "second.tar"
    second.write_bytes(make_archive(listing=make_listing(motedge="0.1.1").to_bytes()))
    assert main(["install", str(second), "--any-device", "--no-switch", "--json", *root]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["active"] is False and Store(tmp_path / "device").current == first
    assert main(["install", "--activate", found["id"], *root]) == 0
    assert main(["install", "--list", *root]) == 0
    assert f"* {found['id']}" in capsys.readouterr().out
    assert main(["install", "--rollback", "--json", *root]) == 0
    assert json.loads(capsys.readouterr().out)["active"] == first
    assert main(["install", "--list", "--json", *root]) == 0
    rows = json.loads(capsys.readouterr().out)["bundles"]
    assert {row["id"]: row["active"] for row in rows} == {first: True, found["id"]: False}
    assert main(["install", "--rollback", *root]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


def test_a_dry_run_of_an_installation_writes_nothing(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", str(tmp_path / "device"), "--any-device", "--dry-run"]
    assert main(["install", str(archive), *root]) == 0
    assert "whole" in capsys.readouterr().out and not (tmp_path / "device").exists()
    archive.write_bytes(archive.read_bytes()[:-3000])
    assert main(["install", str(archive), *root]) == 2
    assert "ends too early" in capsys.readouterr().err


def test_an_archive_comes_from_a_pipe_too(archive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "motedge", "install", "-", "--root", str(tmp_path / "device"), "--any-device"]
    done = subprocess.run(command, stdin=archive.open("rb"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "device/current/LICENSE").is_file()


def test_another_device_s_archive(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This machine is no Orin Nano, whatever it is."""
    assert main(["install", str(archive), "--root", str(tmp_path / "device")]) == 3
    said = capsys.readouterr().err
    assert "packed for another device" in said and "--any-device" in said and not (tmp_path / "device").exists()


def test_a_device_that_demands_signatures(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = MadeKey.new()
    text = f'schema = "motedge.trust/v1"\nrequire_signature = true\npublic_keys = ["{key.public}"]\n'
    (tmp_path / "trust.toml").write_text(text)
    monkeypatch.setenv(trust.VARIABLE, str(tmp_path / "trust.toml"))
    command = ["install", str(archive), "--any-device", "--root", str(tmp_path / "device")]
    assert main(command) == 2
    assert "not signed" in capsys.readouterr().err and not (tmp_path / "device").exists()
    archive.write_bytes(make_archive(signature=key.sign(make_listing().to_bytes())))
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["key"], found["signature_checked"]) == (key.name, True)
    assert main([*command, "--require-signature", MadeKey.new().public]) == 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["none.tar"], 2, "can't read the archive"),
        (["--activate", "x"], 2, "no bundle 'x'"),
        (["--rollback"], 2, "nothing to go back to"),
        (["edge.tar", "--keep", "0"], 2, "--keep"),
        (["edge.tar", "--require-signature", "RWQ"], 2, "not a public key"),
    ],
)
def test_what_installing_refuses(
    options: list[str],
    code: int,
    said: str,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["install", *options, "--root", str(tmp_path / "device")]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["edge.tar", "--list"], ["--list", "--rollback"]])
def test_one_thing_at_a_time(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["install", *options, "--root", "x"])
    assert caught.value.code == 2
