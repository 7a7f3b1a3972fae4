"""The part of Ray's interface that motedge uses, in one process: actors, references, wait and get."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(eq=False)
class Reference:
    """What Ray calls an object reference: the value, or the error that making it raised."""

    value: Any = None
    error: BaseException | None = None


class _Method:
    def __init__(self, bound: Any) -> None:
        self._bound = bound

    def remote(self, *arguments: Any) -> Reference:
        try:
            return Reference(copy.deepcopy(self._bound(*arguments)))
        except Exception as error:  # noqa: BLE001 -- Ray hands every error to whoever asks for the value
            return Reference(error=error)


class _Actor:
    def __init__(self, instance: Any, options: dict[str, Any]) -> None:
        self.instance, self.options = instance, options

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self.instance, name))


def make_ray_stub(cpus: int) -> ModuleType:
    """A module to be put into sys.modules as "ray"; `actors` and `killed` say what happened."""
    stub: Any = ModuleType("ray")
    stub.actors, stub.killed, state = [], [], {"on": False}

    def remote(**options: Any) -> Any:
        def wrap(cls: type) -> Any:
            class Handle:
                @staticmethod
                def remote(*arguments: Any) -> _Actor:
                    # Arguments that are references arrive as values
                    values = [a.value if isinstance(a, Reference) else a for a in arguments]
                    stub.actors.append(_Actor(cls(*values), options))
                    return stub.actors[-1]

            return Handle

        return wrap

    def get(reference: Reference) -> Any:
        if reference.error is not None:
            raise reference.error
        return reference.value

    def wait(references: list[Reference], num_returns: int) -> tuple[list[Reference], list[Reference]]:
        # The latest first: results come in another order than the tasks were given
        ordered = list(reversed(references))
        return ordered[:num_returns], ordered[num_returns:]

    stub.init = lambda **_: state.update(on=True)
    stub.shutdown = lambda: state.update(on=False)
    stub.is_initialized = lambda: state["on"]
    stub.cluster_resources = lambda: {"CPU": float(cpus), "memory": 1e9}
    stub.put, stub.get, stub.wait, stub.remote, stub.kill = Reference, get, wait, remote, stub.killed.append
    return stub
