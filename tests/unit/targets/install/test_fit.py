"""Whether an archive is for this machine: certain mismatches are refused, doubt is said."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from packed import FILES, make_listing, packed

from motedge.errors import HostError
from motedge.targets.catalog import load_target
from motedge.targets.detect import AMBIGUOUS, CERTAIN, UNKNOWN, Candidate, Clues, Detection
from motedge.targets.install.fit import engine_room, require_fit

CLUES = Clues(None, (), (), None, None, None, None, (), "", ())


def _here(target: Optional[str], certainty: str = CERTAIN, release: Optional[str] = None, *others: str) -> Detection:
    rows = load_target(target).software if target else ()
    software = next((row for row in rows if row.release == release), None)
    return Detection(target, certainty, "why", tuple(Candidate(o, "") for o in others), software, None, (), CLUES)


def test_the_same_device_and_release_pass() -> None:
    require_fit(make_listing(), _here("jetson-orin-nano-8gb", CERTAIN, "JetPack 6.2"))


def test_another_device_is_refused_and_both_are_named() -> None:
    with pytest.raises(HostError, match="another device") as caught:
        require_fit(make_listing(), _here("jetson-agx-thor-t5000"))
    assert caught.value.expected == "jetson-orin-nano-8gb" and "jetson-agx-thor-t5000" in caught.value.got
    assert "--target jetson-agx-thor-t5000" in caught.value.fix


def test_another_release_is_refused() -> None:
    with pytest.raises(HostError, match="other releases") as caught:
        require_fit(make_listing(), _here("jetson-orin-nano-8gb", CERTAIN, "JetPack 7.2"))
    assert '--release "JetPack 7.2"' in caught.value.fix


def test_doubt_is_said_and_no_reason_to_refuse(caplog: pytest.LogCaptureFixture) -> None:
    require_fit(make_listing(), _here(None, UNKNOWN))
    assert "can't be told" in caplog.text
    require_fit(make_listing(), _here(None, AMBIGUOUS, None, "jetson-orin-nx-8gb", "jetson-orin-nano-8gb"))
    assert "one of" in caplog.text
    with pytest.raises(HostError, match="another device"):
        require_fit(make_listing(), _here(None, AMBIGUOUS, None, "jetson-t4000", "jetson-t5000"))


def test_graphs_for_a_cpu_run_anywhere() -> None:
    require_fit(make_listing(builder="onnxruntime", target="cpu"), _here("jetson-agx-thor-t5000"))


def test_room_for_engines() -> None:
    weights = len(FILES["graphs/weights/gen_step.fp16.data"])
    assert weights < engine_room(make_listing()) < weights * 1.1 + 40_000_000
    built: Any = {**make_listing().files, "engines/jetson-orin-nano-8gb/build.json": packed(b"{}")}
    assert engine_room(make_listing(files=FILES)) > 0
    listing = make_listing()
    object.__setattr__(listing, "files", built)
    assert engine_room(listing) == 0
