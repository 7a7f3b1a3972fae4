"""Opening the generator of a bundle: files checked, engines loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS, require_recipe
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import EngineOptions
from motedge.runtime.generate.generator import Generator
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.policy.loader import graph_opener
from motedge.runtime.sound import open_sound_decoder, require_sound
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer
from motedge.runtime.vae import open_decoder, open_encoder

if TYPE_CHECKING:
    from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner

CHECKS = ("full", "size")
# What the generator reads beside its engines' files, by role in the manifest
_ROLES = ("table", "tokenizer")


def load_generator(
    bundle_path: PathLike,
    *,
    engine: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    check: str = "full",
    threads: Optional[int] = None,
    sound: bool = False,
    reasoner: Optional[BundleReasoner] = None,
) -> Generator:
    """Opens a bundle's generator. The encoder and decoder of videos are opened when first needed.

    Args:
        bundle_path: Folder of the bundle.
        engine: Backend that runs the graphs, on the host.
        variant: Id such as "primitive-fp32", for every graph; None takes the backend's first choice for each.
        recipe: Quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized.
        check: "full" compares every file's sha256 with the manifest, "size" the sizes alone.
        threads: CPU threads; None leaves it to the backend.
        sound: Open gen_step_sound instead of gen_step: every request then is one with sound.
        reasoner: Of the same bundle: its weights read the prompts too. It stays the caller's, and must outlive this.

    Raises:
        BundleError: a file is missing, changed or damaged.
        UsageError: an unknown backend, variant or recipe, or a backend that keeps its tensors on a GPU; a reasoner in
            another variant or recipe than asked for here.
        HostError: a library is missing or too old.
    """
    _require_host(engine)
    bundle = _open_bundle(bundle_path, recipe, check, sound)
    tokenizer, tables = PromptTokenizer.open(bundle), Tables.open(bundle)
    options = EngineOptions(threads=threads, check_content=check == "full")
    choice: dict[str, Any] = {"backend": engine, "variant": variant, "options": options}
    open_graph = graph_opener(bundle, {**choice, "recipe": recipe}, reasoner)
    with contextlib.ExitStack() as opened:
        und, gen, image = (
            opened.enter_context(contextlib.closing(open_graph(graph)))
            for graph in ("und_prefill", "gen_step_sound" if sound else "gen_step", "vae_encoder")
        )
        generator = Generator(
            loop=DenoiseLoop(und, gen, tables, _model_config(bundle)),
            image_encoder=image,
            open_encoder=lambda: open_encoder(bundle, **choice),
            open_decoder=lambda: open_decoder(bundle, **choice),
            open_sound=(lambda: open_sound_decoder(bundle, **choice)) if sound else None,
            engines=(und, gen, image),
            tokenizer=tokenizer,
            tables=tables,
            shape=GenerateShape.of(bundle.manifest.shape_set, gen.contract),
            model=bundle.manifest.model,
            policy=bundle.manifest.policy,
        )
        # From here on the generator closes them
        opened.pop_all()
    return generator


def _require_host(engine: str) -> None:
    if engine in DEVICE_BACKENDS:
        raise UsageError(
            f"the generator does not run on backend {engine!r} yet",
            expected="onnxruntime",
            why="its loop there serves policies alone",
            fix="leave --engine out; motedge run serves policies on a GPU",
        )


def _open_bundle(path: PathLike, recipe: Optional[str], check: str, sound: bool) -> Bundle:
    if check not in CHECKS:
        raise UsageError(f"unknown check {check!r}", fix=closest(check, CHECKS))
    bundle = Bundle.open(path)
    require_recipe(bundle, recipe)
    if sound:
        require_sound(bundle)
    read = [name for name, file in bundle.manifest.files.items() if file.role in _ROLES]
    bundle.check_files(read, content=check == "full")
    return bundle


def _model_config(bundle: Bundle) -> Mapping[str, Any]:
    config = bundle.manifest.model.get("config")
    if not isinstance(config, Mapping):
        raise BundleError("manifest.json lacks the model's configuration", expected="model.config", fix="export again")
    return config
