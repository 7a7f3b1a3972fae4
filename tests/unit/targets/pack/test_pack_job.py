"""Archives: the same bytes again, only what the device needs, nothing where something is wrong."""

from __future__ import annotations

import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from minisign_made import MadeKey, install_fake_minisign, secret_file
from pack_scene import GRAPHS, add_engines, make_bundle, make_wheel

from motedge.bundle import Bundle
from motedge.bundle.summary import find_damage, summarize
from motedge.errors import BundleError, HostError, UsageError
from motedge.files import sha256_file
from motedge.runtime.engine_files import EngineFiles
from motedge.targets.catalog import load_target
from motedge.targets.install import InstallOptions, install
from motedge.targets.pack import PackOptions, PackReport, pack, plan_pack
from motedge.targets.pack.serve import Wish

ORIN = "jetson-orin-nano-8gb"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", ["primitive-fp16", "primitive-fp32", "primitive-fp16-int8-sq"])


def _pack(root: Path, out: Path, target: str = ORIN, **options: Any) -> PackReport:
    return pack(
        Bundle.open(root), load_target(target), out, PackOptions(**{"no_wheel": True, "plan": False, **options})
    )


def _unpacked(archive: Path, folder: Path) -> Path:
    with archive.open("rb") as stream:
        report = install(stream, folder, InstallOptions(trust_file=folder / "none"))
    return report.path


def test_the_archive_opens_as_a_bundle_with_one_variant(root: Path, tmp_path: Path) -> None:
    report = _pack(root, tmp_path / "a.tar")
    folder = _unpacked(tmp_path / "a.tar", tmp_path / "device")
    bundle = Bundle.open(folder)
    assert find_damage(bundle) == [] and summarize(bundle)["total"]["files"] == len(bundle.manifest.files)
    assert {g: list(e.variants) for g, e in bundle.manifest.graphs.items()} == {g: ["primitive-fp16"] for g in GRAPHS}
    assert set(report.listing.files) == {
        *("LICENSE", "NOTICE", "manifest.json", "install-jetpack6.sh", "install-jetpack7.sh"),
        *("tables/inv_freq.bin", "tokenizer/tokenizer.json", "samples/gen_step.npz"),
        *(f"contracts/{graph}.json" for graph in GRAPHS),
        *(f"graphs/{graph}.primitive-fp16.onnx" for graph in GRAPHS),
        *(f"graphs/weights/{graph}.fp16.data" for graph in GRAPHS),
    }
    assert bundle.manifest.notes[0] == "weights are random" and "packed for" in bundle.manifest.notes[-1]
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert os.access(folder / "install-jetpack6.sh", os.X_OK)


def test_a_quantized_one_brings_its_evidence_and_not_its_statistics(root: Path, tmp_path: Path) -> None:
    report = _pack(root, tmp_path / "a.tar", wish=Wish(recipe="int8-sq"))
    names = set(report.listing.files)
    assert report.listing.recipe == "int8-sq" and report.listing.name == "edge-policy-droid-droid-int8-sq"
    assert {"fidelity/int8-sq/report.json", "calibration/int8-sq/recipe.toml"} <= names
    assert "calibration/int8-sq/ranges.npz" not in names


def test_the_name_is_not_of_another_embodiment(root: Path, tmp_path: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    manifest.update(policy={"embodiment": "av"}, shape_set={"name": "av"})
    (root / "manifest.json").write_text(json.dumps(manifest))
    assert _pack(root, tmp_path / "a.tar", wish=Wish(recipe="int8-sq")).listing.name == "edge-policy-av-int8-sq"


def test_the_same_bundle_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w")
    one = _pack(root, tmp_path / "one.tar", no_wheel=False, wheel=wheel)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    copy = make_bundle(tmp_path / "elsewhere", ["primitive-fp16", "primitive-fp32", "primitive-fp16-int8-sq"])
    for source in (root, copy):
        two = _pack(source, tmp_path / "two.tar", no_wheel=False, wheel=wheel)
        assert one.sha256 == two.sha256 == sha256_file(tmp_path / "two.tar") == sha256_file(tmp_path / "one.tar")


def test_nothing_of_who_packed_when_is_in_it(root: Path, tmp_path: Path) -> None:
    _pack(root, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        for info in archive.getmembers():
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)
    assert str(tmp_path).encode() not in (tmp_path / "a.tar").read_bytes()


def test_weights_pass_through_in_pieces(root: Path, tmp_path: Path) -> None:
    weights = root / "graphs/weights/gen_step.fp16.data"
    with weights.open("wb") as stream:
        stream.truncate(48_000_000)
    raw = json.loads((root / "manifest.json").read_text())
    raw["files"]["graphs/weights/gen_step.fp16.data"].update(bytes=48_000_000, sha256=sha256_file(weights))
    (root / "manifest.json").write_text(json.dumps(raw))
    tracemalloc.start()
    _pack(root, tmp_path / "a.tar")
    _unpacked(tmp_path / "a.tar", tmp_path / "device")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_engines_go_along_without_what_they_were_not_chosen_for(root: Path, tmp_path: Path) -> None:
    add_engines(root, ORIN, "primitive-fp16")
    report = _pack(root, tmp_path / "a.tar")
    folder = _unpacked(tmp_path / "a.tar", tmp_path / "device")
    files = EngineFiles.open(Bundle.open(folder), ORIN)
    assert [engine.graph for engine in files.engines] == list(GRAPHS)
    assert all(sha256_file(files.path(engine)) == engine.sha256 for engine in files.engines)
    engines = {name for name in report.listing.files if name.startswith("engines/")}
    kept = {f"{graph}.primitive-fp16.engine" for graph in GRAPHS}
    assert engines == {f"engines/{ORIN}/{name}" for name in (*kept, "build.json")}
    assert "graphs/gen_step.primitive-fp16.onnx" in report.listing.files
    without = _pack(root, tmp_path / "b.tar", no_engines=True)
    assert not [name for name in without.listing.files if name.startswith("engines/")]


def test_engines_alone(root: Path, tmp_path: Path) -> None:
    add_engines(root, ORIN, "primitive-fp16")
    report = _pack(root, tmp_path / "a.tar", engines_only=True)
    assert not [name for name in report.listing.files if name.startswith("graphs/")]
    bundle = Bundle.open(_unpacked(tmp_path / "a.tar", tmp_path / "device"))
    assert find_damage(bundle) == [] and len(EngineFiles.open(bundle, ORIN).engines) == len(GRAPHS)
    assert set(bundle.manifest.graphs) == set(GRAPHS) and bundle.contract("gen_step").graph == "gen_step"


@pytest.mark.parametrize("what", ["none", "one graph", "without weights"])
def test_engines_alone_must_be_whole(what: str, root: Path, tmp_path: Path) -> None:
    if what == "one graph":
        add_engines(root, ORIN, "primitive-fp16", ["gen_step"])
    elif what == "without weights":
        add_engines(root, ORIN, "primitive-fp16", weights_stripped=True)
    with pytest.raises(UsageError, match="--engines-only needs") as caught:
        _pack(root, tmp_path / "a.tar", engines_only=True)
    assert "und_prefill" in caught.value.got and "motedge build" in caught.value.fix
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("how", ["change", "lengthen", "shorten", "remove"])
@pytest.mark.parametrize(
    "name", ["graphs/weights/gen_step.fp16.data", f"engines/{ORIN}/gen_step.primitive-fp16.engine"]
)
def test_a_damaged_file_stops_it_and_nothing_is_left(name: str, how: str, root: Path, tmp_path: Path) -> None:
    add_engines(root, ORIN, "primitive-fp16")
    path = root / name
    data = path.read_bytes()
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes({"change": b"X" + data[1:], "lengthen": data + b"X", "shorten": data[:-1]}[how])
    with pytest.raises(BundleError, match="is missing" if how == "remove" else "differs") as caught:
        _pack(root, tmp_path / "out/a.tar")
    assert name in caught.value.what and list((tmp_path / "out").iterdir()) == []


def test_an_older_archive_stays_when_a_new_one_fails(root: Path, tmp_path: Path) -> None:
    _pack(root, tmp_path / "a.tar")
    before = sha256_file(tmp_path / "a.tar")
    (root / "tables/inv_freq.bin").write_bytes(bytes(255))
    with pytest.raises(BundleError):
        _pack(root, tmp_path / "a.tar")
    assert sha256_file(tmp_path / "a.tar") == before


def test_too_little_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(HostError, match="too little disk space for the archive"):
        _pack(root, tmp_path / "a.tar")


def test_planning_writes_nothing_and_lists_the_same(root: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    planned = plan_pack(Bundle.open(root), load_target(ORIN), PackOptions(no_wheel=True, plan=False))
    assert sorted(tmp_path.rglob("*")) == before and planned.sha256 is None
    assert planned.listing_bytes == _pack(root, tmp_path / "a.tar").listing_bytes


def test_it_is_signed_with_minisign(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    install_fake_minisign(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    key = MadeKey.new()
    secret = secret_file(key, tmp_path / "secret")
    one = _pack(root, tmp_path / "a.tar", sign=secret)
    assert one.signed and one.sha256 == _pack(root, tmp_path / "b.tar", sign=secret).sha256
    with (tmp_path / "a.tar").open("rb") as stream:
        options = InstallOptions(require_signature=key.public, trust_file=tmp_path / "none")
        assert install(stream, tmp_path / "device", options).key == key.name
    assert key.seed not in (tmp_path / "a.tar").read_bytes()
    (tmp_path / "wrong").write_text("no key\n")
    with pytest.raises(UsageError, match="minisign did not sign"):
        _pack(root, tmp_path / "c.tar", sign=tmp_path / "wrong")
    with pytest.raises(UsageError, match="there is no key"):
        _pack(root, tmp_path / "c.tar", sign=tmp_path / "none")
    assert not (tmp_path / "c.tar").exists()


def test_without_minisign_nothing_is_begun(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="minisign is needed"):
        _pack(root, tmp_path / "a.tar", sign=tmp_path / "key")


def test_a_device_of_ones_own_brings_its_description(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "own-orin.toml"
    own.write_text((Path(__file__).parents[4] / "targets/data/jetson-orin-nano-8gb.toml").read_text())
    report = _pack(root, tmp_path / "a.tar", str(own), target_file=own)
    assert report.listing.target == "own-orin" and report.listing.target_file == "target/own-orin.toml"
    folder = _unpacked(tmp_path / "a.tar", tmp_path / "device")
    assert load_target(str(folder / "target/own-orin.toml")).name == load_target(ORIN).name


def test_the_model_s_licence_is_passed_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "MODEL").write_text("OpenMDW text")
    report = _pack(root, tmp_path / "a.tar", model_licence=tmp_path / "MODEL")
    folder = _unpacked(tmp_path / "a.tar", tmp_path / "device")
    assert (folder / "licenses/MODEL-LICENSE").read_text() == "OpenMDW text"
    assert "licenses/MODEL-LICENSE" in (folder / "NOTICE").read_text()
    assert not [note for note in report.notes if "licence" in note]
    assert [note for note in _pack(root, tmp_path / "b.tar").notes if "--model-license" in note]
    with pytest.raises(UsageError, match="can't read the model's licence"):
        _pack(root, tmp_path / "c.tar", model_licence=tmp_path / "none")
