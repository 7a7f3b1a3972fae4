"""A policy and a reasoner on a simulated GPU behind the server: loaded in one thread, run and freed in another."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda
from serve_scene import DescribedClient, observation, served, until

from motedge.runtime.backends.onnxruntime_cuda import engine as ort_cuda
from motedge.runtime.backends.onnxruntime_cuda.provider import Provider
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.policy import device_loader as policy_loader
from motedge.runtime.policy import load_policy
from motedge.runtime.reasoner import device_loader as reasoner_loader
from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident
from motedge.serve.policy_request import request_from_message

ENGINES = {"engine": "onnxruntime-cuda", "variant": "primitive-fp32", "check": "size", "threads": 1}


class Gpus:
    """A simulated GPU for each context that is opened, and what was left on each when it was closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total_bytes = 1 << 31
        self.opened: list[HostCuda] = []
        self.left: list[dict[str, int]] = []
        for loader in (policy_loader, reasoner_loader):
            monkeypatch.setattr(loader, "open_cuda", self.open)
        monkeypatch.setattr(ort_cuda, "Provider", self.provider)

    def open(self, *_: Any, **__: Any) -> HostCuda:
        cuda = HostCuda(self.total_bytes, deferred=True)
        close = cuda.close
        cuda.close = lambda: (self.left.append(dict(cuda.ledger)), close())  # type: ignore[assignment]
        self.opened.append(cuda)
        return cuda

    def provider(self) -> Provider:
        return Provider("CPUExecutionProvider", "cpu", self.opened[-1].enqueue)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    return Gpus(monkeypatch)


def test_the_engines_are_used_and_freed_by_one_thread(reasoned_bundle: Path, gpus: Gpus) -> None:
    choice = BundleChoice(reasoned_bundle, engines=ENGINES, policy={"steps": 2}, chat=True, capacity=256)
    request = request_from_message(observation(0.25), 1 << 20, "here")
    with load_policy(reasoned_bundle, **ENGINES, steps=2) as policy:
        expected = policy.act(request.observation, seed=5).actions
    asked = json.dumps({"messages": [{"role": "user", "content": "Tell"}], "max_tokens": 12}).encode()
    said: list[Any] = []
    with served(lambda generation: load_resident(choice, generation), chat=True) as running:
        talker = threading.Thread(target=lambda: said.append(running.get("/v1/chat/completions", post=asked)))
        with DescribedClient(running.url) as client:
            talker.start()
            for _ in range(4):
                answer = client.infer(observation(0.25, **{"motedge/seed": 5}))
                np.testing.assert_array_equal(answer["actions"], expected)
            talker.join(30)
            assert running.get("/reload", post=b"")[0] == 200
            until(lambda: client.infer(observation(0.25))["generation"] == 2)
            answer = client.infer(observation(0.25, **{"motedge/seed": 5}))
            np.testing.assert_array_equal(answer["actions"], expected)
            # The first bundle's contexts are closed, the second's are not
            until(lambda: sum(cuda.closed for cuda in gpus.opened) == 3)
    assert said[0][0] == 200 and json.loads(said[0][1])["usage"]["completion_tokens"] == 12
    # One before, and a policy's and a reasoner's for each load
    assert len(gpus.opened) == 5 and all(cuda.closed for cuda in gpus.opened)
    assert all(set(left) <= {PINNED} for left in gpus.left)


def test_a_reload_that_does_not_fit_leaves_what_is_served(reasoned_bundle: Path, gpus: Gpus) -> None:
    choice = BundleChoice(reasoned_bundle, engines=ENGINES, policy={"steps": 2})
    with (
        served(lambda generation: load_resident(choice, generation)) as running,
        DescribedClient(running.url) as client,
    ):
        first = client.infer(observation(0.25, **{"motedge/seed": 5}))
        gpus.total_bytes = 100_000
        status, text = running.get("/reload", post=b"")
        assert status == 409 and "no room" in text and gpus.opened[1].closed
        second = client.infer(observation(0.25, **{"motedge/seed": 5}))
        np.testing.assert_array_equal(first["actions"], second["actions"])
        assert second["generation"] == 1
