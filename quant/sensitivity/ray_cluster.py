"""Workers on the machines of a Ray cluster. The bundle must lie at the same path on each of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from motedge.errors import HostError, MissingPackageError
from motedge.quant.sensitivity.tasks import Records, Task
from motedge.quant.sensitivity.worker import Worker, WorkerSetup


class RayCluster:
    """One actor a core, or `jobs` of them; see motedge.quant.sensitivity.executors.Executor."""

    def __init__(self, setup: WorkerSetup, jobs: int | None = None) -> None:
        """Joins the cluster that Ray finds (RAY_ADDRESS, or one on this machine), else starts one here.

        Raises:
            MissingPackageError: Ray is not installed.
            HostError: the cluster has no core.
        """
        self._ray = _import_ray()
        self._joined = not self._ray.is_initialized()
        if self._joined:
            self._ray.init(log_to_driver=False)
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        count = cores if jobs is None else jobs
        if not 1 <= count <= cores:
            self.close()
            raise HostError(
                "the Ray cluster has too few cores", expected=f"{max(count, 1)} for as many workers", got=cores
            )
        # Once into the object store, not once an actor
        held = self._ray.put(setup)
        needs = {"num_cpus": 1, **({"num_gpus": 1} if setup.device != "cpu" else {})}
        actor = self._ray.remote(**needs)(_Actor)
        self._actors = [actor.remote(held) for _ in range(count)]

    def run(self, tasks: Sequence[Task]) -> Iterator[Records]:
        """See Executor."""
        waiting = list(reversed(tasks))
        running: dict[Any, Any] = {}
        for actor in self._actors:
            if waiting:
                running[actor.run.remote(waiting.pop())] = actor
        while running:
            (done, *_), _ = self._ray.wait(list(running), num_returns=1)
            actor = running.pop(done)
            if waiting:
                running[actor.run.remote(waiting.pop())] = actor
            yield self._ray.get(done)

    def close(self) -> None:
        """Ends the actors, and leaves the cluster if this object joined it."""
        for actor in getattr(self, "_actors", []):
            self._ray.kill(actor)
        if self._joined:
            self._ray.shutdown()


class _Actor:
    def __init__(self, setup: WorkerSetup) -> None:
        torch.set_num_threads(1)
        self._worker = Worker(setup)

    def run(self, task: Task) -> Records:
        """Measures one task."""
        return self._worker.run(task)


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingPackageError("ray", extra="ray", purpose="to spread the search over machines") from error
