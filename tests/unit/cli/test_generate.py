"""motedge generate: its arguments, and what it refuses before anything is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from motedge.cli.generate import _summary, _whole_numbers
from motedge.cli.generate_input import parse_numbers, parse_size, read_actions, read_text
from motedge.cli.generate_output import check_outputs, write_outputs
from motedge.cli.main import main
from motedge.errors import DataError, MissingPackageError, UsageError
from motedge.files import atomic_path
from motedge.media.video import read_video
from motedge.runtime.generate import MODES, Generated, GenerateRequest
from motedge.runtime.request import LoopCounters, LoopTimings, SamplerSettings


def test_arguments(tmp_path: Path) -> None:
    assert parse_size("832x480") == (480, 832)
    assert parse_size(None) is None
    assert parse_numbers("1, 2.5 3", "--state") == [1.0, 2.5, 3.0]
    (tmp_path / "prompt.json").write_text('{"a": 1}\n', encoding="utf-8")
    assert read_text(f"@{tmp_path / 'prompt.json'}", "--prompt") == '{"a": 1}'
    assert read_text("a cube", "--prompt") == "a cube"
    for call in (
        lambda: parse_size("832"),
        lambda: parse_size("²x²"),
        lambda: _whole_numbers("²"),
        lambda: parse_numbers("1,b", "--state"),
        lambda: read_text("@nowhere", "--prompt"),
    ):
        with pytest.raises(UsageError):
            call()


def test_actions(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(2, 3)
    (tmp_path / "a.json").write_text(json.dumps(rows.tolist()), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"fps": 1, "actions": rows.tolist()}), encoding="utf-8")
    np.save(tmp_path / "c.npy", rows)
    for name in ("a.json", "b.json", "c.npy"):
        np.testing.assert_array_equal(read_actions(tmp_path / name), rows)
    (tmp_path / "d.json").write_text("[[1], [1, 2]]", encoding="utf-8")
    (tmp_path / "e.json").write_text('{"rows": []}', encoding="utf-8")
    (tmp_path / "f.json").write_text("[]", encoding="utf-8")
    for name in ("d.json", "e.json", "f.json", "g.json"):
        with pytest.raises(DataError):
            read_actions(tmp_path / name)
    with pytest.raises(UsageError, match=r"\.json, \.npy, \.parquet"):
        read_actions(tmp_path / "h.csv")


@pytest.mark.parametrize(
    ("mode", "name", "words"),
    [
        ("text2image", "a.mp4", r"expected: \.png"),
        ("inverse_dynamics", "a.mp4", "actions alone"),
        ("inverse_dynamics", "a.png", "actions alone"),
        ("text2video", "a.png", r"expected: \.mp4"),
        ("forward_dynamics", "a.parquet", r"expected: \.mp4"),
        ("policy", "a.txt", "unknown kind of file"),
    ],
)
def test_files_that_a_mode_has_nothing_for(mode: str, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_outputs(mode, [Path(name)])


def test_files_that_a_mode_has_something_for() -> None:
    check_outputs("text2image", [Path("a.png"), Path("a.JPG"), Path("a.json")])
    check_outputs("policy", [Path("a.mp4"), Path("a.json")])


@pytest.mark.parametrize(
    ("package", "mode", "name", "extra"),
    [("av", "text2video", "a.mp4", "video"), ("PIL", "text2image", "a.png", "images")],
)
def test_a_package_that_is_missing_is_found_early(
    monkeypatch: pytest.MonkeyPatch, package: str, mode: str, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"motedge\[{extra}\]"):
        check_outputs(mode, [Path(name)])
    check_outputs(mode, [Path("a.json")])


def test_a_preview_needs_pillow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["generate", "policy", "B", "--out", "a.json", "--preview", "5"]) == 3
    assert "motedge[images]" in capsys.readouterr().err


def test_a_place_that_nothing_can_be_written_to_is_found_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.json").mkdir()
    for place in ("file/a.json", "file/b/a.json", "a.json", "a" * 250 + ".json"):
        assert main(["generate", "policy", "B", "--out", str(tmp_path / place)]) == 2
        assert "can't write" in capsys.readouterr().err
    check_outputs("policy", [tmp_path / "new" / "folder" / "a.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "file"]
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["generate", "policy", "B", "--out", str(tmp_path / "b.json")]) == 3
    assert "can't write" in capsys.readouterr().err
    with pytest.raises(UsageError, match="can't write"), atomic_path(tmp_path / "file" / "b" / "a.json"):
        pass


def test_a_video_with_sound_leaves_other_files_alone(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "dog.silent.mp4").write_bytes(b"mine")
    waveform = np.zeros((2, 4800), np.float32)
    pictures = np.zeros((5, 32, 48, 3), np.uint8)
    generator = SimpleNamespace(frames=lambda latents: iter([pictures]), waveform=lambda latents: (waveform, 48000))
    made = Generated(
        mode="text2video",
        latents=np.zeros((48, 2, 2, 3), np.float32),
        actions=None,
        fields=(),
        units=(),
        raw_actions=False,
        frames=5,
        fps=10.0,
        size=(32, 48),
        seed=0,
        settings=SamplerSettings(steps=1),
        timings=LoopTimings(0.0, 0.0, 0.0, (), 0.0),
        counters=LoopCounters(1, 1, 0, 0, False),
        prompt_tokens=1,
        sound=np.zeros((64, 3), np.float32),
    )
    write_outputs(generator, GenerateRequest("text2video", "a dog"), made, [tmp_path / "dog.mp4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.mp4", "dog.silent.mp4"]
    assert (tmp_path / "dog.silent.mp4").read_bytes() == b"mine"
    assert len(read_video(tmp_path / "dog.mp4", 99).frames) == 5


def test_parquet_comes_with_an_extra_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`quant`, which has pyarrow too, brings nothing on Python 3.9."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(MissingPackageError, match=r"motedge\[parquet\]"):
        read_actions(tmp_path / "a.parquet")
    with pytest.raises(MissingPackageError, match=r"motedge\[parquet\]"):
        check_outputs("policy", [tmp_path / "b.parquet"])


def test_the_command_refuses_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["vid2vid", "B", "--out", "a.mp4"], "did you mean 'video2video'"),
        (["text2video", "B", "--out", "a.png"], "no single picture"),
        (["text2video", "B", "--out", "a.mp4", "--preview", "0"], "--preview"),
        (["text2video", "B", "--out", "a.mp4", "--size", "big"], "832x480"),
        (["text2video", str(tmp_path / "none"), "--out", "a.mp4"], "none"),
    ):
        assert main(["generate", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("mode", MODES)
def test_the_summary(mode: str) -> None:
    """Every line is a name of at most 12 letters and what belongs to it."""
    frames = 1 if mode == "text2image" else 9
    made = Generated(
        mode=mode,
        latents=np.zeros((48, 1, 2, 2), np.float32),
        actions=None,
        fields=(),
        units=(),
        raw_actions=False,
        frames=frames,
        fps=10.0,
        size=(32, 48),
        seed=0,
        settings=SamplerSettings(),
        timings=LoopTimings(0.0, 0.0, 0.0, (), 1.0),
        counters=LoopCounters(4, 0, 0, 0, False),
        prompt_tokens=8,
    )
    lines = _summary(made, [Path("out.json")]).splitlines()
    assert all(line[:12].rstrip().isalpha() and line[12] == " " and line[13] != " " for line in lines)
    shown = "48x32" if frames == 1 else "9 frames of 48x32 at 10 a second"
    assert lines[0] == f"mode         {mode}, {shown}"
