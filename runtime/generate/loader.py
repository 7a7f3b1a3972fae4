"""Opening the generator of a bundle: files checked, engines loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError, closest
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS, require_recipe
from motedge.runtime.backends.device_registry import ONNXRUNTIME_CUDA
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import EngineOptions
from motedge.runtime.generate.device_parts import open_device_parts
from motedge.runtime.generate.generator import Generator
from motedge.runtime.generate.parts import Parts
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.generate.turns import DeviceTurns, HostTurns, Turns
from motedge.runtime.one_thread import OneThread
from motedge.runtime.policy.gpu_options import GpuOptions
from motedge.runtime.policy.loader import device_reader, graph_opener
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
    gpu: Optional[GpuOptions] = None,
    reasoner: Optional[BundleReasoner] = None,
) -> Generator:
    """Opens a bundle's generator. The encoder and decoder of videos are opened when first needed.

    Args:
        bundle_path: Folder of the bundle.
        engine: Backend that runs the graphs: onnxruntime on the host, or one of DEVICE_BACKENDS.
        variant: Id such as "primitive-fp32", for every graph; None takes the backend's first choice for each.
        recipe: Quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized.
        check: "full" compares every file's sha256 with the manifest, "size" the sizes alone.
        threads: CPU threads; None leaves it to the backend.
        sound: Open gen_step_sound instead of gen_step: every request then is one with sound.
        gpu: How a GPU is used, where the backend runs on one.
        reasoner: Of the same bundle and device: its tower reads the prompts. It stays the caller's; must outlive this.

    Raises:
        BundleError: a file is missing, changed or damaged.
        UsageError: an unknown backend, variant or recipe; a reasoner that is elsewhere, or in another variant or
            recipe than asked for here.
        HostError: a library or a GPU is missing or too old; too little memory.
    """
    bundle = _open_bundle(bundle_path, recipe, check, sound)
    tokenizer, tables = PromptTokenizer.open(bundle), Tables.open(bundle)
    choice: dict[str, Any] = {
        "backend": engine,
        "variant": variant,
        "recipe": recipe,
        "options": EngineOptions(threads=threads, check_content=check == "full"),
    }

    if engine not in DEVICE_BACKENDS:
        return _generator(bundle, tokenizer, tables, _host_parts(bundle, tables, choice, sound, reasoner), HostTurns())
    options, config = GpuOptions() if gpu is None else gpu, _model_config(bundle)
    reader = None if reasoner is None else device_reader(bundle, choice, options, reasoner)
    thread = OneThread("motedge-generator", "the generator") if engine == ONNXRUNTIME_CUDA else None
    turns = DeviceTurns(thread)

    def make() -> Generator:
        parts = open_device_parts(bundle, tables, config, choice, options, sound=sound, reader=reader)
        return _generator(bundle, tokenizer, tables, parts, turns)

    try:
        return turns.chunk(make)
    except BaseException:
        if thread is not None:
            thread.close()
        raise


def _generator(bundle: Bundle, tokenizer: PromptTokenizer, tables: Tables, parts: Parts, turns: Turns) -> Generator:
    """Takes over the parts, and closes them if something fails."""
    with contextlib.ExitStack() as opened:
        for part in reversed((parts.loop, *parts.engines)):
            opened.callback(part.close)
        generator = Generator(
            loop=parts.loop,
            image_encoder=parts.image_encoder,
            open_encoder=parts.open_encoder,
            open_decoder=parts.open_decoder,
            open_sound=parts.open_sound,
            engines=parts.engines,
            tokenizer=tokenizer,
            tables=tables,
            shape=GenerateShape.of(bundle.manifest.shape_set, parts.gen_contract),
            model=bundle.manifest.model,
            policy=bundle.manifest.policy,
            turns=turns,
            memory_bytes=parts.memory_bytes,
        )
        opened.pop_all()
    return generator


def _host_parts(
    bundle: Bundle, tables: Tables, choice: Mapping[str, Any], sound: bool, reasoner: Optional[BundleReasoner]
) -> Parts:
    open_graph = graph_opener(bundle, choice, reasoner)
    # No recipe has anything to say of the VAE and of sound's decoder
    plain = {name: value for name, value in choice.items() if name != "recipe"}
    with contextlib.ExitStack() as opened:
        und, gen, image = (
            opened.enter_context(contextlib.closing(open_graph(graph)))
            for graph in ("und_prefill", "gen_step_sound" if sound else "gen_step", "vae_encoder")
        )
        parts = Parts(
            loop=DenoiseLoop(und, gen, tables, _model_config(bundle)),
            gen_contract=gen.contract,
            image_encoder=image,
            open_encoder=lambda: open_encoder(bundle, **plain),
            open_decoder=lambda: open_decoder(bundle, **plain),
            open_sound=(lambda: open_sound_decoder(bundle, **plain)) if sound else None,
            engines=(und, gen, image),
        )
        opened.pop_all()
    return parts


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
