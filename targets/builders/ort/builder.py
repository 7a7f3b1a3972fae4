"""The builder `onnxruntime`: a graph optimised for CPUs once, so that opening it on the device takes less.

Graph optimisations up to "extended" are saved: they hold on any CPU. Those that depend on the CPU's vector width
(layout) are left to the session on the device.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Optional

from motedge.errors import HostError, UsageError
from motedge.files import PARTIAL_SUFFIX
from motedge.runtime.backends.tensorrt.versions import TensorRtVersion
from motedge.targets.builders.builder import BuildError, BuildRequest, BuiltEngine, Progress
from motedge.targets.builders.ort.attention import fuse_attention
from motedge.targets.builders.settings import BuildSettings
from motedge.targets.catalog import Target

ONNXRUNTIME = "onnxruntime"
# Smaller constants stay in the ONNX file
_LEAST_EXTERNAL_BYTES = 1024
_log = logging.getLogger(__name__)


class OnnxRuntimeBuilder:
    """An optimised ONNX file with its weights beside it."""

    name = ONNXRUNTIME
    suffix = ".onnx"

    def version(self) -> str:
        """See `Builder.version`."""
        return str(_library().__version__)

    def dialects(self) -> tuple[str, ...]:
        """See `Builder.dialects`: in fp32 there are primitive graphs alone."""
        return ("primitive", "fused")

    def row(self) -> Optional[TensorRtVersion]:
        """See `Builder.row`."""
        return None

    def check(self, target: Target, settings: BuildSettings) -> tuple[str, ...]:
        """See `Builder.check`."""
        if target.compute_capability is not None:
            raise UsageError(
                f"the builder {self.name} makes engines for CPUs, and {target.name} has a GPU",
                fix=f"leave --builder out ({target.engine} builds for it), or --target cpu",
            )
        if settings != BuildSettings():
            given = [name for name, value in settings.to_dict().items() if value != getattr(BuildSettings(), name)]
            raise UsageError(
                f"the builder {self.name} has no such settings",
                got=", ".join(f"--{name.replace('_', '-')}" for name in given),
                fix="leave them out",
            )
        return ()

    def build(self, request: BuildRequest, progress: Progress) -> BuiltEngine:
        """See `Builder.build`."""
        library = _library()
        progress("reading the graph", 0.0)
        model, fused, notes = _rewrite(request)
        progress("optimising", 0.3)
        # In a folder of its own, under its final name: the file refers to its weights by theirs
        work = request.out.with_name(request.out.name + PARTIAL_SUFFIX)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            data = _optimise(library, request, model, work)
            for name in (*data, request.out.name):
                (work / name).replace(request.out.with_name(name))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        layers = {"source": "the rewritten graph", "fused_attention": fused}
        return BuiltEngine(None, layers, data_files=data, notes=tuple(notes))


def _rewrite(request: BuildRequest) -> tuple[bytes, int, list[str]]:
    """The graph with fused attention where it pays: how many, and what is to be noted."""
    try:
        import onnx
    except ImportError:
        note = "attention was not fused: the onnx package is not installed (pip install motedge[export])"
        _log.warning("%s: %s", request.graph, note)
        return request.model.read_bytes(), 0, [note]
    if request.dtype != "fp32":
        # onnxruntime's operator has fp32 kernels alone on CPUs
        return request.model.read_bytes(), 0, []
    model = onnx.load(str(request.model), load_external_data=False)
    model = onnx.shape_inference.infer_shapes(model)
    fused = fuse_attention(model)
    return model.SerializeToString(), fused, []


def _optimise(library: Any, request: BuildRequest, model: bytes, work: Path) -> tuple[str, ...]:
    """Saves what a session makes of the graph; returns the names of its data files."""
    data = f"{request.out.stem}.data"
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(work / request.out.name)
    options.log_severity_level = 4
    entries = {
        "session.model_external_initializers_file_folder_path": str(request.model.parent),
        "session.optimized_model_external_initializers_file_name": data,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_LEAST_EXTERNAL_BYTES),
        "session.qdq_matmulnbits_accuracy_level": "1",
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        raise BuildError(
            f"onnxruntime {library.__version__} can't optimise graph {request.graph!r} ({request.variant})",
            got=str(error),
            fix="take another variant; motedge doctor says which packages are too old",
        ) from error
    return (data,) if (work / data).is_file() else ()


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise HostError("onnxruntime does not load", got=str(error), fix="pip install motedge brings it") from error
    return onnxruntime
