"""motedge: NVIDIA Cosmos 3 on edge devices. Compiler (export, quant, targets) and runtime.

Importing this package loads neither torch nor an engine library.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy", "load_reasoner"]


def load_policy(bundle: Any, **options: Any) -> Any:
    """Loads the policy of a bundle: `load_policy("bundle").act(observation)`. See motedge.runtime.policy."""
    from motedge.runtime.policy import load_policy as load

    return load(bundle, **options)


def load_reasoner(bundle: Any, **options: Any) -> Any:
    """Loads the reasoner of a bundle: `load_reasoner("bundle").ask("What is this?", [image])`."""
    from motedge.runtime.reasoner.loader import load_reasoner as load

    return load(bundle, **options)
