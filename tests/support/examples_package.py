"""Makes `examples` importable without putting the repository's root on the path.

The root holds folders that must not be found by their bare names; see tests/unit/test_repository.py.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_spec = importlib.machinery.ModuleSpec("examples", None, is_package=True)
_spec.submodule_search_locations = [str(Path(__file__).resolve().parents[2] / "examples")]
sys.modules.setdefault("examples", importlib.util.module_from_spec(_spec))
