"""The C types of a kernel's arguments, as the twins of the kernels check them."""

from __future__ import annotations

from typing import Any

import numpy as np


def expect_types(arguments: tuple[Any, ...], kinds: str) -> list[Any]:
    """Python values of kernel arguments, whose C types must be p (address), i (int32), u (uint32), f (float)."""
    types = {"p": np.uint64, "i": np.int32, "u": np.uint32, "f": np.float32}
    got = [type(argument) for argument in arguments]
    assert got == [types[kind] for kind in kinds], f"expected {kinds}, got {[kind.__name__ for kind in got]}"
    return [argument.item() for argument in arguments]
