"""What a look at a bundle's manifest shows to be wrong, before a port is taken and anything large is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.backends import BACKENDS, choose_variant, require_recipe
from motedge.runtime.deadline import Ladder
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.loader import GRAPHS as POLICY_GRAPHS
from motedge.runtime.policy.loader import sampler_settings
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.reasoner.loader import GRAPHS as REASONER_GRAPHS
from motedge.runtime.reasoner.loader import require_graphs
from motedge.serve.bundle_choice import BundleChoice

# What `load_policy` takes besides the sampler's settings
_NO_SETTINGS = ("embodiment", "seed", "deterministic_seed")
# The reasoner's tower reads the prompts in its place
_PREFILL = "und_prefill"


def check_bundle(choice: BundleChoice) -> None:
    """Whether the bundle is one, and has what the choice asks for. Files, libraries and the GPU are the load's matter.

    Raises:
        BundleError: no bundle; one without a policy, a reasoner or a variant that the engine runs.
        UsageError: an unknown engine, variant, recipe or setting, a ladder that can't be read.
        ObservationError: an embodiment that is unknown or can't be served.
    """
    bundle = Bundle.open(choice.bundle.resolve())
    require_recipe(bundle, choice.engines.get("recipe"))
    if choice.chat or choice.reason is not None:
        require_graphs(bundle)
        _check_variants(bundle, REASONER_GRAPHS, choice.engines)
    if choice.serve_policy:
        _require_policy(bundle)
        defaults = bundle.manifest.policy
        find_protocol(find_embodiment(choice.policy.get("embodiment") or str(defaults.get("embodiment", ""))))
        given = {name: value for name, value in choice.policy.items() if name not in _NO_SETTINGS}
        settings = sampler_settings(defaults, given)
        if choice.ladder is not None:
            Ladder.from_toml(choice.ladder, settings)
        own = [graph for graph in POLICY_GRAPHS if choice.reason is None or graph != _PREFILL]
        _check_variants(bundle, own, choice.engines)


def _check_variants(bundle: Bundle, graphs: Sequence[str], engines: Mapping[str, Any]) -> None:
    """Engines that a builder made are chosen by the GPU, and a packed bundle has nothing else."""
    backend = engines.get("engine", "onnxruntime")
    if backend in BACKENDS and BACKENDS[backend].builder is not None:
        return
    for graph in graphs:
        choose_variant(bundle, graph, backend=backend, variant=engines.get("variant"), recipe=engines.get("recipe"))


def _require_policy(bundle: Bundle) -> None:
    missing = [graph for graph in POLICY_GRAPHS if graph not in bundle.manifest.graphs]
    if missing:
        raise BundleError(
            f"the bundle has no policy: {bundle.root}",
            expected=", ".join(POLICY_GRAPHS),
            got=f"no {', '.join(missing)}",
            fix="a bundle of a policy's checkpoint; or, for questions alone, --no-policy --chat",
        )
