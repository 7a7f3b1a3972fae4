"""Which engine of a bundle this machine can take: those of all targets are held against the gate, and one is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.errors import BundleError, HostError, MotedgeError, UsageError, closest
from motedge.runtime.backends.tensorrt.engine import TensorRtEngine
from motedge.runtime.backends.tensorrt.library import TENSORRT, Library, find_library
from motedge.runtime.cuda.interface import Cuda
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles, LoadHost, check_engine
from motedge.runtime.engine_files.record import ENGINES_FOLDER

# Of several variants that fit and were built, the first of these
_DIALECTS, _DTYPES = ("fused", "primitive"), ("bf16", "fp16", "fp32")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VariantName:
    """A variant's id taken apart: packed bundles name engines of variants that they do not hold."""

    dialect: str
    dtype: str
    # None: unquantized
    recipe: Optional[str]

    @classmethod
    def parse(cls, name: str) -> VariantName:
        """ "fused-bf16", "fused-bf16-int8-sq" or, of an older opset, "primitive17-fp16"; BundleError for others."""
        written, _, rest = name.partition("-")
        dialect = written.rstrip("0123456789")
        dtype, _, recipe = rest.partition("-")
        if dialect not in _DIALECTS or dtype not in _DTYPES:
            raise BundleError(
                f"{name!r} is not the name of a variant",
                expected=f"{' or '.join(_DIALECTS)}, then {' or '.join(_DTYPES)}, then a recipe if it has one",
                got=name,
                fix="build again: motedge build BUNDLE --target TARGET",
            )
        return cls(dialect, dtype, recipe or None)

    @property
    def base(self) -> str:
        """Without opset and recipe."""
        return f"{self.dialect}-{self.dtype}"

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is taken first."""
        return _DIALECTS.index(self.dialect), _DTYPES.index(self.dtype)


def open_tensorrt_engine(
    bundle: Bundle,
    graph: str,
    cuda: Cuda,
    *,
    backend: str = TENSORRT,
    target: Optional[str] = None,
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    check_content: bool = True,
    trust_host_code: bool = False,
    weight_streaming_budget: Optional[int] = None,
    cache_folder: Optional[Path] = None,
    library: Optional[Library] = None,
) -> TensorRtEngine:
    """Loads the engine of a graph that was built for this GPU and this version of the library.

    Args:
        bundle: the bundle.
        graph: "gen_step" and so on.
        cuda: the GPU.
        backend: "tensorrt" or "tensorrt-rtx".
        target: folder of `engines/` to take; None: the one whose engine passes the gate, of several the newest.
        variant: an id such as "fused-bf16", with or without its recipe; None: the best that was built.
        recipe: such as "fp8"; graphs that it leaves alone run unquantized. None: unquantized, or a graph's only recipe.
        check_content: compare the engine's sha256 with build.json.
        trust_host_code: see `check_engine`.
        weight_streaming_budget: see `TensorRtEngine.load`.
        cache_folder: see `TensorRtEngine.load`.
        library: None: imported.

    Raises:
        BundleError: nothing was built for this graph, variant or target, or a file is missing or changed.
        UsageError: several recipes to choose from, or a budget that the engine does not have.
        HostError: the library is missing; no engine fits this GPU, version or memory. See `TensorRtEngine.load` too.
    """
    library = library or find_library(backend)
    if graph in WEIGHTLESS_GRAPHS:
        # They have one variant for all: what is asked for is meant for the others
        variant = recipe = None
    contract = bundle.contract(graph)
    with cuda.current():
        free = cuda.memory_info()[0]
    # What is streamed lies in the host's memory, which an integrated GPU shares
    kept = None if cuda.facts.integrated else weight_streaming_budget
    host = LoadHost(library.name, library.version, cuda.facts.compute_capability, free, weight_budget_bytes=kept)
    files, engine = _choose(bundle, graph, host, target, variant, recipe, trust_host_code)
    path = check_engine(files, engine, host, trust_host_code=trust_host_code, check_content=check_content)
    return TensorRtEngine.load(
        path,
        contract,
        VariantName.parse(engine.variant).dtype,
        cuda,
        library=library,
        weight_streaming_budget=weight_streaming_budget,
        trust_host_code=trust_host_code,
        sha256=engine.sha256,
        cache_folder=cache_folder,
    )


def _choose(
    bundle: Bundle,
    graph: str,
    host: LoadHost,
    target: Optional[str],
    variant: Optional[str],
    recipe: Optional[str],
    trusted: bool,
) -> tuple[EngineFiles, EngineFile]:
    """The engine to load, and the folder it is in. Contents are not read yet: that is for the chosen one alone."""
    fitting: list[tuple[EngineFiles, EngineFile]] = []
    reasons: dict[str, MotedgeError] = {}
    for name in [target] if target is not None else _targets(bundle):
        try:
            files = EngineFiles.open(bundle, name)
            engine = _of_variant(files, graph, variant, recipe, host)
            _require_whole(engine)
            check_engine(files, engine, host, trust_host_code=trusted, check_content=False)
        except (BundleError, HostError) as error:
            reasons[name] = error
        else:
            fitting.append((files, engine))
    if not fitting:
        raise _none_fits(bundle, graph, host, reasons)
    files, engine = max(fitting, key=lambda found: found[1].created)
    if len(fitting) > 1:
        names = ", ".join(files.target for files, _ in fitting)
        _log.info("engines of %s for %s fit this GPU; the newest is taken, for %s", graph, names, files.target)
    return files, engine


def _targets(bundle: Bundle) -> list[str]:
    return sorted(path.parent.name for path in bundle.root.glob(f"{ENGINES_FOLDER}/*/{BUILD_FILE}"))


def _of_variant(
    files: EngineFiles, graph: str, variant: Optional[str], recipe: Optional[str], host: LoadHost
) -> EngineFile:
    """The engine of a graph in the variant that is wanted; where there is none for this GPU, any, for the gate to say
    why it does not fit."""
    engines = [engine for engine in files.engines if engine.graph == graph]
    if not engines:
        built = sorted({engine.graph for engine in files.engines})
        raise BundleError(
            f"{files.target} has no engine of graph {graph!r}", got=", ".join(built) or "none", fix="motedge build"
        )
    names = {engine.variant: VariantName.parse(engine.variant) for engine in engines}
    recipes = {name.recipe for name in names.values()}
    wanted = recipe
    if recipe is None and variant in names:
        wanted = names[variant].recipe
    elif recipe is None and None not in recipes:
        if len(recipes) > 1:
            known = ", ".join(sorted(str(name) for name in recipes))
            raise UsageError(
                f"graph {graph!r} was built in several recipes", expected="a recipe", got=known, fix="--recipe"
            )
        wanted = next(iter(recipes))
    # A recipe may leave a graph alone
    wanted = wanted if wanted in recipes else None
    found = [
        e for e in engines if names[e.variant].recipe == wanted and variant in (None, e.variant, names[e.variant].base)
    ]
    if not found:
        fix = closest(variant, names) if variant else "motedge build BUNDLE --target TARGET --recipe RECIPE"
        what = " ".join(filter(None, (variant, recipe)))
        raise BundleError(f"{files.target} has no engine of graph {graph!r} in {what}", got=", ".join(names), fix=fix)

    def order(engine: EngineFile) -> tuple[bool, bool, tuple[int, int]]:
        capabilities = engine.compute_capabilities
        elsewhere = bool(capabilities) and host.compute_capability not in capabilities
        return engine.builder != host.library, elsewhere, names[engine.variant].rank

    return min(found, key=order)


def _require_whole(engine: EngineFile) -> None:
    if engine.weights_stripped:
        raise HostError(
            f"{engine.file} was built without its weights",
            why="it is to be given them on the device, once",
            fix="motedge refit",
        )


def _none_fits(bundle: Bundle, graph: str, host: LoadHost, reasons: dict[str, MotedgeError]) -> MotedgeError:
    build = f"motedge build {bundle.root} --target TARGET, on this machine"
    if not reasons:
        return BundleError(f"the bundle has no engines, {graph!r} among them", got="no engines at all", fix=build)
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    kind = HostError if any(isinstance(error, HostError) for error in reasons.values()) else BundleError
    return kind(
        f"no engine of graph {graph!r} in this bundle fits this machine",
        expected=f"{host.library} {host.version}, compute capability {host.compute_capability}, {host.platform}",
        got="; ".join(f"{target}: {_in_short(error)}" for target, error in reasons.items()),
        fix=build,
    )


def _in_short(error: MotedgeError) -> str:
    return error.what + (f" ({error.expected}, not {error.got})" if error.expected and error.got else "")
