"""`motedge run --recorder` and `motedge replay` on a tiny bundle: bit for bit, and what is noticed when it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quant_scene import export_policy, observation

from motedge.cli.main import main
from motedge.files import sha256_file
from motedge.runtime.policy.observation_folder import write_observation
from motedge.runtime.recorder.ring_writer import RingWriter
from motedge.runtime.recorder.segment import read_segment, segments
from motedge.runtime.recorder.tick_record import SESSION, TICK, decode, encode

pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_policy(checkpoints["edge"], tmp_path_factory.mktemp("replay") / "bundle", "primitive-fp32").root


@pytest.fixture(scope="module")
def ring(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of other settings and instructions, in one ring."""
    root = tmp_path_factory.mktemp("ring")
    scene = write_observation(root / "scene", observation()).parent
    command = ["run", str(bundle), "--observation", str(scene), "--recorder", str(root / "ring"), "--threads", "1"]
    assert main([*command, "--repeat", "3"]) == 0
    assert main([*command, "--instruction", "lift the lid", "--steps", "2", "--guidance-interval", "900", "1001"]) == 0
    return root / "ring"


def _copy(ring: Path, folder: Path) -> Path:
    return Path(shutil.copytree(ring, folder / "ring"))


def test_bit_for_bit(bundle: Path, ring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(ring), str(bundle)]) == 0
    assert "4 same, 0 different, 0 skipped; the recording is whole" in capsys.readouterr().out
    assert main(["replay", str(ring), str(bundle), "--last", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] and [tick["outcome"] for tick in document["ticks"]] == ["same"]
    assert list(document["differences"].values()) == [[]]


def test_listing(ring: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(ring), "--list"]) == 0
    out = capsys.readouterr().out
    assert "4 ticks; the recording is whole" in out and "lift the lid" in out
    assert main(["replay", str(ring), "--list", "--json", "--tick", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["ticks"]) == 2 and document["ticks"][1]["settings"]["steps"] == 2
    assert document["ticks"][0]["session"]["variants"]["gen_step"] == "primitive-fp32"


def test_one_bit_more_is_a_difference(
    bundle: Path, ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = RingWriter(tmp_path / "ring", 100 << 20)
    for record in read_segment(segments(ring)[0][1]):
        entry = decode(record.payload)
        arrays = dict(entry.arrays)
        if entry.kind == TICK:
            arrays["actions"][0, 0] = np.nextafter(arrays["actions"][0, 0], np.float32(9))
        writer.append(encode(entry.kind, entry.document, arrays))
    writer.close()
    assert main(["replay", str(tmp_path / "ring"), str(bundle), "--last", "1"]) == 1
    assert "different, by" in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "ring"), str(bundle), "--last", "1", "--within", "1e-5"]) == 0


def test_a_torn_ring_gives_what_is_whole(
    bundle: Path, ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = _copy(ring, tmp_path)
    path = segments(copy)[0][1]
    path.write_bytes(path.read_bytes()[:-1000])
    assert main(["replay", str(copy), str(bundle)]) == 0
    out = capsys.readouterr().out
    assert "3 same" in out and "1 records lost" in out and f"{path.name} torn at byte" in out


def test_another_bundle_is_refused(
    bundle: Path, ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "notes": ["another"]}))
    assert sha256_file(other / "manifest.json") != sha256_file(bundle / "manifest.json")
    assert main(["replay", str(ring), str(other)]) == 2
    assert "no tick of this bundle" in capsys.readouterr().err
    for arguments, said in (
        ([str(tmp_path / "none"), str(bundle)], "no recording"),
        ([str(ring)], "needs the bundle"),
        ([str(ring), str(bundle), "--last", "0"], "--last"),
        ([str(ring), str(bundle), "--engine", "onnxruntim"], "onnxruntime"),
    ):
        assert main(["replay", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_another_machine_is_named(bundle: Path, ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = RingWriter(tmp_path / "ring", 100 << 20)
    for record in read_segment(segments(ring)[1][1]):
        entry = decode(record.payload)
        document = {**entry.document, "machine": "another"} if entry.kind == SESSION else entry.document
        writer.append(encode(entry.kind, document, entry.arrays))
    writer.close()
    assert main(["replay", str(tmp_path / "ring"), str(bundle)]) == 0
    assert "machine: another when recorded" in capsys.readouterr().out


def test_a_run_with_a_deadline_is_recorded_with_its_point(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_observation(tmp_path / "scene", observation(1)).parent
    command = ["run", str(bundle), "--observation", str(scene), "--recorder", str(tmp_path / "ring"), "--threads", "1"]
    assert main([*command, "--deadline-ms", "60000", "--repeat", "2"]) == 0
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "ring"), "--list"]) == 0
    assert ", shipped" in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "ring"), str(bundle)]) == 0
    assert "2 same" in capsys.readouterr().out
    assert main([*command, "--recorder-mb", "0"]) == 2
