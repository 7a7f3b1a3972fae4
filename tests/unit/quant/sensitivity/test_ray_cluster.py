"""The adapter to Ray against a module that answers as Ray does: Ray itself is not installed for the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ray_stub import make_ray_stub

from motedge.errors import HostError, MissingPackageError
from motedge.quant.sensitivity import ray_cluster
from motedge.quant.sensitivity.ray_cluster import RayCluster
from motedge.quant.sensitivity.tasks import SiteTask
from motedge.quant.sensitivity.worker import WorkerSetup
from motedge.quant.sensitivity.workload import Workload
from motedge.runtime.request import SamplerSettings

SETUP = WorkerSetup(Path("bundle"), Workload(SamplerSettings(), (), ()), {}, "fp32", "cpu")
TASKS = [SiteTask("gen_step", f"layers.{layer}.x", layer, ("fp8",)) for layer in range(7)]


class _Worker:
    """Counts what it is given, instead of loading towers."""

    def __init__(self, setup: WorkerSetup) -> None:
        assert setup is SETUP
        self.done = 0

    def run(self, task: SiteTask) -> dict[str, dict[str, Any]]:
        self.done += 1
        if task.layer == 99:
            raise HostError("out of memory")
        return {task.ids()[0]: {"action": float(task.layer)}}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    stub = make_ray_stub(cpus=3)
    monkeypatch.setitem(sys.modules, "ray", stub)
    monkeypatch.setattr(ray_cluster, "Worker", _Worker)
    return stub


def test_every_task_is_measured_once_by_all_actors(ray: Any) -> None:
    cluster = RayCluster(SETUP)
    found: dict[str, Any] = {}
    for records in cluster.run(TASKS):
        assert not found.keys() & records.keys()
        found.update(records)
    assert found == {task.ids()[0]: {"action": float(task.layer)} for task in TASKS}
    assert len(ray.actors) == 3 and all(actor.instance._worker.done for actor in ray.actors)
    assert all(actor.options == {"num_cpus": 1} for actor in ray.actors)
    cluster.close()
    assert ray.killed == ray.actors and ray.is_initialized() is False


def test_a_cluster_that_was_joined_before_is_left_as_it_was(ray: Any) -> None:
    ray.init()
    RayCluster(SETUP, 2).close()
    assert len(ray.killed) == 2 and ray.is_initialized()


def test_an_error_of_an_actor_reaches_the_caller(ray: Any) -> None:
    with pytest.raises(HostError, match="out of memory"):
        list(RayCluster(SETUP).run([SiteTask("gen_step", "layers.99.x", 99, ("fp8",))]))


def test_more_workers_than_cores_are_refused(ray: Any) -> None:
    with pytest.raises(HostError, match="too few cores"):
        RayCluster(SETUP, 4)
    assert not ray.is_initialized()


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match="ray") as caught:
        RayCluster(SETUP)
    assert "motedge[ray]" in str(caught.value.fix)
