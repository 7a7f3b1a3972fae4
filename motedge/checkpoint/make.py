"""Makes a checkpoint of random weights in the published layout, for tests, demonstrations and planning."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from motedge.checkpoint.configs import VARIANTS
from motedge.checkpoint.fp8_layout import dtype_of, is_scale, random_fp8_chunks, with_scales, write_quant_config
from motedge.checkpoint.keys import Shape, parameter_count, transformer_shapes
from motedge.checkpoint.presets import Preset, preset
from motedge.checkpoint.provenance import SYNTHETIC, Provenance, write_provenance
from motedge.checkpoint.random_weights import DTYPE, random_chunks
from motedge.checkpoint.repository_files import write_repository_files, write_root_index
from motedge.checkpoint.safetensors_stream import SHARD_BYTES, Dtype, data_bytes, write_component
from motedge.checkpoint.sound_keys import sound_shapes
from motedge.checkpoint.staging import staged_folder
from motedge.checkpoint.synthetic_tokenizer import write_tokenizer
from motedge.checkpoint.tokenizer_files import FOLDER as TOKENIZER_FOLDER
from motedge.checkpoint.vae_keys import vae_shapes
from motedge.checkpoint.vision_keys import vision_shapes
from motedge.errors import UsageError, closest
from motedge.files import PathLike, require_free

# Configs, tokenizer, headers and indexes: a few MB at most
_SMALL_FILES_BYTES = 16_000_000
PRECISIONS = ("bf16", "fp8")
_STEMS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "vision_encoder": "model",
    "sound_tokenizer": "diffusion_pytorch_model",
}


@dataclass(frozen=True)
class MakePlan:
    """What `make_checkpoint` would write."""

    family: str
    variant: str
    size: str
    preset: Preset
    # Component folder -> key -> shape
    components: dict[str, dict[str, Shape]]
    # "bf16", or "fp8": the projections of the transformer in NVIDIA's FP8 layout
    precision: str = PRECISIONS[0]

    @property
    def weight_bytes(self) -> int:
        """Data of all weights."""
        return sum(data_bytes(shapes, self.dtype(name)) for name, shapes in self.components.items())

    @property
    def parameters(self) -> dict[str, int]:
        """Component folder -> parameters."""
        return {
            name: parameter_count(shape for key, shape in shapes.items() if not is_scale(key))
            for name, shapes in self.components.items()
        }

    def dtype(self, component: str) -> Dtype:
        """Of a component's tensors."""
        return dtype_of if self.precision == "fp8" and component == "transformer" else DTYPE


def plan_checkpoint(family: str, variant: str, size: str, precision: str = PRECISIONS[0]) -> MakePlan:
    """Works out names, shapes and sizes without writing.

    Raises:
        UsageError: an unknown family, variant, size or precision; the message offers the closest.
    """
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", expected=" or ".join(PRECISIONS), got=precision)
    configs = preset(family, size)
    if variant not in VARIANTS:
        raise UsageError("unknown variant", expected=" or ".join(VARIANTS), got=variant, fix=closest(variant, VARIANTS))
    transformer = transformer_shapes(configs.transformer)
    components = {
        "transformer": with_scales(transformer) if precision == "fp8" else transformer,
        "vae": vae_shapes(configs.vae),
        "vision_encoder": vision_shapes(configs.vision),
    }
    if configs.sound is not None:
        components["sound_tokenizer"] = sound_shapes(configs.sound)
    return MakePlan(family, variant, size, configs, components, precision)


def make_checkpoint(
    out: PathLike,
    family: str,
    variant: str = "base",
    size: str = "tiny",
    seed: int = 0,
    *,
    sparse: bool = False,
    precision: str = PRECISIONS[0],
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes a checkpoint of random weights; the folder appears whole or not at all.

    Args:
        out: the folder to make; it must not exist, or be empty.
        family: "edge", "nano" or "super".
        variant: "base", "policy-droid" with the policy's metadata, or "4step" with a distilled model's levels.
        size: "tiny" (tests), "small" (demonstrations) or "full" (the published shapes).
        seed: decides every value, together with the tensor's name.
        sparse: right headers, zero-filled holes for data: for planning sizes that do not fit the disk.
        precision: "bf16", or "fp8" for the layout of NVIDIA's FP8 revisions.
        shard_bytes: the limit of one weight file's data.

    Returns:
        The folder.

    Raises:
        UsageError: an unknown family, variant or size, a negative seed, or a folder that exists.
        HostError: too little disk space, or not writable; nothing is left behind.
    """
    plan = plan_checkpoint(family, variant, size, precision)
    if seed < 0:
        raise UsageError("the seed is negative", expected="0 or more", got=seed)
    target = Path(out)
    require_free(target, _SMALL_FILES_BYTES + (0 if sparse else plan.weight_bytes), "the checkpoint")
    with staged_folder(target) as root:
        # First, so that what a killed run leaves can be recognised
        write_provenance(
            root,
            Provenance(source=SYNTHETIC, family=family, variant=variant, size=size, seed=seed, sparse=sparse or None),
        )
        write_repository_files(root, family, variant, plan.preset)
        if precision == "fp8":
            write_quant_config(root)
        write_tokenizer(root / TOKENIZER_FOLDER, family, plan.preset.transformer.vocab_size)
        _write_weights(root, plan, seed, sparse, shard_bytes)
    return target


def _write_weights(root: Path, plan: MakePlan, seed: int, sparse: bool, shard_bytes: int) -> None:
    maps: dict[str, dict[str, str]] = {}
    plain = functools.partial(random_chunks, seed=seed)
    with _progress(0 if sparse else plan.weight_bytes) as wrote:
        for name, shapes in plan.components.items():
            quantized = plan.precision == "fp8" and name == "transformer"
            maps[name] = write_component(
                root / name,
                _STEMS[name],
                shapes,
                plan.dtype(name),
                None if sparse else random_fp8_chunks(seed) if quantized else plain,
                shard_bytes=shard_bytes,
                wrote=wrote,
            )
    write_root_index(root, maps["transformer"], maps["vision_encoder"], plan.weight_bytes)


@contextlib.contextmanager
def _progress(total_bytes: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal, for what takes long enough to need one."""
    if total_bytes < 100_000_000 or not sys.stderr.isatty():
        yield lambda size: None
        return
    from tqdm import tqdm

    with tqdm(total=total_bytes, unit="B", unit_scale=True, desc="weights", file=sys.stderr) as bar:
        yield bar.update
