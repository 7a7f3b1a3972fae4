"""Which test shows that a mode works for a family on a backend: the marker, and a record of the tests that ran.

@pytest.mark.capability(mode="policy", family="{family}", backend="onnxruntime", proof="parity")

A value in braces is a parameter of the test. `pytest --capabilities benchmarks/results/capabilities.json` adds what ran
to the file; `python scripts/capability_matrix.py` makes docs/capabilities.md of it.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCHEMA = "motedge.capabilities/v1"
ROOT = Path(__file__).resolve().parents[2]
# Mode -> how the page calls it, in the page's order
MODES = {
    "policy": "policy: observation to actions",
    "text2image": "text to image",
    "text2video": "text to video",
    "image2video": "image to video",
    "video2video": "video to video",
    "forward_dynamics": "forward dynamics: frame and actions to video",
    "inverse_dynamics": "inverse dynamics: video to actions",
    "distilled": "distilled models, 4 steps",
    "reason_text": "reasoner, text",
    "reason_image": "reasoner, images",
    "reason_video": "reasoner, video",
    "reason_both": "reasoner, images and video",
    "vae_encode": "video to latents",
    "vae_decode": "latents to video",
    "sound": "sound, with the video",
    "step_cache": "step cache",
}
# "any": a stand-in model of a few bytes, for what does not depend on the family
FAMILIES = ("edge", "nano", "super", "any")
BACKENDS = ("onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
# Proof -> what it says, the strongest first
PROOFS = {
    "parity": "equal to diffusers or transformers within the test's tolerance, fp32, tiny random weights",
    "property": "what must hold does: off it changes no bit, and forwards are counted as they are run",
    "simulated": "the loop that all GPU backends share equals the host's, on a GPU that is simulated on the CPU",
    "built": "an engine was built, and not run: no GPU here takes it",
}
_KEYS = ("mode", "family", "backend", "proof")


@dataclass(frozen=True)
class Claim:
    """What one test shows if it passes."""

    mode: str
    family: str
    backend: str
    proof: str


def claims_of(item: pytest.Item) -> list[Claim]:
    """The claims of one test, its parameters put in.

    Raises:
        pytest.UsageError: a value that the page does not know, or a missing one.
    """
    claims = []
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    for marker in item.iter_markers("capability"):
        if marker.args or set(marker.kwargs) != set(_KEYS):
            raise pytest.UsageError(f"{item.nodeid}: a capability has the keywords {', '.join(_KEYS)} and no others")
        values = {name: str(value).format(**parameters) for name, value in marker.kwargs.items()}
        for name, known in zip(_KEYS, (MODES, FAMILIES, BACKENDS, PROOFS)):
            if values[name] not in known:
                raise pytest.UsageError(f"{item.nodeid}: unknown {name} {values[name]!r}, not of {', '.join(known)}")
        claims.append(Claim(**values))
    return claims


class Recorder:
    """Counts outcomes by test function and claim, and adds them to the file when the session ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._claims: dict[str, list[Claim]] = {}
        self._outcomes: dict[tuple[str, Claim], Counter[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Notes the claims of what will run."""
        self._claims = {item.nodeid: claims for item in session.items if (claims := claims_of(item))}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts the call of a test, or what kept it from being called."""
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            for claim in self._claims.get(report.nodeid, ()):
                key = report.nodeid.partition("[")[0], claim
                self._outcomes.setdefault(key, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        """Writes what ran beside what earlier sessions recorded of other tests."""
        if not self._outcomes:
            return
        old = json.loads(self._path.read_text(encoding="utf-8"))["entries"] if self._path.exists() else []
        entries = merge(old, self._outcomes, {"commit": _commit(), "date": datetime.date.today().isoformat()})
        text = json.dumps({"schema": SCHEMA, "entries": entries}, indent=1) + "\n"
        self._path.write_text(text, encoding="utf-8")


def merge(
    old: Iterable[Mapping[str, Any]], ran: Mapping[tuple[str, Claim], Counter[str]], when: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The entries of the file: those of tests that ran now in place of older ones of the same test."""
    tests = {test for test, _ in ran}
    entries = [dict(entry) for entry in old if entry["test"] not in tests]
    for (test, claim), outcomes in ran.items():
        counts = {name: outcomes[name] for name in ("passed", "failed", "skipped")}
        entries.append({**vars(claim), "test": test, **counts, **when})
    order = list(MODES)
    return sorted(entries, key=lambda e: (order.index(e["mode"]), *(e[name] for name in _KEYS[1:]), e["test"]))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()[:12] or "unknown"
