"""A real bundle behind a policy server in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from serve_scene import served

from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident

ENGINES = {"check": "size", "threads": 1}
STEPS = {"steps": 2}


@contextlib.contextmanager
def serving(bundle: Path, **choice: Any) -> Iterator[Any]:
    chosen = BundleChoice(bundle, **{"engines": ENGINES, "policy": STEPS, **choice})
    more = {"deadline_ms": chosen.deadline_ms, "policy": chosen.serve_policy, "chat": chosen.chat}
    more.update(one_robot=chosen.reason is not None, chat_rate_hz=1e6, chat_burst=1000)
    with served(lambda generation: load_resident(chosen, generation), **more) as running:
        yield running


def picture(seed: int, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)
