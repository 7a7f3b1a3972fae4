"""One plan of TensorRT with the weights of another ONNX file: IRefitter, driven by the parser that knows the names.

Works on the GPU that the plan was built for, with the version that built it; the plan must be refittable.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.files import atomic_open, write_chunks
from motedge.runtime.backends.tensorrt.log import process_logger
from motedge.targets.builders.builder import BuildError
from motedge.targets.builders.trt.library import Library

_SHOWN = 3


def refit_plan(library: Library, plan: Path, model: Path, out: Path, *, trust_host_code: bool = False) -> Optional[int]:
    """Writes the plan with new weights; `out` appears whole or not at all.

    Args:
        library: of the version that built the plan.
        plan: the engine.
        model: an ONNX file that differs from the plan's in its weights alone; its external data beside it.
        out: where the new engine goes.
        trust_host_code: let a version-compatible plan run the code that it holds.

    Returns:
        Bytes of activation memory that the engine asks for.

    Raises:
        UsageError: the plan is not refittable.
        BuildError: the library can't load it, or does not take the new weights.
        HostError: the disk is full.
    """
    api, logger = library.api, process_logger(library.api)
    logger.errors.clear()
    runtime = api.Runtime(logger)
    if trust_host_code:
        runtime.engine_host_code_allowed = True
    with open(plan, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise _refused(f"{library.name} {library.version} can't load {plan.name}", logger.errors)
    if not engine.refittable:
        raise UsageError(
            f"{plan.name} is not refittable",
            why="its weights were folded into its kernels when it was built",
            fix="build it with --refittable (or --strip-weights) once; later weights then need no build",
        )
    try:
        refitter = api.Refitter(engine, logger)
        parser = api.OnnxParserRefitter(refitter, logger)
    except TypeError as error:
        # What the bindings make of a null pointer
        raise _refused(f"{plan.name} could not be refitted", logger.errors) from error
    # False, too, where the file lacks a weight that the engine has: an old one would stay, unseen
    if not parser.refit_from_file(str(model)):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _refused(f"{plan.name} does not take the weights of {model.name}", [*errors, *logger.errors])
    missing = list(refitter.get_missing_weights())
    if missing:
        raise BuildError(
            f"{plan.name} needs more weights than {model.name} gives",
            got=f"no {', '.join(missing[:_SHOWN])}"
            + (f" and {len(missing) - _SHOWN} more" if missing[_SHOWN:] else ""),
            why="TensorRT computed them from several weights of the graph when it built the engine",
            fix="build a new engine: motedge build",
        )
    if not refitter.refit_cuda_engine():
        raise _refused(f"{plan.name} could not be refitted", logger.errors)
    _write(library, engine, out)
    return int(getattr(engine, library.row.device_memory))


def _write(library: Library, engine: Any, out: Path) -> None:
    flags = library.api.SerializationFlag
    config = engine.create_serialization_config()
    # A stripped plan would be written without weights again
    config.clear_flag(flags.EXCLUDE_WEIGHTS)
    if library.row.include_refit:
        # From 10.16 on, a plan that is serialised again is not refittable unless told
        config.set_flag(flags.INCLUDE_REFIT)
    data = engine.serialize_with_config(config)
    if data is None:
        raise BuildError(f"{library.name} could not write {out.name}")
    with atomic_open(out) as stream:
        write_chunks(stream, memoryview(data).cast("B"))


def _refused(what: str, errors: list[str]) -> BuildError:
    return BuildError(what, got="; ".join(errors[:_SHOWN]) or None, fix="build a new engine: motedge build")
