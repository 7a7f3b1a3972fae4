from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from motedge.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("BUNDLE", "--target", "jetson-agx-thor-t500"), "did you mean 'jetson-agx-thor-t5000'"),
        (("BUNDLE", "--target", "h100"), "there is no bundle"),
        (("--target", "h100"), "a plan needs a bundle"),
    ],
)
def test_usage(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *arguments]) == 2
    shown = capsys.readouterr()
    assert words in shown.err and not shown.out


@pytest.mark.parametrize("arguments", [("BUNDLE",), ("BUNDLE", "--all", "--target", "h100")])
def test_one_device_or_all(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plan", *arguments])
    assert stopped.value.code == 2


def test_published_times_with_the_honest_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--published"]) == 0
    out = capsys.readouterr().out
    factor = float(re.search(r"off by a factor of (\d+\.\d+)", out).group(1))  # type: ignore[union-attr]
    assert main(["plan", "--published", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["typical_factor"] == pytest.approx(factor, abs=0.005)
    fitted = [figure for figure in document["figures"] if figure["fitted"]]
    # Each is predicted by a fit that had not seen its publisher, so no ratio is exact
    assert len(fitted) > 5 and all(figure["ratio"] != 1 for figure in fitted)
    assert all(figure["why"] for figure in document["figures"] if not figure["fitted"])
    assert out.count("\n") > len(document["figures"])
