"""`motedge sensitivity` from a folder of images to a recipe that loads, its bad inputs, and the benchmark on it."""

from __future__ import annotations

import csv
import importlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import start
from tiny import MINI_POLICY

from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.variants import parse_variants
from motedge.quant.recipe import load_recipe
from motedge.quant.sensitivity.ledger import LEDGER

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--observations", "2", "--held-out", "1", "--front", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sensitivity") / "edge"
    options = ExportOptions(MINI_POLICY, parse_variants("primitive-fp32"), "none")
    export_bundle(Checkpoint.open(checkpoints["edge"]), root, options)
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten moments of two episodes."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.RandomState(2)
    joints = [f"joint_{number}" for number in range(1, 8)]
    with open(root / "states.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "episode", "index", *joints, "gripper", "instruction"])
        for number in range(10):
            name = f"{number}.png"
            Image.fromarray(generator.randint(0, 255, (540, 640, 3), dtype=np.uint8)).save(root / name)
            state = generator.rand(7).round(4).tolist()
            writer.writerow([name, number // 5, number % 5, *state, 0.25, "put the cup down"])
    return root


def command(bundle: Path, images: Path, out: Path, *more: str) -> list[str]:
    return [
        "sensitivity",
        str(bundle),
        "--recipes",
        "nvfp4,fp8",
        "--calibration",
        str(images),
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def finished(bundle: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    assert main(command(bundle, images, out, *SMALL, "--max-bits", "8")) == 0
    return out


def test_a_search_from_images_to_a_recipe(finished: Path) -> None:
    report = json.loads((finished / "sensitivity.json").read_text())
    assert report["chosen"]["bits"] <= 8 and report["chosen"]["met"]
    assert {site["graph"] for site in report["sites"]} == {"und_prefill", "gen_step"}
    assert all(set(site["costs"]) == {"nvfp4", "fp8"} for site in report["sites"])
    assert set(report["steps"]) == {"nvfp4", "fp8"} and len(report["steps"]["fp8"]) == 4
    assert {scheme.id for scheme in load_recipe(str(finished / "mixed.toml")).schemes()} <= {"nvfp4", "fp8"}
    assert report["identity"]["kind"] == "images" and report["held_out"] == 1


def test_a_finished_search_says_so(
    bundle: Path, images: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(bundle, images, finished, *SMALL, "--max-bits", "8", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["up_to_date"] and document["predicted_time"] is None
    assert main(command(bundle, images, finished, *SMALL, "--max-bits", "8")) == 0
    shown = capsys.readouterr().out
    assert "up to date" in shown and "uniform nvfp4" in shown and "mixed.toml" in shown


def test_a_dry_run_writes_nothing(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(bundle, images, tmp_path / "out", "--dry-run", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["projections"], row["costs"]) for row in document["graphs"]] == [(14, 28), (18, 36)]
    assert document["unquantized_bytes"] == document["least_bytes"] * 16 // 4.5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipes", "nvfp5"], "unknown recipe 'nvfp5'"),
        (["--max-bytes", "1000"], "no mixture of these recipes is that small"),
        (["--max-bits", "6", "--max-error", "0.1"], "more than one target"),
        (["--max-error", "-1"], "max_error is wrong"),
        (["--held-out", "0"], "held-out"),
        (["--observations", "500"], "observations"),
        (["--jobs", "0"], "number of jobs"),
        (["--forwards", "3"], "too few forwards"),
        (["--calibration", "nowhere"], "no data set"),
    ],
)
def test_bad_inputs(
    more: list[str], message: str, bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*command(bundle, images, tmp_path / "out", "--jobs", "1"), *more])
    captured = capsys.readouterr()
    assert code == 2 and message in captured.err and "internal" not in captured.err
    assert captured.out == ""


def test_a_smaller_size_than_there_is_names_the_smallest(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(bundle, images, tmp_path / "out", "--max-bits", "4")) == 2
    assert "4.500 bits a weight" in capsys.readouterr().err


def test_the_folder_of_other_data_is_refused(
    bundle: Path, images: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "sensitivity.json").read_bytes()
    assert main(command(bundle, images, finished, "--instruction", "another task", *SMALL)) == 2
    assert "results of another search" in capsys.readouterr().err
    assert (finished / "sensitivity.json").read_bytes() == before


@pytest.mark.slow
def test_a_process_that_is_interrupted_leaves_what_it_measured(bundle: Path, images: Path, tmp_path: Path) -> None:
    """Ctrl-C with workers at work: no worker stays, and the next run goes on."""
    out = tmp_path / "out"
    arguments = command(bundle, images, out, "--observations", "2", "--held-out", "1", "--jobs", "2", "--max-bits", "8")
    process = start([sys.executable, "-m", "motedge", *arguments])
    deadline = time.monotonic() + 120
    while not (out / LEDGER).exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    kept = (out / LEDGER).read_bytes()
    assert kept and not (out / "sensitivity.json").exists()
    assert main([*arguments, "--jobs", "1"]) == 0
    assert (out / LEDGER).read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])


@pytest.fixture(scope="module")
def mixed_recipe() -> Iterator[ModuleType]:
    """The benchmark as a module, as if its folder were the working one."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("mixed_recipe")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("mixed_recipe", "conditions"):
            sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_mixture_beats_the_uniform_recipe_where_layers_differ(
    mixed_recipe: Any, images: Path, tmp_path: Path
) -> None:
    arguments = ["--data", str(images), "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    arguments += ["--recipes", "nvfp4,fp8", "--seeds", "3", "--observations", "4", "--held-out", "2"]
    assert mixed_recipe.main(arguments) == 0
    result = json.loads((tmp_path / "results" / "mixed_recipe_edge.json").read_text())
    assert result["schema"] == "motedge.benchmark/v1" and "random weights" in result["note"]
    rows = [row for row in result["rows"] if row["model"] == "outliers" and row["bits"] == 8]
    assert len(rows) == 3
    for row in rows:
        assert row["mixed_bytes"] <= row["bytes"] and row["better"] and not row["same"]
        # What was planted changes quantization, not the function
        assert row["outliers_in"] and row["function_change"] < 1e-4
