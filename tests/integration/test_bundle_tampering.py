"""A bundle whose files were changed, or that points outside its folder: caught before any library reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from damage import edit_json, flip_byte, record_again

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import EngineOptions

MODEL = "graphs/gen_step.primitive-fp32.onnx"


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["edge"], tmp_path / "folder/bundle"))


def test_every_file_of_the_folder_is_recorded_and_sound(bundles: dict[str, Path]) -> None:
    for root in bundles.values():
        bundle = Bundle.open(root)
        bundle.check_files()
        on_disk = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
        assert on_disk - {"manifest.json"} == set(bundle.manifest.files)


@pytest.mark.parametrize(
    "name",
    [MODEL, "contracts/gen_step.json", "graphs/weights/gen_step.fp32.data", "graphs/weights/gen_step.kept-fp32.data"],
)
def test_a_changed_file_stops_the_engine(name: str, bundle: Path) -> None:
    flip_byte(bundle / name)
    with pytest.raises(BundleError, match="differs from what was exported") as caught:
        open_engine(Bundle.open(bundle), "gen_step")
    assert name in caught.value.what and caught.value.expected.startswith("sha256 ")
    assert caught.value.got.startswith("sha256 ") and caught.value.got != caught.value.expected


@pytest.mark.parametrize("name", ["tables/action_in_weight.bin", "tokenizer/tokenizer.json", "samples/gen_step.npz"])
def test_a_changed_file_beside_the_graphs_is_found(name: str, bundle: Path) -> None:
    flip_byte(bundle / name)
    with pytest.raises(BundleError, match=f"{name} differs"):
        Bundle.open(bundle).check_files()


def test_a_truncated_file_is_found_without_reading_it(bundle: Path) -> None:
    name = "graphs/weights/gen_step.fp32.data"
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match="differs") as caught:
        open_engine(Bundle.open(bundle), "gen_step", options=EngineOptions(check_content=False))
    assert caught.value.expected.endswith(" bytes")
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_engine(Bundle.open(bundle), "gen_step")


def _point_weights_at(bundle: Path, location: str) -> None:
    """All hashes are made to fit, so that the path alone gives it away."""
    model = onnx.load(str(bundle / MODEL), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and "kept" not in entry.value:
                entry.value = location
    (bundle / MODEL).write_bytes(model.SerializeToString())
    record_again(bundle, MODEL)


@pytest.mark.parametrize("location", ["../../secret.data", "../../../secret.data", "weights/../../../secret.data"])
def test_external_data_outside_the_bundle_is_refused(location: str, bundle: Path) -> None:
    data = bundle / "graphs/weights/gen_step.fp32.data"
    for folder in (bundle.parent, bundle.parent.parent):
        shutil.copy(data, folder / "secret.data")
    _point_weights_at(bundle, location)
    with pytest.raises(BundleError, match="points outside its folder") as caught:
        open_engine(Bundle.open(bundle), "gen_step")
    assert caught.value.got.endswith("secret.data")


def test_an_absolute_path_is_refused(bundle: Path, tmp_path: Path) -> None:
    secret = shutil.copy(bundle / "graphs/weights/gen_step.fp32.data", tmp_path / "secret.data")
    _point_weights_at(bundle, str(secret))
    with pytest.raises(BundleError, match="points outside its folder"):
        open_engine(Bundle.open(bundle), "gen_step")


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    name = "graphs/weights/gen_step.fp32.data"
    shutil.move(bundle / name, tmp_path / "secret.data")
    (bundle / name).symlink_to(tmp_path / "secret.data")
    with pytest.raises(BundleError, match="points outside its folder"):
        open_engine(Bundle.open(bundle), "gen_step")


def test_external_data_that_the_variant_does_not_list_is_refused(bundle: Path) -> None:
    _point_weights_at(bundle, "weights/und_prefill.fp32.data")
    with pytest.raises(BundleError, match="a data file that its variant does not list") as caught:
        open_engine(Bundle.open(bundle), "gen_step")
    assert "gen_step.fp32.data" in caught.value.expected and caught.value.got == "weights/und_prefill.fp32.data"


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname"])
def test_a_manifest_that_names_files_outside_is_refused(name: str, bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest.to_dict()
    manifest["graphs"]["gen_step"]["contract"] = name
    edit_json(bundle / "manifest.json", graphs=manifest["graphs"])
    with pytest.raises(BundleError, match="points outside its folder"):
        open_engine(Bundle.open(bundle), "gen_step")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": "motedge.bundle/v1"}', '{"schema": "other/v1"}'])
def test_a_manifest_that_is_none(text: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(bundle)
