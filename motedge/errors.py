"""Every error that motedge raises on purpose, and the exit code that it gives the command line.

A message says what failed, what was expected and what was got, why it matters or happened, and how to mend it:

    >>> str(MotedgeError("the state has the wrong length", expected="8 numbers", got="7", fix="append the gripper"))
    'the state has the wrong length\\n  expected: 8 numbers\\n  got:      7\\n  fix:      append the gripper'
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Optional

EXIT_OK = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3
EXIT_INTERNAL = 4


class MotedgeError(Exception):
    """Something that the user can mend. Subclasses say which part failed; `exit_code` is what a command returns."""

    exit_code = EXIT_USAGE

    def __init__(
        self,
        what: str,
        *,
        expected: Optional[object] = None,
        got: Optional[object] = None,
        why: Optional[str] = None,
        fix: Optional[str] = None,
    ) -> None:
        self.what, self.expected, self.got, self.why, self.fix = what, expected, got, why, fix
        lines = [what]
        for label, value in (("expected", expected), ("got", got), ("why", why), ("fix", fix)):
            if value is not None:
                lines.append(f"  {label + ':':<9} {value}")
        super().__init__("\n".join(lines))


class UsageError(MotedgeError):
    """A wrong argument, name or combination of options."""


class CheckpointError(MotedgeError):
    """A checkpoint that is missing, damaged, contradictory or of an unknown family."""


class ExportError(MotedgeError):
    """A graph that could not be exported from a sound checkpoint."""


class BundleError(MotedgeError):
    """A bundle that is incomplete, changed, of another schema, or that points outside its own folder."""


class ContractError(MotedgeError):
    """A tensor whose name, shape or dtype differs from the graph's contract."""


class ObservationError(MotedgeError):
    """An image, state, instruction or embodiment that the policy can't take."""


class DataError(MotedgeError):
    """A data set that is empty, too small, damaged, or without something that calibration needs."""


class GateError(MotedgeError):
    """A numeric check that ran and failed."""

    exit_code = EXIT_GATE_FAILED


class HostError(MotedgeError):
    """This machine lacks something: a package, disk space, memory, a network."""

    exit_code = EXIT_ENVIRONMENT


class MissingPackageError(HostError):
    """An optional package is not installed. The message names the extra that brings it."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"the package {package!r} is needed {purpose}, and is not installed",
            fix=f'pip install "motedge[{extra}]"',
        )


class InternalError(Exception):
    """A bug in motedge: an invariant of its own code does not hold."""


def closest(name: str, known: Iterable[str]) -> str:
    """Returns `known` as a sentence for an error's `fix`, with the nearest spelling of `name` in front."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(names)}"
