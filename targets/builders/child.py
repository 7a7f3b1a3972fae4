"""One build in a process of its own: its memory is its own, and what kills it does not kill the job.

The request goes in as a file. Progress comes back as JSON lines on standard output, the result or the error as the last
of them. Run as `python -m motedge.targets.builders.child REQUEST`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Optional

from motedge import errors
from motedge.errors import HostError, InternalError, MotedgeError
from motedge.files import PARTIAL_SUFFIX
from motedge.targets.builders.builder import BuildError, BuildRequest, BuiltEngine, Progress
from motedge.targets.builders.memory_watch import MemoryPeak
from motedge.targets.builders.registry import make_builder
from motedge.units import format_bytes

_PERIOD_S = 0.05
_FIELDS = ("what", "expected", "got", "why", "fix")


def build_in_child(
    builder: str, request: BuildRequest, progress: Progress, *, program: Optional[Sequence[str]] = None
) -> tuple[BuiltEngine, MemoryPeak, float]:
    """Builds one engine in a child process.

    Args:
        builder: name of the builder.
        request: what to build.
        progress: called now and then, from this thread.
        program: another program than this module, for tests.

    Returns:
        What was built, the child's peak memory, and its time in s.

    Raises:
        MotedgeError: what the builder raised in the child.
        HostError: the system killed the child, as it does when memory runs out.
    """
    start, peak = time.perf_counter(), MemoryPeak()
    last: dict[str, Any] = {}
    level = logging.getLogger("motedge").getEffectiveLevel()
    with tempfile.TemporaryDirectory(prefix="motedge-build-") as folder:
        file = Path(folder) / "request.json"
        file.write_text(
            json.dumps({"builder": builder, "log_level": level, "request": request.to_dict()}), encoding="utf-8"
        )
        command = [*(program or (sys.executable, "-m", __spec__.name)), str(file)]
        with _running(command, request.out) as child:
            for message in _messages(child, peak):
                if "phase" in message:
                    progress(message["phase"], message["share"])
                else:
                    last = message
                    peak.resident = max(peak.resident, message.get("resident", 0))
    if "built" in last:
        return BuiltEngine.from_dict(last["built"]), peak, time.perf_counter() - start
    if "error" in last:
        raise _revive(last["error"])
    raise _died(request, child.returncode, peak)


@contextlib.contextmanager
def _running(command: Sequence[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The child; when the job is interrupted, it is ended and waited for. Removes what it leaves half-written."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
        remove_partials(out.parent)


def _messages(child: subprocess.Popen[bytes], peak: MemoryPeak) -> Iterator[dict[str, Any]]:
    """JSON lines until the child closes its output; looks at its memory in between."""
    stream = child.stdout
    if stream is None:
        raise InternalError("the child has no output")
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            peak.watch(child.pid)
            if not selector.select(_PERIOD_S):
                continue
            data = os.read(stream.fileno(), 1 << 16)
            if not data:
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                # A library that prints to standard output is none of ours
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        yield message
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if not peak.resident:
        # No /proc here. Linux counts the parent's memory at the fork in it, so that it is the second choice
        peak.resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def remove_partials(folder: Path) -> None:
    """Removes what builds that were ended left half-written."""
    for partial in folder.glob(f"*{PARTIAL_SUFFIX}"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def _end_with_parent() -> None:
    """Lets the kernel end this process when the job is killed: a build goes on for minutes otherwise."""
    if sys.platform == "linux":
        import ctypes

        # linux/prctl.h: PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


def _died(request: BuildRequest, code: Optional[int], peak: MemoryPeak) -> HostError:
    what = f"the build of graph {request.graph!r} ({request.variant}) was ended"
    got = f"its highest memory was {format_bytes(peak.resident)}"
    if code is not None and code < 0 and -code == signal.SIGKILL:
        return HostError(
            f"{what} by the system",
            got=got,
            why="that is what Linux does with a program when memory runs out",
            fix="close other programs, give --workspace-gb or --optimization-level 0, or take a smaller recipe",
        )
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return HostError(f"{what} inside the engine library", got=f"{name}; {got}", fix="run it again with --verbose")


def _revive(raw: dict[str, Any]) -> Exception:
    """The child's error as one of ours of the same class."""
    kind = BuildError if raw["kind"] == BuildError.__name__ else getattr(errors, raw["kind"], None)
    if isinstance(kind, type) and issubclass(kind, MotedgeError):
        fields = {name: raw[name] for name in _FIELDS}
        error = kind.__new__(kind)
        MotedgeError.__init__(error, fields.pop("what"), **fields)
        return error
    return InternalError(f"{raw['kind']}: {raw['what']}")


def main(file: Path, out: IO[str]) -> int:
    """The child: builds and says how it went."""
    # The terminal's interrupt goes to the whole group: the job ends this process, which has nothing to say
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    raw = json.loads(file.read_text(encoding="utf-8"))
    logging.basicConfig(stream=sys.stderr, level=raw["log_level"], format="%(message)s")

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        builder = make_builder(raw["builder"])
        request = BuildRequest.from_dict(raw["request"])
        built = builder.build(request, lambda phase, share: say({"phase": phase, "share": share}))
    except MotedgeError as error:
        texts = {name: None if getattr(error, name) is None else str(getattr(error, name)) for name in _FIELDS}
        say({"error": {"kind": type(error).__name__, **texts}})
        return error.exit_code
    except MemoryError:
        say({"error": {"kind": "HostError", **dict.fromkeys(_FIELDS), "what": "the build ran out of memory"}})
        return errors.EXIT_ENVIRONMENT
    # The kernel's own account up to now, which no look from outside can have missed
    own = MemoryPeak()
    own.watch(os.getpid())
    say({"built": dataclasses.asdict(built), "resident": own.resident})
    return errors.EXIT_OK


if __name__ == "__main__":
    # What libraries print belongs to standard error; standard output is for messages to the job
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.exit(main(Path(sys.argv[1]), messages))
