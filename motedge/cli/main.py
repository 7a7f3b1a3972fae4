"""The command `motedge`: verbs from one module each, and every failure turned into a message and an exit code.

Exit codes: 0 ok, 1 a gate failed, 2 usage, 3 environment, 4 internal, 130 interrupted, 141 the reader of stdout left.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

import motedge
from motedge.cli import (
    bench,
    build,
    checkpoint,
    doctor,
    export,
    generate,
    inspect,
    install,
    log,
    pack,
    plan,
    profile,
    quantize,
    reason,
    refit,
    replay,
    run,
    sensitivity,
    serve,
    targets,
    verify,
)
from motedge.cli.parser import Parser
from motedge.errors import EXIT_INTERNAL, EXIT_USAGE, HostError, MotedgeError

# In the order of the way of the data; each module registers the verb of its name
VERBS = (
    checkpoint,
    export,
    sensitivity,
    quantize,
    targets,
    plan,
    build,
    refit,
    pack,
    install,
    run,
    reason,
    generate,
    serve,
    replay,
    profile,
    bench,
    verify,
    inspect,
    doctor,
)
# Shells' convention: 128 + the signal's number, SIGINT 2 and SIGPIPE 13
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_DEBUG_VARIABLE = "MOTEDGE_DEBUG"


def build_parser() -> Parser:
    """The parser of the whole command, all verbs registered. Loads no heavy library."""
    parser = Parser(
        prog="motedge",
        description="Compile NVIDIA Cosmos 3 into graphs for an edge device, and run its policy there.",
        epilog="Results go to stdout, the log to stderr. Exit codes: 0 ok, 1 a gate failed, 2 usage, 3 environment, "
        "4 internal.",
    )
    parser.add_argument("--version", action="version", version=f"motedge {motedge.__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for module in VERBS:
        module.register(subparsers)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs one verb and returns its exit code; usage errors and --help raise SystemExit, as argparse does."""
    parser = build_parser()
    args = parser.parse_args(argv)
    verbose = getattr(args, "verbose", False) or os.environ.get(_DEBUG_VARIABLE) == "1"
    log.configure(verbose=verbose)
    run_verb: Optional[Callable[[argparse.Namespace], int]] = getattr(args, "run", None)
    if run_verb is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        code = run_verb(args)
        # Here, so that a reader who has left is noticed inside the try and not while the interpreter shuts down
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted", verbose)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; let that go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 -- the one place where every failure ends
        return _report(error, verbose)
    return code


def _report(error: Exception, verbose: bool) -> int:
    known = _as_known(error)
    if known is not None:
        _complain(f"error: {known}", verbose)
        return known.exit_code
    _complain(
        f"internal error: {type(error).__name__}: {error}\n"
        "  why:      this is a bug in motedge, not a mistake of yours\n"
        "  fix:      run the same command with --verbose and file the output as an issue",
        verbose,
    )
    return EXIT_INTERNAL


def _as_known(error: Exception) -> Optional[MotedgeError]:
    """What the user can mend: motedge's own errors, and the machine's (memory, disk, a package that is missing)."""
    if isinstance(error, MotedgeError):
        return error
    if isinstance(error, MemoryError):
        return HostError("this machine ran out of memory", fix="close other programs, or use a larger machine")
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("motedge"):
        return HostError(f"the package {error.name!r} is not installed", fix="motedge doctor says what is missing")
    if isinstance(error, OSError) and error.filename is not None:
        from motedge.files import disk_error

        translated = disk_error(error, Path(os.fsdecode(error.filename)))
        return translated if isinstance(translated, MotedgeError) else None
    return None


def _complain(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc(file=sys.stderr)
    print(f"motedge: {message}", file=sys.stderr)
