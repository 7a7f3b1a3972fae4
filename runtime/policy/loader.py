"""Opening the policy of a bundle: files checked, engines loaded, defaults taken from the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS, open_engine, require_recipe
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Engine, EngineOptions
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.policy.policy import Policy
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.serving_protocol import ServingProtocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.shared_prompts import check_reasoner, prompts_read_by
from motedge.runtime.policy.tick import HostTick, PolicyTick
from motedge.runtime.reasoner.shared_prefill import UndAsPrefill
from motedge.runtime.request import SamplerSettings
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer

if TYPE_CHECKING:
    from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
    from motedge.runtime.reasoner.device_prompts import UndReader

CHECKS = ("full", "size")
GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
# What a policy reads beside its engines' files, by role in the manifest
_ROLES = ("table", "tokenizer")


def load_policy(
    bundle_path: PathLike,
    *,
    engine: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    check: str = "full",
    seed: int = 0,
    deterministic_seed: bool = False,
    embodiment: Optional[str] = None,
    threads: Optional[int] = None,
    gpu: Optional[GpuOptions] = None,
    reasoner: Optional[BundleReasoner] = None,
    **settings: Any,
) -> Policy:
    """Opens a bundle's policy.

    Args:
        bundle_path: Folder of the bundle.
        engine: Backend that runs the graphs.
        variant: Id such as "primitive-fp32", for every graph; None takes the backend's first choice for each.
        recipe: Quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized.
        check: "full" compares every file's sha256 with the manifest, "size" the sizes alone.
        seed: Start of the sequence of request seeds; with `deterministic_seed`, the seed of every request.
        deterministic_seed: The same seed for every request.
        embodiment: None takes the bundle's own.
        threads: CPU threads; None leaves it to the backend.
        gpu: How a GPU is used, where the backend runs on one.
        reasoner: Of the same bundle and device: its tower reads the prompts. It stays the caller's; must outlive this.
        settings: Fields of `SamplerSettings` that differ from the bundle's.

    Raises:
        BundleError: a file is missing, changed or damaged.
        UsageError: an unknown setting, backend, variant or recipe, a value out of range, a reasoner in another variant.
        ObservationError: an embodiment that is unknown or that motedge can't serve.
        HostError: a library is missing or too old.
    """
    seeds = RequestSeeds(seed, fixed=deterministic_seed)
    bundle = _open_bundle(bundle_path, check, recipe)
    defaults = bundle.manifest.policy
    sampler = sampler_settings(defaults, settings)
    robot = find_embodiment(embodiment or str(defaults.get("embodiment", "")))
    protocol = find_protocol(robot)
    shape = PolicyShape.from_manifest(bundle.manifest.shape_set, defaults, protocol.state_rows)
    bundle.check_files(_read_by_policy(bundle), content=check == "full")
    tokenizer = PromptTokenizer.open(bundle)
    options = EngineOptions(threads=threads, check_content=check == "full")
    choice: dict[str, Any] = {"backend": engine, "variant": variant, "recipe": recipe, "options": options}
    tick = _open_tick(bundle, shape, protocol, seeds, choice, gpu or GpuOptions(), reasoner)
    return Policy(
        tick=tick,
        gen_contract=bundle.contract("gen_step"),
        tokenizer=tokenizer,
        shape=shape,
        embodiment=robot,
        settings=sampler,
        prompt_format=str(defaults.get("prompt_format", "json")),
        seeds=seeds,
        notes={} if reasoner is None else {"prompts_read_by": prompts_read_by(bundle, reasoner.und_engine)},
    )


def _open_bundle(bundle_path: PathLike, check: str, recipe: Optional[str]) -> Bundle:
    """The bundle; files are checked later. UsageError for an unknown check or recipe."""
    if check not in CHECKS:
        raise UsageError(f"unknown check {check!r}", fix=closest(check, CHECKS))
    bundle = Bundle.open(bundle_path)
    require_recipe(bundle, recipe)
    return bundle


def _open_tick(
    bundle: Bundle,
    shape: PolicyShape,
    protocol: ServingProtocol,
    seeds: RequestSeeds,
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    reasoner: Optional[BundleReasoner],
) -> PolicyTick:
    """`choice`: backend, variant, recipe, options."""
    tables = Tables.open(bundle)
    if choice["backend"] not in DEVICE_BACKENDS:
        return _host_tick(bundle, tables, shape, protocol, seeds, graph_opener(bundle, choice, reasoner))
    from motedge.runtime.policy.device_loader import open_device_tick

    reader = None if reasoner is None else device_reader(bundle, choice, gpu, reasoner)
    return open_device_tick(bundle, tables, shape, protocol, seeds, _model_config(bundle), choice, gpu, reader)


def device_reader(bundle: Bundle, choice: Mapping[str, Any], gpu: GpuOptions, reasoner: BundleReasoner) -> UndReader:
    """What reads prompts on a GPU in the place of und_prefill: the reasoner's tower.

    Args:
        bundle: the generator's.
        choice: its backend, variant and recipe.
        gpu: how it uses the GPU.
        reasoner: opened on the same GPU; it stays the caller's, and must outlive the reader.

    Raises:
        UsageError: the reasoner is elsewhere, another bundle's, or in another variant or recipe than asked for.
        ContractError: its graph is of another model.
    """
    from motedge.runtime.reasoner.device_prompts import UndReader

    towers = reasoner.device
    if towers is None or towers.ordinal != gpu.ordinal:
        raise UsageError(
            f"a generator on {choice['backend']} can't share this reasoner's weights",
            expected=f"a reasoner on GPU {gpu.ordinal}",
            got="one on the host" if towers is None else f"one on GPU {towers.ordinal}",
            fix=f"load_reasoner(bundle, engine={choice['backend']!r}), with the same GpuOptions.ordinal",
        )
    check_reasoner(bundle, reasoner, choice)
    return UndReader(towers, bundle.contract("und_prefill"))


def graph_opener(
    bundle: Bundle, choice: Mapping[str, Any], reasoner: Optional[BundleReasoner]
) -> Callable[[str], Engine]:
    """Opens graphs by name; und_prefill is the reasoner's tower, if there is one.

    Raises:
        UsageError: the reasoner is another bundle's, or in another variant or recipe than asked for.
    """
    if reasoner is None:
        return lambda graph: open_engine(bundle, graph, **choice)
    check_reasoner(bundle, reasoner, choice)
    shared = UndAsPrefill(reasoner.und_engine, bundle.contract("und_prefill"))
    return lambda graph: shared if graph == "und_prefill" else open_engine(bundle, graph, **choice)


def _host_tick(
    bundle: Bundle,
    tables: Tables,
    shape: PolicyShape,
    protocol: ServingProtocol,
    seeds: RequestSeeds,
    open_graph: Callable[[str], Engine],
) -> HostTick:
    """Opens the engines and puts the tick together; closes what is open already if something fails."""
    with contextlib.ExitStack() as opened:
        und, gen, vae = (opened.enter_context(contextlib.closing(open_graph(graph))) for graph in GRAPHS)
        noise = NoiseAhead(next_seed=lambda _: int(seeds.peek()))
        loop = DenoiseLoop(und, gen, tables, _model_config(bundle), noise=noise)
        tick = HostTick(vae, loop, shape, protocol, (und, gen))
        # From here on the tick closes them
        opened.pop_all()
    return tick


def sampler_settings(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> SamplerSettings:
    """Sampler settings of a manifest's policy block, with some of them replaced.

    Raises:
        UsageError: an unknown setting or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(SamplerSettings)]
    for name in overrides:
        if name not in known:
            raise UsageError(f"unknown policy setting {name!r}", fix=closest(name, known))
    values = {name: defaults[name] for name in known if name in defaults}
    return SamplerSettings(**{**values, **overrides})


def _read_by_policy(bundle: Bundle) -> list[str]:
    return [name for name, file in bundle.manifest.files.items() if file.role in _ROLES]


def _model_config(bundle: Bundle) -> Mapping[str, Any]:
    config = bundle.manifest.model.get("config")
    if not isinstance(config, Mapping):
        raise BundleError("manifest.json lacks the model's configuration", expected="model.config", fix="export again")
    return config
