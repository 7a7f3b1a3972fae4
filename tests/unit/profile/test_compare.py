"""Comparing profiles: a slowdown is found, noise is called noise, and what can't be compared is refused or marked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiled_policy import DEVICE, FACTS, document_of

from motedge.cli.main import main
from motedge.errors import UsageError
from motedge.profile.compare import FASTER, NO_TIME, NOISE, SLOWER, SMALL, TOO_FEW, compare_profiles
from motedge.profile.compare_text import answer, comparison_lines


def _profile(seed: int, scale: float = 1.0, count: int = 100, **changes: Any) -> dict[str, Any]:
    """Ticks that scatter by 8 %, as those of a machine that does other things too."""
    return document_of(list(scale * np.random.default_rng(seed).normal(20.0, 1.6, count)), **changes)


def _verdicts(comparison: Any) -> dict[str, str]:
    return {change.stage: change.verdict for change in comparison.stages}


def test_a_fifth_slower_is_found() -> None:
    found = compare_profiles(_profile(1), _profile(2, 1.2))
    verdicts = _verdicts(found)
    assert verdicts["tick"] == verdicts["step 0 cond"] == verdicts["denoise"] == SLOWER
    assert verdicts["vae_encoder"] == NOISE, "it took the same time on both sides"
    assert found.tick is not None and found.tick.interval is not None
    assert found.tick.interval.low < 1 + 0.2 * 20 / 21.6 < found.tick.interval.high
    assert "slower by" in answer(found)
    assert compare_profiles(_profile(2, 1.2), _profile(1)).tick.verdict == FASTER  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_called_noise(seed: int) -> None:
    found = compare_profiles(_profile(seed), _profile(seed + 50))
    assert set(_verdicts(found).values()) <= {NOISE, SMALL}
    assert "no change beyond noise" in answer(found)


def test_a_change_too_small_to_count() -> None:
    before, after = document_of([20.0] * 50), document_of([20.4] * 50)
    assert _verdicts(compare_profiles(before, after))["tick"] == SMALL
    assert _verdicts(compare_profiles(before, after, least_change=0.01))["tick"] == SLOWER


def test_in_turn_smaller_changes_count() -> None:
    sides = [_profile(1), _profile(1, 1.03)]
    for document, side in zip(sides, "AB"):
        document["interleaved"] = {"session": "s", "side": side}
    found = compare_profiles(*sides)
    assert found.interleaved and _verdicts(found)["tick"] == SLOWER
    assert not any("separate runs" in words for words in found.cautions)
    sides[1]["interleaved"]["session"] = "another"
    assert not compare_profiles(*sides).interleaved


def test_another_device_is_refused_or_marked() -> None:
    other = _profile(2, device={**DEVICE, "gpus": [{"name": "NVIDIA H100"}], "board": None})
    with pytest.raises(UsageError, match="two devices") as raised:
        compare_profiles(_profile(1), other)
    assert "H100" in str(raised.value) and "--other-device" in str(raised.value)
    found = compare_profiles(_profile(1), other, other_device=True)
    assert found.differences[0][0] == "DEVICE"


def test_other_conditions_are_marked() -> None:
    after = _profile(
        2,
        engine={**FACTS["engine"], "recipe": "fp8"},
        versions={**FACTS["versions"], "onnxruntime": "1.24"},
        bundle={**FACTS["bundle"], "manifest_sha256": "b" * 64},
        stopped="interrupted; phase warm",
    )
    after["throttling"] = {"known": True, "seen": {"NVML GPU 0: power cap": 0.5}}
    found = compare_profiles(_profile(1), after)
    assert {what for what, *_ in found.differences} == {"bundle", "recipe", "versions: onnxruntime"}
    assert ("recipe", "none", "fp8") in found.differences
    text = "\n".join(comparison_lines(found))
    assert any("not the same work on both sides: bundle, recipe differ" in words for words in found.cautions)
    for part in ("did not come to its end", "power cap", "aaaaaaaaaaaa -> bbbbbbbbbbbb", "separate runs", "first tick"):
        assert part in text
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_too_few_ticks_are_not_judged() -> None:
    found = compare_profiles(document_of([20.0] * 4), _profile(1))
    assert set(_verdicts(found).values()) == {TOO_FEW} and "too few" in answer(found)
    empty = _profile(1)
    empty["samples"]["phase"] = ["first"] * len(empty["samples"]["phase"])
    with pytest.raises(UsageError, match="second profile has no warm tick"):
        compare_profiles(_profile(1), empty)


def test_no_time_is_not_called_too_few_ticks() -> None:
    after = _profile(2)
    after["samples"]["stages_ms"]["denoise"][7] = 0.0
    found = compare_profiles(_profile(1), after)
    assert _verdicts(found)["denoise"] == NO_TIME and _verdicts(found)["tick"] == NOISE
    assert any(NO_TIME in line for line in comparison_lines(found))


def test_in_turn_a_stage_is_paired_by_its_tick() -> None:
    sides = [_profile(1), _profile(1, 1.05)]
    for document, side in zip(sides, "AB"):
        document["interleaved"] = {"session": "s", "side": side}
    warm = [index for index, phase in enumerate(sides[0]["samples"]["phase"]) if phase == "warm"]
    for document, missing in zip(sides, (warm[:30], warm[50:80])):
        for index in missing:
            document["samples"]["stages_ms"]["denoise"][index] = None
    found = next(change for change in compare_profiles(*sides).stages if change.stage == "denoise")
    assert found.before_count == found.after_count == len(warm) - 60
    ratios = [
        b / a
        for a, b in zip(*(document["samples"]["stages_ms"]["denoise"] for document in sides))
        if a is not None and b is not None
    ]
    assert found.verdict == SLOWER and found.interval is not None
    assert max(ratios) - min(ratios) < 1e-3, "tick for tick all of them rose alike"
    assert found.interval.high - found.interval.low < 1e-3, "pairs of other ticks would scatter"
    for index in set(warm) - set(warm[:30]):
        sides[1]["samples"]["stages_ms"]["denoise"][index] = None
    assert _verdicts(compare_profiles(*sides))["denoise"] == TOO_FEW, "never in one tick together"


def test_ticks_that_are_alike_are_told() -> None:
    random, drift = np.random.default_rng(3), [0.0]
    for _ in range(99):
        drift.append(0.99 * drift[-1] + random.normal(0, 1.0))
    found = compare_profiles(document_of([40 + value for value in drift]), _profile(1))
    assert any(words.startswith("tick: only 100 ticks, as much as") for words in found.cautions)
    assert not any("narrow" in words for words in compare_profiles(_profile(1), _profile(2)).cautions)
    few = compare_profiles(_profile(1, count=12), _profile(2, count=12))
    assert "tick: only 12 ticks: its interval is too narrow; take more" in few.cautions


def test_stages_of_one_side_are_named() -> None:
    after = copy.deepcopy(_profile(2))
    after["samples"]["stages_ms"]["wait"] = after["samples"]["stages_ms"]["tick"]
    del after["samples"]["stages_ms"]["denoise"]
    found = compare_profiles(_profile(1), after)
    assert found.only_after == ("wait",) and found.only_before == ("denoise",)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, document in (
        ("a", _profile(1)),
        ("b", _profile(2, 1.2)),
        ("c", _profile(3, device={**DEVICE, "cpu": "x"})),
    ):
        paths.append(tmp_path / name)
        paths[-1].mkdir()
        (paths[-1] / "profile.json").write_text(json.dumps(document))
    a, b, c = map(str, paths)
    out = tmp_path / "out"
    assert main(["profile", "--compare", a, b, "--out", str(out)]) == 0
    assert json.loads((out / "comparison.json").read_text())["schema"] == "motedge.profile_comparison/v1"
    assert "slower by" in (out / "comparison.html").read_text()
    assert main(["profile", "--compare", a, b, "--out", str(out)]) == 2
    assert main(["profile", "--compare", a, b, "--out", str(out), "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["profile", "--compare", a, b]) == 0
    assert "tick         slower by" in capsys.readouterr().out
    assert main(["profile", "--compare", a, f"{b}/profile.json", "--fail-if-slower"]) == 1
    assert main(["profile", "--compare", b, a, "--fail-if-slower", "--json"]) == 0
    capsys.readouterr()
    assert main(["profile", "--compare", a, c]) == 2
    assert "two devices" in capsys.readouterr().err
    assert main(["profile", "--compare", a, c, "--other-device"]) == 0
    for arguments, said in (
        (["--compare", a, str(tmp_path / "none")], "there is no profile"),
        (["bundle", "--compare", a, b], "runs nothing"),
        (["--compare", a, b, "--least-change", "-3"], "--least-change is wrong"),
        ([], "needs bundle"),
        (["bundle", "--observation", "x", "--other-recipe", "fp8"], "for two profiles"),
    ):
        assert main(["profile", *arguments]) == 2
        assert said in capsys.readouterr().err
