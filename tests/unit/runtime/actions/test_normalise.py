"""Normalisation: the framework's own numbers, there and back, and statistics that do not make sense."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import ContractError, DataError, UsageError
from motedge.runtime.actions.normalise import METHODS, ActionNormaliser
from motedge.runtime.actions.stats import SCHEMA, parse_stats, read_stats

VECTORS = json.loads((Path(__file__).resolve().parents[3] / "data" / "action_vectors.json").read_text())[
    "normalisation"
]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['method']}-{case['clamp']}")
def test_the_framework_computes_the_same(case) -> None:
    normaliser = ActionNormaliser(case["method"], parse_stats(VECTORS["stats"]), clamp=case["clamp"])
    actions = np.float32(VECTORS["actions"])
    np.testing.assert_allclose(normaliser.normalise(actions), case["normalised"], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(normaliser.restore(case["normalised"]), case["restored"], rtol=1e-6, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(METHODS)), st.integers(1, 30))
def test_there_and_back(seed: int, method: str, width: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 5, width)
    table = {"min": low, "q01": low + 0.01, "q99": low + rng.uniform(0.02, 3, width), "max": low + 4}
    table |= {"mean": low, "std": rng.uniform(0.01, 2, width)}
    stats = parse_stats({name: each.tolist() for name, each in table.items()})
    normaliser = ActionNormaliser(method, stats)
    actions = rng.uniform(-10, 10, (3, width)).astype(np.float32)
    made = normaliser.normalise(actions)
    assert made.dtype == np.float32
    np.testing.assert_allclose(normaliser.restore(made), actions, rtol=1e-5, atol=1e-5)
    if method in ("quantile", "minmax"):
        ends = [table["q01"], table["q99"]] if method == "quantile" else [table["min"], table["max"]]
        np.testing.assert_allclose(
            normaliser.normalise(np.stack(ends)), [[-1.0] * width, [1.0] * width], rtol=1e-5, atol=1e-5
        )


def test_clamp_cuts_off_and_only_what_is_outside() -> None:
    stats = parse_stats({"q01": [0.0, 0.0], "q99": [2.0, 4.0]})
    actions = [[-1.0, 1.0], [3.0, 2.0]]
    free, cut = ActionNormaliser("quantile", stats), ActionNormaliser("quantile", stats, clamp=True)
    np.testing.assert_array_equal(free.normalise(actions), [[-2.0, -0.5], [2.0, 0.0]])
    np.testing.assert_array_equal(cut.normalise(actions), [[-1.0, -0.5], [1.0, 0.0]])
    np.testing.assert_array_equal(cut.restore([[-2.0, 2.0]]), [[-1.0, 6.0]])


def test_none_takes_any_width_and_needs_nothing() -> None:
    normaliser = ActionNormaliser("none", clamp=True)
    actions = np.array([[5.0, -7.0]], np.float64)
    assert normaliser.width is None
    np.testing.assert_array_equal(normaliser.restore(normaliser.normalise(actions)), actions)


def test_statistics_are_written_and_read_again(tmp_path: Path) -> None:
    stats = parse_stats({**VECTORS["stats"], "schema": SCHEMA, "embodiment": "libero", "source": "made up"})
    stats.write(tmp_path / "stats.json")
    again = read_stats(tmp_path / "stats.json")
    assert again.to_dict() == stats.to_dict()
    assert (again.embodiment, again.source, again.width) == ("libero", "made up", 10)
    assert again.first(4).width == 4
    np.testing.assert_array_equal(again.first(4).blocks["global"]["q01"], stats.blocks["global"]["q01"][:4])
    with pytest.raises(DataError, match="1 to 10 channels"):
        again.first(11)


def test_files_of_the_framework_are_read_as_they_are(tmp_path: Path) -> None:
    """Statistics at the top, or in blocks beside metadata."""
    flat, nested = tmp_path / "flat.json", tmp_path / "nested.json"
    flat.write_text('{"q01": [-1, -2], "q99": [1, 2]}')
    nested.write_text(json.dumps({"metadata": {"action_dim": 10}, **VECTORS["stats"]}))
    assert read_stats(flat).width == 2
    assert set(read_stats(nested).blocks) == {"global", "global_raw"}
    # Such a file has no other rotation
    assert ActionNormaliser("quantile_rot", read_stats(flat)).width == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stats: stats["global"]["q99"].pop(), "different widths"),
        (lambda stats: stats["global"].update(q01=[float("nan")] * 10), "NaN or infinity"),
        (lambda stats: stats["global"].update(q01=[[0.0] * 10]), "wrong shape"),
        (lambda stats: stats["global"].update(q01="many"), "no numbers"),
        (lambda stats: stats.update({"global": [1]}), "an object"),
        (lambda stats: stats.update(schema="motedge.action_stats/v2"), "another schema"),
        (lambda stats: stats.update(schema=SCHEMA, globall={}), "did you mean 'global'"),
        (lambda stats: (stats.update(schema=SCHEMA), stats["global"].update(q1=[0])), "did you mean 'q01'"),
        (lambda stats: stats.clear(), "no statistics"),
    ],
)
def test_unsound_files(tmp_path: Path, change, message: str) -> None:
    stats = copy.deepcopy(VECTORS["stats"])
    change(stats)
    (tmp_path / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(DataError, match=message):
        read_stats(tmp_path / "stats.json")


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ("[1]", "a JSON object")])
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "stats.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_stats(tmp_path / "stats.json")
    with pytest.raises(DataError, match="can't be read"):
        read_stats(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("method", "stats", "message"),
    [
        ("quantile", {"q01": [0.0, 1.0], "q99": [1.0, 1.0]}, "channel 1 has no range"),
        ("quantile", {"q01": [2.0], "q99": [1.0]}, "channel 0 has no range"),
        ("minmax", {"min": [0.0], "max": [1e-9]}, "channel 0 has no range"),
        ("meanstd", {"mean": [0.0], "std": [0.0]}, "channel 0 has no range"),
        ("meanstd", {"q01": [0.0], "q99": [1.0]}, "mean and std in block 'global'"),
        ("quantile_rot", {"global": {"q01": [0.0], "q99": [1.0]}}, "q01 and q99 in block 'global_raw'"),
    ],
)
def test_ranges_that_can_not_be_divided_by(method: str, stats, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ActionNormaliser(method, parse_stats(stats))


def test_bad_use() -> None:
    stats = parse_stats({"q01": [0.0, 0.0], "q99": [1.0, 1.0]})
    with pytest.raises(UsageError, match="did you mean 'quantile'"):
        ActionNormaliser("quantil", stats)
    with pytest.raises(UsageError, match="needs statistics"):
        ActionNormaliser("quantile")
    normaliser = ActionNormaliser("quantile", stats)
    with pytest.raises(ContractError, match=r"\[..., 2\]"):
        normaliser.normalise(np.zeros((4, 64)))
    with pytest.raises(ContractError, match="NaN or infinity"):
        normaliser.restore([[0.0, np.nan]])
