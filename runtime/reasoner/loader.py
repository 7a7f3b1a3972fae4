"""Opening the reasoner of a bundle: files checked, engines loaded, settings taken from the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS, open_engine, require_recipe
from motedge.runtime.engine import EngineOptions
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
from motedge.runtime.reasoner.prompt import PromptBuilder
from motedge.runtime.reasoner.reasoner import Reasoner
from motedge.runtime.reasoner.und_engine import GRAPH as UND
from motedge.runtime.reasoner.und_engine import EngineUnd
from motedge.runtime.reasoner.vision_engine import GRAPH as VISION
from motedge.runtime.reasoner.vision_engine import EngineVision
from motedge.runtime.reasoner.vision_settings import settings_from_config
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables
from motedge.runtime.text.codec import TextCodec
from motedge.runtime.text.tokenizer import FOLDER

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
) -> BundleReasoner:
    """Opens a bundle's reasoner.

    Args:
        bundle_path: Folder of the bundle, exported with the group "reasoner".
        engine: Backend that runs the graphs, on the host.
        variant: Id such as "primitive-fp32", for both graphs; None takes the backend's first choice for each.
        recipe: Quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized.
        check: "full" compares every file's sha256 with the manifest, "size" the sizes alone.
        threads: CPU threads; None leaves it to the backend.
        capacity: Tokens of prompt and reply together; None: what the graph was exported for. Memory is taken as the
            text grows.

    Raises:
        BundleError: the bundle was exported without the reasoner; a file is missing, changed or damaged.
        UsageError: an unknown backend, variant or recipe, or one that the reasoner does not run on.
        ContractError: a capacity that the graph was not exported for.
        HostError: a library is missing or too old.
    """
    if check not in CHECKS:
        raise UsageError(f"unknown check {check!r}", fix=closest(check, CHECKS))
    if engine in DEVICE_BACKENDS:
        raise UsageError(
            f"the reasoner does not run on {engine}",
            expected="onnxruntime",
            why="its K and V would be copied to the GPU and back for every token",
        )
    bundle = Bundle.open(bundle_path)
    _require_graphs(bundle)
    require_recipe(bundle, recipe)
    model = bundle.manifest.model
    settings = settings_from_config(_block(model, "vision_config"))
    bundle.check_files(
        [name for name, file in bundle.manifest.files.items() if file.role in _ROLES], content=check == "full"
    )
    codec, tables = TextCodec.read(bundle.path(FOLDER)), Tables.open(bundle)
    options = EngineOptions(threads=threads, check_content=check == "full")
    with contextlib.ExitStack() as opened:
        engines = [
            open_engine(bundle, graph, backend=engine, variant=variant, recipe=recipe, options=options)
            for graph in GRAPHS
        ]
        for one in engines:
            opened.callback(one.close)
        und = EngineUnd(engines[0], capacity=capacity)
        vision = EngineVision(engines[1], tables.vision_positions(), settings)
        rotary = RotaryTable(tables.inv_freq(), _block(model, "config"))
        reasoner = Reasoner(codec, tables.embeddings, rotary, und, vision, stop_tokens=[_eos(model)])
        prompts = PromptBuilder(codec, settings)
        # From here on what is returned closes them
        return BundleReasoner(reasoner, prompts, settings, engines[0], opened.pop_all().close)


def _require_graphs(bundle: Bundle) -> None:
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
