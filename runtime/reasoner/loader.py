"""Opening the reasoner of a bundle: files checked, engines loaded, settings taken from the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS, open_engine, require_recipe
from motedge.runtime.engine import Engine, EngineOptions, FloatArray
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
from motedge.runtime.reasoner.ports import UndStep, VisionTower
from motedge.runtime.reasoner.prompt import PromptBuilder
from motedge.runtime.reasoner.reasoner import Reasoner
from motedge.runtime.reasoner.und_engine import GRAPH as UND
from motedge.runtime.reasoner.und_engine import EngineUnd
from motedge.runtime.reasoner.vision_engine import GRAPH as VISION
from motedge.runtime.reasoner.vision_engine import EngineVision
from motedge.runtime.reasoner.vision_settings import VisionSettings, settings_from_config
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables
from motedge.runtime.text.codec import TextCodec
from motedge.runtime.text.tokenizer import FOLDER

if TYPE_CHECKING:
    from motedge.runtime.reasoner.device_loader import Towers

CHECKS = ("full", "size")
GRAPHS = (UND, VISION)
_ROLES = ("table", "tokenizer")


def load_reasoner(
    bundle_path: PathLike,
    *,
    engine: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    check: str = "full",
    threads: Optional[int] = None,
    capacity: Optional[int] = None,
    gpu: Optional[GpuOptions] = None,
) -> BundleReasoner:
    """Opens a bundle's reasoner.

    Args:
        bundle_path: Folder of the bundle, exported with the group "reasoner".
        engine: Backend that runs the graphs.
        variant: Id such as "primitive-fp32", for both graphs; None takes the backend's first choice for each.
        recipe: Quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized.
        check: "full" compares every file's sha256 with the manifest, "size" the sizes alone.
        threads: CPU threads; None leaves it to the backend.
        capacity: Tokens of prompt and reply together. On the host None takes what the graph was exported for, and
            memory as the text grows; on a GPU None takes the optimum of the graph's profile, and memory is taken now.
        gpu: How a GPU is used, where the backend runs on one.

    Raises:
        BundleError: the bundle was exported without the reasoner; a file is missing, changed or damaged.
        UsageError: an unknown backend, variant or recipe.
        ContractError: a capacity that the graph was not exported for.
        HostError: a library is missing or too old, or there is no GPU, or no room on it.
    """
    if check not in CHECKS:
        raise UsageError(f"unknown check {check!r}", fix=closest(check, CHECKS))
    bundle = Bundle.open(bundle_path)
    require_graphs(bundle)
    require_recipe(bundle, recipe)
    model = bundle.manifest.model
    settings = settings_from_config(_block(model, "vision_config"))
    bundle.check_files(
        [name for name, file in bundle.manifest.files.items() if file.role in _ROLES], content=check == "full"
    )
    codec, tables = TextCodec.read(bundle.path(FOLDER)), Tables.open(bundle)
    choice: dict[str, Any] = {"backend": engine, "variant": variant, "recipe": recipe}
    choice["options"] = EngineOptions(threads=threads, check_content=check == "full")
    with contextlib.ExitStack() as opened:
        towers = _open_towers(
            opened, bundle, tables.vision_positions(), settings, choice, gpu or GpuOptions(), capacity
        )
        rotary = RotaryTable(tables.inv_freq(), _block(model, "config"))
        reasoner = Reasoner(codec, tables.embeddings, rotary, towers.und, towers.vision, stop_tokens=[_eos(model)])
        prompts = PromptBuilder(codec, settings)
        # From here on what is returned closes them
        close = opened.pop_all().close
        return BundleReasoner(reasoner, prompts, settings, towers.engine, bundle.root, close, device=towers.device)


@dataclass(frozen=True)
class _Towers:
    """What runs the model, on the host or on a GPU."""

    und: UndStep
    vision: VisionTower
    # Of graph und, with arrays of the host
    engine: Engine
    device: Optional[Towers] = None


def _open_towers(
    opened: contextlib.ExitStack,
    bundle: Bundle,
    positions: FloatArray,
    settings: VisionSettings,
    choice: Mapping[str, Any],
    gpu: GpuOptions,
    capacity: Optional[int],
) -> _Towers:
    """`choice`: backend, variant, recipe, options. `opened` closes what was opened."""
    if choice["backend"] in DEVICE_BACKENDS:
        from motedge.runtime.reasoner.device_loader import open_device_towers

        towers = open_device_towers(bundle, positions, settings, choice, gpu, capacity)
        opened.callback(towers.close)
        return _Towers(towers, towers, towers.host_und, towers)
    engines = []
    for graph in GRAPHS:
        engines.append(open_engine(bundle, graph, **choice))
        opened.callback(engines[-1].close)
    und = EngineUnd(engines[0], capacity=capacity)
    return _Towers(und, EngineVision(engines[1], positions, settings), engines[0])


def require_graphs(bundle: Bundle) -> None:
    """BundleError if the bundle was exported without the reasoner."""
    missing = [graph for graph in GRAPHS if graph not in bundle.manifest.graphs]
    if missing:
        raise BundleError(
            f"the bundle has no reasoner: {bundle.root}",
            expected=", ".join(GRAPHS),
            got=f"no {', '.join(missing)}",
            why="it was exported without",
            fix="motedge export CHECKPOINT --out BUNDLE --extras reasoner, which adds what is missing",
        )


def _block(model: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block = model.get(name)
    if not isinstance(block, Mapping):
        raise BundleError(f"manifest.json lacks model.{name}", fix="export again")
    return block


def _eos(model: Mapping[str, Any]) -> int:
    """The token that ends a reply."""
    eos = (model.get("special_tokens") or {}).get("eos")
    if not isinstance(eos, int):
        raise BundleError(
            "manifest.json lacks the token that ends a reply", expected="model.special_tokens.eos", got=eos
        )
    return eos
