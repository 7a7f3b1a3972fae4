"""What acts in a bench: a bundle's policy on observations, or its loop on the sample that every bundle carries."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

from motedge.bench.observations import Scene
from motedge.bundle import Bundle
from motedge.errors import UsageError
from motedge.runtime.backends import DEVICE_BACKENDS, open_engine
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import EngineOptions, FloatArray
from motedge.runtime.policy import GpuOptions, load_policy
from motedge.runtime.policy.embodiments import load_embodiments
from motedge.runtime.policy.loader import GRAPHS
from motedge.runtime.policy.policy import Policy
from motedge.runtime.request import SamplerSettings
from motedge.runtime.samples import TICK, Sample
from motedge.runtime.tables import Tables
from motedge.runtime.tick import settings_from_json, tick_inputs

# What the columns of a sample are in: no unit of a robot's, for the sample is the network's own
NETWORK_UNIT = "network units"


@dataclass(frozen=True, eq=False)
class Acted:
    """Actions, and how they came about."""

    # fp32 [rows, columns], with name and unit of each column
    actions: FloatArray
    fields: tuple[str, ...]
    units: tuple[str, ...]
    forwards: int
    # Forwards that the step cache saved, and prompts that had to be read
    reused: int
    prefills: int
    launch: str


class Acting(Protocol):
    """Acts on scenes 0 to count - 1."""

    count: int

    def act(self, scene: int, settings: SamplerSettings, seed: Optional[int]) -> Acted:
        """One tick; without a seed the noise is that of the bench's own."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of a GPU's memory, by purpose."""
        ...

    def close(self) -> None:
        """Frees it."""
        ...


@dataclass(frozen=True)
class ActingOptions:
    """How a candidate is opened."""

    bundle: Path
    recipe: Optional[str]
    variant: Optional[str]
    engine: str
    seed: int
    threads: Optional[int] = None
    check: str = "full"
    gpu: Optional[GpuOptions] = None
    # None: the sample of a tick that the bundle carries
    scenes: Optional[tuple[Scene, ...]] = None


def open_acting(options: ActingOptions) -> Acting:
    """Opens it.

    Raises:
        BundleError, UsageError, HostError and others: as `load_policy`.
    """
    return SampleActing(options) if options.scenes is None else PolicyActing(options, options.scenes)


class PolicyActing:
    """The policy, as a robot would have it."""

    def __init__(self, options: ActingOptions, scenes: Sequence[Scene]) -> None:
        self.count, self._scenes = len(scenes), scenes
        self._policy: Policy = load_policy(
            options.bundle,
            engine=options.engine,
            recipe=options.recipe,
            variant=options.variant,
            check=options.check,
            threads=options.threads,
            gpu=options.gpu,
            # The next request's noise is known, and drawn while this one is at work
            seed=options.seed,
            deterministic_seed=True,
        )

    def act(self, scene: int, settings: SamplerSettings, seed: Optional[int]) -> Acted:
        """See `Acting.act`."""
        asked = self._scenes[scene]
        chunk = self._policy.act(asked.observation, seed=seed, settings=settings, prompt=asked.prompt)
        details = chunk.details
        return Acted(
            actions=chunk.actions,
            fields=chunk.field_names,
            units=chunk.units,
            forwards=chunk.forwards,
            reused=int(details.get("reused", 0)),
            prefills=int(details.get("prefills", 0)),
            launch=str(details.get("launch", "host")),
        )

    def memory_bytes(self) -> dict[str, int]:
        """See `Acting.memory_bytes`."""
        return self._policy.memory_bytes()

    def close(self) -> None:
        """See `Acting.close`."""
        self._policy.close()


class SampleActing:
    """The recorded tick of a bundle: its image through the VAE, its prompts and noise through the loop, on the host.

    What comes before the image is in the network's shape, and after the loop, is not part of it.
    """

    count = 1

    def __init__(self, options: ActingOptions) -> None:
        bundle = Bundle.open(options.bundle)
        sample = check_sample(options.bundle, options.engine)
        self._arrays, self._seed = sample.arrays(bundle), options.seed
        self._settings = settings_from_json(str(self._arrays["settings"]))
        choice: dict[str, Any] = {"backend": options.engine, "variant": options.variant, "recipe": options.recipe}
        choice["options"] = EngineOptions(threads=options.threads, check_content=options.check == "full")
        bundle.check_files([entry["file"] for entry in bundle.manifest.tables.values()])
        with contextlib.ExitStack() as opened:
            engines = [
                opened.enter_context(contextlib.closing(open_engine(bundle, graph, **choice))) for graph in GRAPHS
            ]
            und, gen, self._vae = engines
            self._loop = DenoiseLoop(und, gen, Tables.open(bundle), bundle.manifest.model["config"])
            opened.callback(self._loop.close)
            self._opened = opened.pop_all()
        self._names = field_names(bundle.manifest.policy, int(self._settings["raw_dim"]))

    def act(self, scene: int, settings: SamplerSettings, seed: Optional[int]) -> Acted:
        """See `Acting.act`."""
        chosen = self._seed if seed is None else seed
        inputs, _ = tick_inputs(self._vae, self._arrays, self._settings, chosen)
        result = self._loop.run(inputs, settings)
        generated = self._arrays["in.action_noisy"] > 0
        return Acted(
            actions=result.action[generated][:, : inputs.raw_dim].copy(),
            fields=self._names,
            units=(NETWORK_UNIT,) * inputs.raw_dim,
            forwards=result.counters.forwards,
            reused=result.counters.reused,
            prefills=result.counters.prefills,
            launch=result.counters.launch,
        )

    def memory_bytes(self) -> dict[str, int]:
        """See `Acting.memory_bytes`: nothing, for all of it is the host's."""
        return {}

    def close(self) -> None:
        """See `Acting.close`."""
        self._opened.close()


def check_sample(root: Path, engine: str) -> Sample:
    """The sample of a tick that a bundle carries.

    Raises:
        UsageError: there is none, or the engine can't run it.
        BundleError: it is no bundle.
    """
    if engine in DEVICE_BACKENDS:
        raise UsageError(
            f"the sample of a tick does not run on {engine}",
            expected="observations, or an engine of the host",
            fix="motedge bench BUNDLE --observations DIR",
        )
    sample = Sample.of(Bundle.open(root), TICK)
    if sample.file is None:
        raise UsageError(
            "the bundle has no sample of a tick", why=sample.none, fix="motedge bench BUNDLE --observations DIR"
        )
    return sample


def field_names(policy: Mapping[str, Any], width: int) -> tuple[str, ...]:
    """Names of the columns of an action row, as far as the embodiment tells them."""
    robot = load_embodiments().get(str(policy.get("embodiment")))
    if robot is not None and len(robot.fields) == width:
        return robot.fields
    return tuple(f"column {number}" for number in range(width))
