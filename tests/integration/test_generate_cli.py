"""`motedge generate` on real pictures: a car's front camera, its trajectory, and what goes wrong. Random weights."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny import AV_MEDIA

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.media.image import write_image
from motedge.media.video import read_video, write_video
from motedge.runtime.generate import GenerateRequest, load_generator
from motedge.runtime.policy.observation_folder import read_image

pytestmark = pytest.mark.slow
av = pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
CLIP, PHOTO, TRAJECTORY = (REAL_DATA / name for name in ("av_0.mp4", "av_0.jpg", "av_traj_left.json"))
needs_data = pytest.mark.skipif(not CLIP.is_file(), reason="no av_0.mp4; name its folder with MOTEDGE_REAL_DATA")
EXTRAS = ("vae-decoder-stream", "vae-encoder-stream")
AV = ["--embodiment", "av", "--steps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("checkpoint") / "edge"
    return Checkpoint.open(make_checkpoint(root, "edge", "base", "tiny", seed=7))


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle") / "edge"
    export_bundle(checkpoint, root, ExportOptions(AV_MEDIA, parse_variants("primitive-fp32"), "none", EXTRAS))
    return root


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the graphs for videos, and with actions in every request."""
    root = tmp_path_factory.mktemp("plain") / "edge"
    shapes = AV_MEDIA.__class__(**{**vars(AV_MEDIA), "name": "acting", "min_actions": 2, "actions": 60})
    export_bundle(checkpoint, root, ExportOptions(shapes, parse_variants("primitive-fp32"), "none"))
    return root


@needs_data
def test_a_trajectory_from_a_video(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """61 frames of the car's camera make 60 poses of 9 numbers, the same in both files."""
    written, table = tmp_path / "way.json", tmp_path / "way.parquet"
    arguments = ["inverse_dynamics", str(bundle), "--video", str(CLIP), "--out", str(written), "--out", str(table)]
    assert main(["generate", *arguments, *AV]) == 0
    printed = capsys.readouterr()
    assert "actions      60 x 9\n" in printed.out
    document = json.loads(written.read_text(encoding="utf-8"))
    assert np.isfinite(document["actions"]).all()
    assert np.shape(document["actions"]) == (60, 9)
    assert (document["frames"], document["fps"], document["raw_actions"]) == (61, 10.0, True)
    assert document["fields"][:3] == ["x", "y", "z"]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(table)
    assert parquet.column_names == ["time_s", *document["fields"]]
    np.testing.assert_allclose(parquet["x"].to_numpy(), [row[0] for row in document["actions"]], rtol=1e-6)


@needs_data
def test_a_video_from_a_trajectory(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A photo and 60 poses make 61 frames that play at 10 a second; the first frame is the VAE's of the photo."""
    target = tmp_path / "way.mp4"
    arguments = ["forward_dynamics", str(bundle), "--image", str(PHOTO), "--actions", str(TRAJECTORY)]
    assert main(["generate", *arguments, *AV, "--out", str(target), "--preview", "1"]) == 0
    capsys.readouterr()
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.frames) == (208, 112, 61)
        assert float(stream.duration * stream.time_base) == pytest.approx(6.1)
    assert len(read_video(target, 100).frames) == 61
    assert sorted(path.name for path in tmp_path.iterdir()) == ["way.mp4", "way.mp4.preview.png"]


@needs_data
def test_the_actions_change_the_video(bundle: Path) -> None:
    """And nothing else does: the same request gives the same latents, bit for bit."""
    rows = np.array(json.loads(TRAJECTORY.read_text(encoding="utf-8"))[:8])
    common = {"image": read_image(PHOTO), "embodiment": "av", "sampler": {"steps": 2}}
    with load_generator(bundle) as generator:
        same, again, other = (
            generator.generate(GenerateRequest("forward_dynamics", actions=actions, **common)).latents
            for actions in (rows, rows, rows * [-1, 1, 1, 1, 1, 1, 1, 1, 1])
        )
    np.testing.assert_array_equal(same, again)
    np.testing.assert_array_equal(same[:, 0], other[:, 0])
    assert (same[:, 1:] != other[:, 1:]).all(axis=(0, 2, 3)).any()


@needs_data
def test_a_policy_with_and_without_its_video(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["policy", str(bundle), "--image", str(PHOTO), *AV, "--frames", "9", "--json"]
    assert main(["generate", *common, "--out", str(tmp_path / "a.json")]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main(["generate", *common, "--out", str(tmp_path / "b.json"), "--out", str(tmp_path / "b.mp4")]) == 0
    both = json.loads(capsys.readouterr().out)
    assert alone["actions"] == both["actions"]
    assert len(read_video(tmp_path / "b.mp4", 100).frames) == 9
    # The state of the car as a row of its own in front
    assert main(["generate", *common, "--state", "0,0,0,1,0,0,0,1,0", "--out", str(tmp_path / "c.json")]) == 0
    assert json.loads(capsys.readouterr().out)["actions"] != alone["actions"]


PAGE = (ROOT / "docs" / "generate.md").read_text(encoding="utf-8")
# Those on a GPU have a simulated one in test_generate_gpu.py
EXAMPLES = [line for line in re.findall(r"^motedge generate .*$", PAGE, re.MULTILINE) if "--engine" not in line]


@needs_data
@pytest.mark.parametrize("line", EXAMPLES, ids=[line.split()[2] for line in EXAMPLES])
def test_the_examples_of_the_page(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """As they stand in docs/generate.md, with a step, and with fewer frames where those can be chosen."""
    for path in (CLIP, PHOTO, TRAJECTORY):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "caption.json").write_text('{"subjects": ["a red cube"]}', encoding="utf-8")
    (tmp_path / "negative.json").write_text('{"quality": "blurry"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    words = [str(bundle) if word == "bundle" else word for word in shlex.split(line)[1:]]
    fewer = [] if words[1] == "text2image" else ["--frames", "13"]
    assert main([*words, "--steps", "1", "--guidance", "2", *fewer]) == 0
    capsys.readouterr()
    asked = {tmp_path / target for option, target in zip(words, words[1:], strict=False) if option == "--out"}
    assert asked <= set(tmp_path.iterdir()) - before
    assert all(target.stat().st_size for target in asked)


def _write_clip(path: Path, count: int, size: tuple[int, int] = (112, 208)) -> Path:
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    write_video(path, [np.broadcast_to(ramp[None, None, :, None], (count, *size, 3))], 10.0)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inverse_dynamics", "--video", "{short}"], "the mode's default|6 frames are asked for, 5 are made"),
        (["inverse_dynamics", "--video", "{short}", "--frames", "9"], "the video is too short"),
        (["inverse_dynamics", "--video", "{wide}"], r"content = \[64, 208\]"),
        (["inverse_dynamics", "--video", "{text}"], "can't be decoded"),
        (["inverse_dynamics", "--video", "{short}", "--frames", "101"], "1 to 61"),
        (["forward_dynamics", "--image", "{photo}", "--actions", "{rows8}"], r"expected: \[n, 9\]"),
        (["forward_dynamics", "--image", "{photo}", "--actions", "{rows9}", "--frames", "9"], "too few actions"),
        (["forward_dynamics", "--image", "{photo}", "--actions", "{rows9}"], "5 frames of 208x112"),
        (["policy", "--image", "{photo}", "--state", "1,2"], r"expected: \[9\]"),
        (["policy", "--image", "{photo}", "--prompt", "word " * 600], "at most 512 tokens"),
        (["policy", "--image", "{photo}", "--viewpoint", "ego"], "did you mean 'ego_view'"),
        (["policy", "--image", "{photo}", "--steps", "0"], "the number of denoising steps is wrong"),
        (["policy", "--image", "{photo}", "--fps", "nan"], "0.1 to 1000 frames a second"),
        (["inverse_dynamics", "--video", "{short}", "--fps", "0"], "0.1 to 1000 frames a second"),
        (["inverse_dynamics", "--video", "{short}", "--keep", "last"], "no end of a video"),
        (["text2video", "--frames", "3"], "makes no single image"),
    ],
)
def test_bad_input(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Every message names what was expected; nothing is left of the file unless the request could be mended."""
    files = {name: tmp_path / f"{name}.json" for name in ("rows8", "rows9")}
    files["rows8"].write_text(json.dumps(np.zeros((8, 8)).tolist()), encoding="utf-8")
    files["rows9"].write_text(json.dumps(np.zeros((7, 9)).tolist()), encoding="utf-8")
    files["short"] = _write_clip(tmp_path / "short.mp4", 6)
    files["wide"] = _write_clip(tmp_path / "wide.mp4", 5, (64, 208))
    files["text"] = tmp_path / "text.mp4"
    files["text"].write_text("no video", encoding="utf-8")
    files["photo"] = tmp_path / "photo.png"
    write_image(files["photo"], np.full((120, 208, 3), 90, np.uint8))
    mode, *rest = (argument.format(**files) if "{" in argument else argument for argument in arguments)
    out = tmp_path / ("out.mp4" if mode in ("forward_dynamics", "text2video") else "out.json")
    acting = [] if mode == "text2video" else AV
    code = main(["generate", mode, str(bundle), *acting, *rest, "--out", str(out)])
    printed = capsys.readouterr()
    assert re.search(words, printed.err + printed.out), printed
    assert out.is_file() == (code == 0)
    assert not list(tmp_path.glob("*.partial"))


def test_a_bundle_with_a_part_of_the_graphs(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    write_image(photo, np.full((120, 208, 3), 90, np.uint8))
    clip = _write_clip(tmp_path / "clip.mp4", 5, (120, 208))
    for mode, given, out, words in (
        ("policy", ["--image", str(photo), *AV], "a.mp4", "--extras vae-decoder-stream"),
        ("inverse_dynamics", ["--video", str(clip), *AV], "a.json", "--extras vae-encoder-stream"),
        ("text2image", [], "a.json", "min_actions = 0"),
    ):
        assert main(["generate", mode, str(plain), *given, "--out", str(tmp_path / out)]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / out).exists()
    arguments = ["policy", str(plain), "--image", str(photo), *AV, "--frames", "9", "--out", str(tmp_path / "a.json")]
    assert main(["generate", *arguments]) == 0


def test_a_model_without_action_weights(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As early releases of Edge were: NaN in the tables; what does not act still runs."""
    manifest = Bundle.open(bundle).manifest
    from motedge.runtime.tables import StoredTable, Tables

    original = Tables.open.__func__

    def damaged(cls: type[Tables], opened: Bundle) -> Tables:
        tables = original(cls, opened)
        stored = dict(tables._stored)
        table = np.array(stored["action_in_weight"].rows(slice(None)))
        table[1] = np.nan
        stored["action_in_weight"] = StoredTable(table.astype("<f4"), "fp32")
        return Tables(stored)

    assert "action_in_weight" in manifest.tables
    monkeypatch.setattr(Tables, "open", classmethod(damaged))
    photo = tmp_path / "photo.png"
    write_image(photo, np.full((120, 208, 3), 90, np.uint8))
    arguments = ["policy", str(bundle), "--image", str(photo), *AV, "--out", str(tmp_path / "a.json")]
    assert main(["generate", *arguments]) == 2
    assert "before 2026-07-16 came without action weights" in capsys.readouterr().err
    assert main(["generate", "text2image", str(bundle), "--steps", "1", "--out", str(tmp_path / "a.png")]) == 0
