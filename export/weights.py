"""From checkpoint tensors to the weights of a graph: which, in which layout and type, in which file.

Weights are read one at a time from the memory map, checked for NaN and infinity, cast, laid out and written, large ones
in blocks of rows: no more than one block is held. All variants of a graph share a file wherever type and layout agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from motedge.checkpoint.reader import TensorStore
from motedge.errors import ExportError
from motedge.files import atomic_open, write_chunks

PAGE = 4096  # large tensors start on a page, so that loaders can map them
LINE = 64
# Bytes of a large weight that are cast and laid out at once
BLOCK = 2**26
DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class WeightSpec:
    """One weight of a graph."""

    # Initializer name: the checkpoint's key
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    # Key of LAYOUTS
    layout: str
    # Whether it is fp32 in every variant
    kept: bool

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class WeightSlot:
    """Where a weight lies."""

    spec: WeightSpec
    # File name below graphs/weights/
    file: str
    offset: int


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as_is": lambda value: value,
    # Linear [out, in] -> MatMul's [in, out]
    "transposed": lambda value: value.t(),
    # Convolution whose kernel is its stride [out, in, ...] -> MatMul's [in * ..., out]
    "patch_matrix": lambda value: value.flatten(1).t(),
    # Causal convolution [out, in, 3, y, x] -> its tap on the present frame
    "last_tap": lambda value: value[:, :, -1],
    # quant_conv [2 C, 2 C, 1, 1, 1] -> the rows that make the mean
    "mean_half": lambda value: value[: value.shape[0] // 2, :, -1] if value.ndim > 1 else value[: value.shape[0] // 2],
}


def checkpoint_key(path: str) -> str:
    """The checkpoint's key of a parameter: its path in our module, where the first and last part have names of ours."""
    return path.removeprefix("front.").removeprefix("back.")


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters whose values do not lie in the weight files: small, kept inside the ONNX file. Name -> value."""
    found = {}
    for path, owner in module.named_modules():
        values: dict[str, tuple[float, ...]] = getattr(owner, "constants", {})
        for name, value in values.items():
            like = getattr(owner, name)
            full = checkpoint_key(f"{path}.{name}" if path else name)
            found[full] = torch.tensor(value, dtype=like.dtype).reshape(like.shape)
    return found


def plan_weights(module: nn.Module) -> list[WeightSpec]:
    """The weights of a module (which may be on the meta device) that come from the checkpoint, in its order."""
    specs = []
    constants = constants_of(module)
    for path, owner in module.named_modules():
        layout, kept = getattr(owner, "layout", "as_is"), getattr(owner, "keep_fp32", False)
        for name, value in owner.named_parameters(recurse=False):
            is_bias = name == "bias" and layout != "mean_half"
            full = checkpoint_key(f"{path}.{name}" if path else name)
            if full in constants:
                continue
            specs.append(WeightSpec(full, tuple(value.shape), value.dtype, "as_is" if is_bias else layout, kept))
    return specs


def place_weights(graph: str, dtype: torch.dtype, specs: Iterable[WeightSpec]) -> list[WeightSlot]:
    """Gives every weight a file and an offset.

    Weights of the variant's own type go to `<graph>.<dtype>.data`; those that every variant keeps in fp32 (time
    embedding, Nemotron norms) to `<graph>.kept-fp32.data`, which all variants share.
    """
    ends: dict[str, int] = {}
    slots = []
    for spec in specs:
        part = "kept-fp32" if spec.kept else DTYPE_NAMES[dtype]
        file = f"{graph}.{part}.data"
        align = PAGE if spec.bytes >= PAGE else LINE
        offset = -(-ends.get(file, 0) // align) * align
        ends[file] = offset + spec.bytes
        slots.append(WeightSlot(spec, file, offset))
    return slots


def load_weight(store: TensorStore, spec: WeightSpec, scratch: Tensor | None = None) -> Tensor:
    """One weight, cast and laid out, contiguous.

    Args:
        store: the component's tensors.
        spec: which weight.
        scratch: uint8 memory of at least `spec.bytes` to put it into; a new allocation a weight costs page faults.

    Raises:
        CheckpointError: the tensor is missing or holds NaN or infinity.
        ExportError: its layout does not give the graph's shape, or a value does not fit the type.
    """
    laid = _lay_out(store, spec)
    return _cast(laid, spec, laid.shape, scratch).reshape(spec.shape)


def _lay_out(store: TensorStore, spec: WeightSpec) -> Tensor:
    """The checkpoint's finite values in the graph's layout, not cast: a view of the memory map."""
    source = store.finite_tensor(spec.name)
    laid = LAYOUTS[spec.layout](source)
    if laid.numel() != torch.Size(spec.shape).numel():
        raise ExportError(
            f"{spec.name} does not fit the graph", expected=spec.shape, got=f"{tuple(source.shape)} as {spec.layout}"
        )
    return laid


def _cast(laid: Tensor, spec: WeightSpec, shape: torch.Size, scratch: Tensor | None) -> Tensor:
    """Values of a weight, or of some of its rows, in the graph's type, contiguous, in `scratch` where it is given."""
    if scratch is None:
        value = torch.empty(shape, dtype=spec.dtype)
    else:
        value = scratch[: shape.numel() * spec.dtype.itemsize].view(spec.dtype).reshape(shape)
    value.copy_(laid)
    if spec.dtype is torch.float16 and laid.dtype is not torch.float16 and not torch.isfinite(value).all():
        raise ExportError(
            f"{spec.name} does not fit fp16",
            expected="values within 65504",
            got=f"largest magnitude {laid.float().abs().max().item():.4g}",
            fix="export a bf16 or fp32 variant instead: --variants fused-bf16",
        )
    return value


def as_bytes(value: Tensor) -> memoryview:
    """A contiguous tensor's memory, little-endian, without a copy."""
    return value.view(torch.uint8).flatten().numpy().data


def load_module(module: nn.Module, store: TensorStore) -> nn.Module:
    """Fills a module that was made on the meta device with the checkpoint's weights; returns it in eval mode."""
    specs, constants = {spec.name: spec for spec in plan_weights(module)}, constants_of(module)
    for path, owner in list(module.named_modules()):
        for name, _ in list(owner.named_parameters(recurse=False)):
            key = checkpoint_key(f"{path}.{name}" if path else name)
            value = constants[key] if key in constants else load_weight(store, specs[key])
            setattr(owner, name, nn.Parameter(value, requires_grad=False))
    return module.eval()


def write_weights(
    target: Path, slots: Iterable[WeightSlot], store: TensorStore, progress: Callable[[int], None] | None = None
) -> tuple[str, int]:
    """Writes the weights of one file in order of offset; returns its sha256 and size.

    Args:
        target: the file; written beside and renamed.
        slots: all slots of that file.
        store: the component's tensors.
        progress: called with the bytes written by each step.
    """
    digest, position = hashlib.sha256(), 0
    ordered = sorted(slots, key=lambda s: s.offset)
    scratch = torch.empty(max(_block_bytes(slot.spec) for slot in ordered), dtype=torch.uint8)
    with atomic_open(target) as stream:
        for slot in ordered:
            padding = memoryview(bytes(slot.offset - position))
            position = slot.offset + slot.spec.bytes
            for block in _blocks(store, slot.spec, scratch):
                data = as_bytes(block)
                for part in (padding, data):
                    write_chunks(stream, part)
                    digest.update(part)
                if progress is not None:
                    progress(len(padding) + len(data))
                padding = memoryview(b"")
    return digest.hexdigest(), position


def _blocks(store: TensorStore, spec: WeightSpec, scratch: Tensor) -> Iterator[Tensor]:
    """A weight as it is written: whole, or rows of it by turns in the same memory."""
    if _block_bytes(spec) == spec.bytes:
        yield load_weight(store, spec, scratch)
        return
    rows = _block_bytes(spec) * spec.shape[0] // spec.bytes
    laid = _lay_out(store, spec).reshape(spec.shape)
    for start in range(0, spec.shape[0], rows):
        part = laid[start : start + rows]
        yield _cast(part, spec, part.shape, scratch)


def _block_bytes(spec: WeightSpec) -> int:
    """Bytes of the largest block of a weight: all of it, or whole rows."""
    if spec.bytes <= BLOCK:
        return spec.bytes
    row = spec.bytes // spec.shape[0]
    return row * max(1, BLOCK // row)
