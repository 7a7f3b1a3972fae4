"""motedge run on a policy of fakes: what it prints, writes, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from droid_vectors import make_image, vectors
from policy_fakes import make_policy

import motedge.runtime.policy
from motedge.cli.main import main
from motedge.runtime.policy import GpuOptions
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_observation, write_observation
from motedge.runtime.policy.seeds import RequestSeeds

pytest.importorskip("PIL")
STATE = "0 -0.5 0 -2.3 0 1.9 0.6 0.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    views = {"right": make_image("smooth", 2, [360, 640])}
    seen = Observation(np.zeros(7), 0.25, "Open the drawer", views=views, source="drawn for a test")
    write_observation(tmp_path / "seen", seen)
    return tmp_path / "seen"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Puts fakes in the place of the bundle; returns the options of each loading."""
    calls: list[dict[str, object]] = []

    def load(bundle, **options):
        calls.append({"bundle": bundle, **options})
        seeds = RequestSeeds(options.get("seed", 0), fixed=options.get("deterministic_seed", False))
        return make_policy(seeds=seeds)[0]

    monkeypatch.setattr(motedge.runtime.policy, "load_policy", load)
    return calls


def test_table(folder: Path, loaded, capsys) -> None:
    assert main(["run", "b", "--observation", str(folder)]) == 0
    captured = capsys.readouterr()
    for part in ("Open the drawer", "drawn for a test", "missing      wrist, left", "rad", "gripper", "VAE encoder"):
        assert part in captured.out
    assert "no image of the wrist camera" in captured.err
    assert "warm" not in captured.out


def test_json_and_out(folder: Path, loaded, tmp_path: Path, capsys) -> None:
    out = tmp_path / "actions.json"
    assert main(["run", "b", "--observation", str(folder), "--json", "--out", str(out), "--repeat", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text(encoding="utf-8"))
    assert np.array(printed["actions"]).shape == (32, 8)
    assert printed["instruction"] == "Open the drawer"
    assert printed["seed"] == vectors()["seeds"][0]["requests"][0]
    assert printed["warm_requests"] == 2 and set(printed["warm_p50_ms"]) == set(printed["timings_ms"])


def test_repeats_are_shown_apart(folder: Path, loaded, capsys) -> None:
    assert main(["run", "b", "--observation", str(folder), "--repeat", "3"]) == 0
    assert "warm p50 of 2" in capsys.readouterr().out


def test_options_reach_the_policy(folder: Path, loaded) -> None:
    options = "--steps 2 --shift 3 --guidance 1.5 --guidance-interval 900 1001 --seed 5 --variant v --embodiment e"
    assert main(["run", "b", "--observation", str(folder), *options.split()]) == 0
    call = loaded[0]
    assert (call["steps"], call["shift"], call["guidance"]) == (2, 3.0, 1.5)
    assert call["guidance_interval"] == [900.0, 1001.0]
    assert (call["seed"], call["deterministic_seed"]) == (5, True)
    assert (call["variant"], call["embodiment"], call["check"]) == ("v", "e", "full")


def test_options_of_the_gpu_reach_the_policy(folder: Path, loaded) -> None:
    options = "--target t --gpu 1 --priority low --no-cuda-graph --no-kernels --trust-engines --weight-budget-gb 1.5"
    assert main(["run", "b", "--observation", str(folder), *options.split()]) == 0
    assert loaded[0]["gpu"] == GpuOptions("t", 1, "low", False, False, True, 1.5)


@pytest.mark.parametrize("budget", ["-1", "nan", "inf"])
def test_budgets_refused_before_loading(folder: Path, loaded, budget: str, capsys) -> None:
    assert main(["run", "b", "--observation", str(folder), "--weight-budget-gb", budget]) == 2
    assert "the budget for weights does not fit" in capsys.readouterr().err
    assert not loaded


def test_defaults_are_left_to_the_bundle(folder: Path, loaded) -> None:
    assert main(["run", "b", "--observation", str(folder)]) == 0
    assert loaded[0]["gpu"] == GpuOptions()
    assert not {"steps", "shift", "guidance", "guidance_interval", "seed"} & set(loaded[0])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(folder: Path, loaded, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"plot.{suffix}"
    assert main(["run", "b", "--observation", str(folder), "--plot", str(target)]) == 0
    assert target.stat().st_size > 20_000
    assert not list(tmp_path.glob("*.partial"))


def test_images_of_the_command_line(loaded, tmp_path: Path, capsys) -> None:
    from PIL import Image

    Image.fromarray(make_image("noise", 1, [540, 640])).save(tmp_path / "all.png")
    Image.fromarray(make_image("noise", 1, [90, 160])).save(tmp_path / "w.png")
    common = ["run", "b", "--state", STATE, "--instruction", "go"]
    assert main([*common, "--image", str(tmp_path / "all.png")]) == 0
    assert "no view" in capsys.readouterr().out
    assert main([*common, "--views", f"wrist={tmp_path / 'w.png'}"]) == 0
    assert "missing      left, right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", "wrist=w.png"], "--state is missing"),
        (["--views", "wrist=w.png", "--state", STATE], "--instruction is missing"),
        (["--views", "wrist=w.png", "--state", "1 2", "--instruction", "go"], "wrong length"),
        (["--views", "wrist=w.png", "--state", "1 2 x", "--instruction", "go"], "not a list of numbers"),
        (["--views", "wirst=w.png", "--state", STATE, "--instruction", "go"], "did you mean 'wrist'"),
        (["--views", "wrist", "--state", STATE, "--instruction", "go"], "not a list of NAME=FILE"),
        (["--views", "wrist=a,wrist=b", "--state", STATE, "--instruction", "go"], "names wrist twice"),
        (["--image", "absent.png", "--state", STATE, "--instruction", "go"], "there is no image"),
        (["--observation", "absent"], "no observation"),
        (["--observation", "absent", "--state", STATE], "contradict"),
        (["--observation", "absent", "--repeat", "0"], "nothing to run"),
    ],
)
def test_usage_errors(loaded, arguments: list[str], message: str, capsys) -> None:
    assert main(["run", "b", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and not captured.out
    assert not loaded


def test_a_picture_in_the_place_of_the_folder(folder: Path, loaded, capsys) -> None:
    """A newcomer's first try: the message names the options that take it."""
    picture = folder / "right.png"
    assert main(["run", "b", "--observation", str(picture)]) == 2
    said = capsys.readouterr().err
    assert "is a file" in said and f"--image {picture}" in said and f"--views wrist={picture}" in said
    assert main(["run", "b", "--observation", str(folder / "observation.json")]) == 2
    assert f"give its folder: {folder}" in capsys.readouterr().err and not loaded


def test_plot_type_is_refused(folder: Path, loaded, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert main(["run", "b", "--observation", str(folder), "--plot", str(tmp_path / "plot.jpg")]) == 2
    assert "file type" in capsys.readouterr().err and not loaded


def test_plot_without_matplotlib(folder: Path, loaded, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["run", "b", "--observation", str(folder), "--plot", "plot.png"]) == 3
    assert "motedge[plot]" in capsys.readouterr().err and not loaded


def test_bundle_that_is_none(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["run", str(tmp_path / "absent"), "--observation", str(folder)]) == 2
    assert "there is no bundle" in capsys.readouterr().err


def test_requests_are_recorded_one_behind_the_other(folder: Path, loaded, tmp_path: Path) -> None:
    record = tmp_path / "record"
    for _ in range(2):
        assert main(["run", "bundle", "--observation", str(folder), "--record", str(record), "--repeat", "2"]) == 0
    assert sorted(path.name for path in record.iterdir()) == [f"request-{number:06d}" for number in range(4)]
    again = read_observation(record / "request-000003")
    np.testing.assert_array_equal(again.views["right"], read_observation(folder).views["right"])
    said = json.loads((record / "request-000003" / "request.json").read_text())
    assert said["schema"] == "motedge.request/v1"
    assert set(said["settings"]) == {"steps", "shift", "guidance", "guidance_interval"}
    assert isinstance(said["seed"], int)


def test_deadline_table(folder: Path, loaded, capsys) -> None:
    assert main(["run", "b", "--observation", str(folder), "--deadline-ms", "60000", "--repeat", "2"]) == 0
    out = capsys.readouterr().out
    assert "60000 ms: 2 met, 0 missed" in out and "first answer fresh, point shipped" in out
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("shipped")] == ["2"]


def test_deadline_json(folder: Path, loaded, tmp_path: Path, capsys) -> None:
    ladder = tmp_path / "ladder.toml"
    ladder.write_text('schema = "motedge.ladder/v1"\n[[points]]\nname = "short"\nsteps = 2\ntrained = false\n')
    options = ["--deadline-ms", "60000", "--ladder", str(ladder), "--json"]
    assert main(["run", "b", "--observation", str(folder), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["kind"] == "fresh" and printed["details"]["deadline"]["operating_point"] == "short"
    assert printed["details"]["deadline"]["trained"] is False and printed["details"]["steps"] == 2
    assert printed["deadline"]["counters"]["met"] == 1
    assert [point["name"] for point in printed["deadline"]["ladder"]] == ["short"]


def test_a_deadline_nobody_can_keep(folder: Path, loaded, capsys) -> None:
    """The watchdog's margin is longer than the deadline; what ran late answers later ticks, marked as held."""
    common = ["run", "b", "--observation", str(folder), "--deadline-ms", "0.001"]
    assert main(common) == 1
    captured = capsys.readouterr()
    assert "no actions by the deadline" in captured.err and not captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ladder", "x.toml"], "--deadline-ms beside it"),
        (["--deadline-ms", "0"], "the deadline is wrong"),
        (["--deadline-ms", "nan"], "the deadline is wrong"),
    ],
)
def test_deadlines_refused_before_loading(folder: Path, loaded, arguments: list[str], message: str, capsys) -> None:
    assert main(["run", "b", "--observation", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err and not loaded


def test_a_ladder_that_is_refused(folder: Path, loaded, tmp_path: Path, capsys) -> None:
    (tmp_path / "ladder.toml").write_text('schema = "motedge.ladder/v1"\n[[point]]\n')
    options = ["--deadline-ms", "100", "--ladder", str(tmp_path / "ladder.toml")]
    assert main(["run", "b", "--observation", str(folder), *options]) == 2
    assert "did you mean 'points'" in capsys.readouterr().err
