"""What a policy on a GPU must do when something goes wrong: clear errors, nothing left allocated, and it goes on.

Runs on Python 3.9.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
from policy_checks import BY_NAME, tick_of, tolerance
from policy_reference import CUP, act, distance, observation

from motedge.bundle import Bundle
from motedge.errors import BundleError, HostError, MotedgeError, ObservationError
from motedge.runtime.cuda.choose import open_cuda
from motedge.runtime.cuda.errors import CudaError

# Left free when the memory is taken away: less than any engine or session needs
LEFT_BYTES = 2 << 20
# Taken in pieces, since the driver's free memory is not one block
PIECE_BYTES = 256 << 20


def check_no_memory(bench: Any) -> None:
    """Another holds the memory: loading fails clearly, gives everything back, and works once there is room."""
    _warm(bench)
    with _own_cuda() as cuda:
        before = _used(cuda)
        with _hogged(cuda):
            error = _refusal(lambda: bench.load().close())
        left = _used(cuda) - before
        bench.say("no memory to load", isinstance(error, HostError), **_told(error))
        bench.say("which leaves nothing allocated", left <= 0, left_bytes=left)
        with bench.load() as policy:
            chunk = act(policy, BY_NAME["interval"])
            with _hogged(cuda):
                # A kind of request that was never asked for needs contexts and buffers of its own
                error = _refusal(lambda: act(policy, BY_NAME["another prompt"]))
            bench.say("no memory in a tick", error is None or isinstance(error, HostError), **_told(error))
            again = act(policy, BY_NAME["interval"])
            bench.say("it acts on afterwards", np.array_equal(again.actions, chunk.actions))
            other = distance(act(policy, BY_NAME["another prompt"]).actions, bench.reference["another prompt"])
            bench.say("and on what had failed", other < tolerance(bench), relative_l2=other)


def check_bad_files(bench: Any) -> None:
    """An engine's or graph's file that is cut short, changed, or someone else's."""
    _warm(bench)
    with _own_cuda() as cuda:
        before = _used(cuda)
        for what, damage in (("cut short", _cut), ("changed", _change), ("of zeros", _blank)):
            with _copy(bench) as bundle:
                for path in _files(bench, bundle):
                    damage(path)
                full = _refusal(lambda b=bundle: bench.load(b, check="full").close())
                bench.say(f"a file {what} is refused", isinstance(full, BundleError), **_told(full))
                if what == "changed":
                    # Weights differ in a bit: sizes alone can't tell, and need not
                    continue
                if what == "of zeros":
                    quick = _refusal(lambda b=bundle: bench.load(b).close())
                    bench.say(
                        f"a file {what}, unseen by the check of sizes", isinstance(quick, MotedgeError), **_told(quick)
                    )
        left = _used(cuda) - before
        bench.say("bad files leave nothing allocated", left <= 0, left_bytes=left)


def check_not_finite(bench: Any) -> None:
    """NaN going in and NaN coming out: it stops and says where."""
    pose = [0.0] * 7
    pose[2] = float("nan")
    seen = observation(CUP)
    state = _refusal(lambda: type(seen)(pose, 0.1, CUP, image=seen.image))
    bench.say("NaN in the state", isinstance(state, ObservationError), **_told(state))
    with _copy(bench) as bundle:
        table = Bundle.open(bundle).manifest.tables["action_in_bias"]
        path = bundle / table["file"]
        # bf16 and fp16 both read all ones as NaN
        path.write_bytes(b"\xff" * path.stat().st_size)
        with bench.load(bundle) as policy:
            errors = [_refusal(lambda: act(policy, BY_NAME["always"])) for _ in range(2)]
            text = str(errors[0])
            said = isinstance(errors[0], MotedgeError) and "gen_step" in text and "NaN" in text
            bench.say("NaN from a graph stops the tick", said, **_told(errors[0]))
            bench.say("and the next one", isinstance(errors[1], MotedgeError), **_told(errors[1]))


def check_profile(bench: Any) -> None:
    """A prompt beyond the engines' profile is refused, and the next request is answered."""
    with bench.load() as policy:
        chunk = act(policy, BY_NAME["interval"])
        error = _refusal(lambda: policy.act(observation("Lift it. " * 400), seed=1))
        bench.say("a prompt that is too long", isinstance(error, ObservationError), **_told(error))
        bench.say("does not disturb the next", np.array_equal(act(policy, BY_NAME["interval"]).actions, chunk.actions))


def check_crash(bench: Any) -> None:
    """A kernel crashes: the context is rebuilt once and the request answered, or the driver refuses this process for
    good and the error says that it must be restarted. A second crash is reported."""
    from cuda_kernels_ptx import PTX

    policy = bench.load()
    chunk = act(policy, BY_NAME["interval"])
    for number in (1, 2):
        tick = tick_of(policy)
        with tick._cuda.current():
            kernel = tick._cuda.kernel(PTX, "write_null")
            tick._cuda.launch(kernel, 1, 1, [np.uint64(0)], tick._loop.stream)
        answer: List[Any] = []
        error = _refusal(lambda a=answer: a.append(act(policy, BY_NAME["interval"])))
        if number == 1:
            same = bool(answer) and distance(answer[0].actions, chunk.actions) < tolerance(bench)
            launch = answer[0].details["launch"] if answer else None
            refused = isinstance(error, HostError) and "restart the process" in str(error)
            bench.say("after a crash: answered, or said why not", same or refused, launch=launch, **_told(error))
            if refused:
                break
        else:
            bench.say("a second crash is reported", isinstance(error, CudaError), **_told(error))
    last = _refusal(lambda: act(policy, BY_NAME["interval"]))
    bench.say("and stays", isinstance(last, HostError), **_told(last))


def _warm(bench: Any) -> None:
    """Libraries keep what they load once a process; that is not a leak."""
    for _ in range(2):
        with bench.load() as policy:
            act(policy, BY_NAME["interval"])


@contextlib.contextmanager
def _own_cuda() -> Iterator[Any]:
    cuda = open_cuda()
    try:
        with cuda.current():
            yield cuda
    finally:
        cuda.close()


@contextlib.contextmanager
def _hogged(cuda: Any) -> Iterator[None]:
    """Takes all of the device's memory but LEFT_BYTES."""
    blocks: List[Any] = []
    piece = PIECE_BYTES
    try:
        while piece >= LEFT_BYTES:
            try:
                if cuda.memory_info()[0] <= LEFT_BYTES:
                    break
                blocks.append(cuda.allocate(piece, "taken away"))
            except CudaError:
                piece //= 2
        yield
    finally:
        for block in blocks:
            block.free()


@contextlib.contextmanager
def _copy(bench: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(bench.bundle, Path(folder) / "bundle"))


def _files(bench: Any, bundle: Path) -> List[Path]:
    """What is loaded for gen_step: the plan, or the graph."""
    if bench.engine == "onnxruntime-cuda":
        return [bundle / Bundle.open(bundle).variant("gen_step", bench.variant).file]
    found = []
    for record in bundle.glob("engines/*/build.json"):
        engines = json.loads(record.read_text(encoding="utf-8"))["engines"]
        found += [record.parent / e["file"] for e in engines if e["graph"] == "gen_step"]
    return found


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _refusal(work: Callable[[], Any]) -> Optional[BaseException]:
    """What `work` raised; None where it went through."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - judged by the caller
        return error
    return None


def _told(error: Optional[BaseException]) -> Any:
    return {"said": None if error is None else f"{type(error).__name__}: {error}"[:700]}


def _used(cuda: Any) -> int:
    free, total = cuda.memory_info()
    return int(total - free)


CHECKS: Tuple[Callable[[Any], None], ...] = (check_no_memory, check_bad_files, check_not_finite, check_profile)
