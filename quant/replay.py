"""Real requests through the real loop, one tower in memory at a time.

Observations become requests (tokens, latent, state, seed); prompts become K and V; then the denoising loop runs on the
generator alone. Calibration, the fidelity report and the sensitivity search all drive their models this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from motedge.bundle import Bundle, Contract
from motedge.errors import InternalError
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Array, Context, Engine, FloatArray, IntArray
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.policy import Policy
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import HostTick
from motedge.runtime.prompt_cache import PromptCache
from motedge.runtime.prompt_encoder import PromptEncoder
from motedge.runtime.request import GenInputs, GenResult, LoopCounters, LoopTimings, SamplerSettings
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer

BRANCHES = ("conditional", "unconditional")
_MAX_PROMPTS = 4096


class RequestReader:
    """Turns observations into what the loop takes, by the policy's own code with a loop that only writes it down."""

    def __init__(self, bundle: Bundle, vae: Engine) -> None:
        """`vae`: engine of vae_encoder."""
        defaults = bundle.manifest.policy
        self.settings = sampler_settings(defaults, {})
        self._loop = _Listener(bundle.contract("gen_step"))
        robot = find_embodiment(str(defaults.get("embodiment", "")))
        protocol = find_protocol(robot)
        shape = PolicyShape.from_manifest(bundle.manifest.shape_set, defaults, protocol.state_rows)
        self._policy = Policy(
            tick=HostTick(vae, self._loop, shape, protocol),
            tokenizer=PromptTokenizer.open(bundle),
            gen_contract=bundle.contract("gen_step"),
            shape=shape,
            embodiment=robot,
            settings=self.settings,
            prompt_format=str(defaults.get("prompt_format", "json")),
            seeds=RequestSeeds(0, fixed=True),
        )

    def read(self, observation: Observation, seed: int) -> GenInputs:
        """The request of one observation, with its own prompt if it has one.

        Raises:
            ObservationError: the policy would refuse it.
        """
        prompt = observation.prompt if isinstance(observation, PromptedObservation) else None
        self._policy.act(observation, seed=seed, prompt=prompt)
        if self._loop.heard is None:
            raise InternalError("the policy did not call its loop")
        return self._loop.heard


def encode_prompts(
    bundle: Bundle, und: Engine, requests: Iterable[GenInputs], settings: SamplerSettings
) -> PromptCache:
    """K and V of every prompt that the requests need, each computed once."""
    tables = Tables.open(bundle)
    rotary = RotaryTable(tables.inv_freq(), bundle.manifest.model["config"])
    cache = PromptCache(max_entries=_MAX_PROMPTS)
    encoder = PromptEncoder(und, tables, rotary, cache, "fp32")
    for request in requests:
        encoder.encode(request.cond_tokens)
        if request.uncond_tokens is not None and settings.guidance != 1:
            encoder.encode(request.uncond_tokens)
    return cache


def open_loop(bundle: Bundle, gen: Engine, prompts: PromptCache) -> DenoiseLoop:
    """The denoising loop on a generator alone; every prompt must have been encoded.

    K and V are given to `gen` in its own type: a graph in fp16 gets its own copy.
    """
    absent = _AbsentTower(bundle.contract("und_prefill"))
    if gen.dtype != "fp32":
        prompts = _cast(prompts, np.dtype(np.float16))
    return DenoiseLoop(absent, gen, Tables.open(bundle), bundle.manifest.model["config"], prompt_cache=prompts)


@dataclass(frozen=True)
class Forward:
    """One forward of the generator inside a loop."""

    # Number of the denoising step, from 0
    step: int
    # One of BRANCHES
    branch: str
    # The graph's inputs by name; `vision`, `action` and `t` are copies, the others shared by many forwards
    inputs: Mapping[str, Array]
    # fp32 copies of "vision_velocity" [C, T, h, w] and "action_velocity" [A, Z]
    outputs: Mapping[str, FloatArray]

    @property
    def t(self) -> float:
        """What the network was told, 0..1000."""
        return float(self.inputs["t"][0])


class TappedEngine:
    """An engine of gen_step that reports every forward. Call `restart` before each request."""

    def __init__(self, engine: Engine, report: Callable[[Forward], None]) -> None:
        self.contract, self.dtype = engine.contract, engine.dtype
        self._engine, self._report = engine, report
        self._times: list[float] = []

    def restart(self) -> None:
        """The next forward is the first one of a request."""
        self._times = []

    def context(self, dims: Mapping[str, int]) -> Context:
        """See motedge.runtime.engine.Engine.context."""
        return _TappedContext(self._engine.context(dims), self)

    def close(self) -> None:
        """Closes the engine within."""
        self._engine.close()

    def heard(self, inputs: Mapping[str, Array], context: Context) -> None:
        """Reports one forward. The loop runs the conditional branch first at every step."""
        t = float(inputs["t"][0])
        branch = BRANCHES[int(bool(self._times) and self._times[-1] == t)]
        if branch == BRANCHES[0]:
            self._times.append(t)
        copies = {name: np.array(inputs[name]) for name in ("vision", "action", "t")}
        outputs = {
            name: np.array(context.output(name), dtype=np.float32) for name in ("vision_velocity", "action_velocity")
        }
        self._report(Forward(len(self._times) - 1, branch, {**inputs, **copies}, outputs))


def repeat_forward(engine: Engine, forward: Forward) -> dict[str, FloatArray]:
    """Runs another generator on the inputs of a recorded forward: its velocities, fp32, by output name."""
    u = int(forward.inputs["und_kv"].shape[3])
    frames, rows = forward.inputs["vision"].shape[1], forward.inputs["action"].shape[0]
    context = engine.context({"T": frames, "A": rows, "U": u, "N": forward.inputs["cos"].shape[0]})
    kv_type = np.float32 if engine.dtype == "fp32" else np.float16
    for name, value in forward.inputs.items():
        context.set_input(name, value.astype(kv_type, copy=False) if name == "und_kv" else value)
    context.run()
    return {name: np.array(context.output(name), dtype=np.float32) for name in forward.outputs}


def run_requests(
    loop: DenoiseLoop, requests: Sequence[GenInputs], settings: SamplerSettings, tap: TappedEngine | None = None
) -> list[GenResult]:
    """Runs the loop on every request in turn; `tap` is the generator's, if it has one."""
    results = []
    for request in requests:
        if tap is not None:
            tap.restart()
        results.append(loop.run(request, settings))
    return results


class _Listener:
    """Stands in for the denoising loop: keeps the request, answers with zeros."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self.heard: GenInputs | None = None

    def run(self, inputs: GenInputs, settings: SamplerSettings) -> GenResult:
        # The latent of the VAE's buffer lives on; everything else was made for this request
        self.heard = replace(inputs)
        zeros = np.zeros_like(inputs.vision_clean), np.zeros_like(inputs.action_clean)
        return GenResult(*zeros, LoopTimings(0.0, 0.0, 0.0, (), 0.0), LoopCounters(0, 0, 0, 0, False))

    def prepare(self, token_ids: IntArray) -> None:
        """Nothing to prepare: no tower reads prompts here."""

    def close(self) -> None:
        """Nothing runs in the background."""


class _AbsentTower:
    """In place of the reasoner once its K and V are known and its memory is freed."""

    dtype = "fp32"

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def context(self, dims: Mapping[str, int]) -> Context:
        raise InternalError("a prompt was not encoded before the reasoner was closed")

    def close(self) -> None:
        """Nothing to free."""


class _TappedContext:
    def __init__(self, context: Context, tap: TappedEngine) -> None:
        self._context, self._tap = context, tap
        self._inputs: dict[str, Array] = {}

    def set_input(self, name: str, value: Array) -> None:
        self._context.set_input(name, value)
        self._inputs[name] = value

    def output(self, name: str) -> Array:
        return self._context.output(name)

    def run(self) -> None:
        self._context.run()
        self._tap.heard(self._inputs, self._context)


def _cast(prompts: PromptCache, dtype: np.dtype[np.float16]) -> PromptCache:
    made = PromptCache(max_entries=_MAX_PROMPTS)
    for tokens, und_kv in prompts.items():
        made.put(tokens, und_kv.astype(dtype))
    return made
