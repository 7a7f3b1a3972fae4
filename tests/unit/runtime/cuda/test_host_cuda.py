"""The simulated GPU must be as unforgiving as a real one, or what is tested on it proves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.runtime.cuda import Cuda
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError


def _add(cuda: HostCuda, grid: object, block: object, pointer: np.uint64, count: np.int32, value: np.float32) -> None:
    cuda.view(int(pointer), int(count), np.float32)[:] += value


@pytest.fixture
def cuda() -> Iterator[HostCuda]:
    made = HostCuda(total_bytes=1 << 20, kernels={"add": _add})
    with made.current():
        yield made
    made.close()


def test_fulfils_the_protocol(cuda: HostCuda) -> None:
    def takes(_: Cuda) -> None: ...

    takes(cuda)


def test_memory_is_aligned_poisoned_counted_and_given_back(cuda: HostCuda) -> None:
    block = cuda.allocate(1000, "state")
    assert block.pointer % 256 == 0
    assert np.isnan(cuda.view(block.pointer, 250, np.float32)).all()
    assert cuda.ledger == {"state": 1000}
    assert cuda.memory_info() == ((1 << 20) - 1000, 1 << 20)
    block.free()
    block.free()
    assert cuda.ledger == {}


def test_use_after_free_and_past_the_end(cuda: HostCuda) -> None:
    stream, block, other = cuda.stream(), cuda.allocate(256, "short"), cuda.allocate(1024, "long")
    with pytest.raises(CudaError, match="reach 256 past the end of 'short'"):
        cuda.copy(block.pointer, other.pointer, 512, stream)
    block.free()
    with pytest.raises(CudaError, match="'short', which was freed"):
        cuda.zero(block.pointer, 16, stream)
    with pytest.raises(CudaError, match="no block"):
        cuda.zero(8, 16, stream)
    pinned = cuda.pinned((4,), np.float32)
    with pytest.raises(CudaError, match="pinned host memory"):
        cuda.zero(pinned.ctypes.data, 16, stream)


def test_writes_past_the_end_are_found(cuda: HostCuda) -> None:
    block = cuda.allocate(256, "small")
    cuda.memory._blocks[block.pointer]._canary[0] = 0
    with pytest.raises(CudaError, match="past the end of 'small'"):
        block.free()


def test_out_of_memory_leaves_everything_usable(cuda: HostCuda) -> None:
    held = cuda.allocate(1 << 19, "weights")
    with pytest.raises(OutOfDeviceMemoryError, match="weights 524,288"):
        cuda.allocate((1 << 19) + 1, "workspace")
    cuda.allocate(1 << 19, "workspace").free()
    held.free()
    assert cuda.ledger == {}


def test_capture_runs_nothing_and_replays_by_address(cuda: HostCuda) -> None:
    stream, block = cuda.stream("high"), cuda.allocate(64, "x")
    staging, kernel = cuda.pinned((16,), np.float32), cuda.kernel(b"module", "add")

    def tick() -> None:
        cuda.copy(block.pointer, staging.ctypes.data, 64, stream)
        cuda.launch(kernel, 1, 16, [np.uint64(block.pointer), np.int32(16), np.float32(2)], stream)

    graph = cuda.capture(stream, tick)
    assert cuda.counts["launch"] == 0
    for value in (1, 5):
        staging[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert (cuda.view(block.pointer, 16, np.float32) == value + 2).all()
    assert cuda.counts == {"graph launch": 2, "copy": 2, "launch": 2}
    graph.close()
    with pytest.raises(CudaError, match="closed"):
        graph.launch(stream)


def test_a_graph_over_freed_memory_fails(cuda: HostCuda) -> None:
    stream, block = cuda.stream(), cuda.allocate(64, "x")
    graph = cuda.capture(stream, lambda: cuda.zero(block.pointer, 64, stream))
    block.free()
    with pytest.raises(CudaError, match="freed"):
        graph.launch(stream)


@pytest.mark.parametrize("call", ["allocate", "pinned", "stream", "synchronize", "free", "kernel", "capture", "passed"])
def test_what_can_not_be_captured(cuda: HostCuda, call: str) -> None:
    stream, block, event = cuda.stream(), cuda.allocate(64, "x"), cuda.event()
    calls = {
        "allocate": lambda: cuda.allocate(8, "y"),
        "pinned": lambda: cuda.pinned((1,), np.float32),
        "stream": cuda.stream,
        "synchronize": stream.synchronize,
        "free": block.free,
        "kernel": lambda: cuda.kernel(b"new", "add"),
        "capture": lambda: cuda.capture(stream, lambda: None),
        "passed": lambda: event.passed,
    }

    def swallowing() -> None:
        cuda.zero(block.pointer, 64, stream)
        with pytest.raises(CaptureError):
            calls[call]()

    with pytest.raises(CaptureError, match="lost"):
        cuda.capture(stream, swallowing)
    cuda.zero(block.pointer, 64, stream)
    assert (cuda.view(block.pointer, 16, np.float32) == 0).all()


def test_streams_in_a_capture(cuda: HostCuda) -> None:
    stream, side, block = cuda.stream(), cuda.stream("low"), cuda.allocate(64, "x")
    fork, join = cuda.event(), cuda.event()

    def joined() -> None:
        fork.record(stream)
        side.wait(fork)
        cuda.zero(block.pointer, 64, side)
        join.record(side)
        stream.wait(join)

    cuda.capture(stream, joined).launch(stream)
    with pytest.raises(CaptureError, match="another stream"):
        cuda.capture(stream, lambda: cuda.zero(block.pointer, 64, side))

    def left() -> None:
        fork.record(stream)
        side.wait(fork)
        cuda.zero(block.pointer, 64, side)

    with pytest.raises(CaptureError, match="not joined"):
        cuda.capture(stream, left)
    with pytest.raises(ZeroDivisionError):
        cuda.capture(stream, lambda: [1 // 0][0])
    assert not cuda.capturing


def test_errors_that_stay(cuda: HostCuda) -> None:
    stream = cuda.stream()
    cuda.inject("synchronize", StickyCudaError("an illegal address"), after=1)
    stream.synchronize()
    for call in (stream.synchronize, lambda: cuda.allocate(8, "x"), cuda.event):
        with pytest.raises(StickyCudaError):
            call()
    cuda.close()
    assert cuda.ledger == {}


def test_injected_error_comes_once(cuda: HostCuda) -> None:
    cuda.inject("allocate", OutOfDeviceMemoryError("full"), after=2)
    blocks = [cuda.allocate(8, "x"), cuda.allocate(8, "x")]
    with pytest.raises(OutOfDeviceMemoryError, match="full"):
        cuda.allocate(8, "x")
    for block in (*blocks, cuda.allocate(8, "x")):
        block.free()
    assert cuda.ledger == {}


def test_needs_a_current_context() -> None:
    cuda = HostCuda()
    with pytest.raises(CudaError, match="no context is current"):
        cuda.allocate(8, "x")
    with cuda.current(), cuda.current():
        block = cuda.allocate(8, "x")
    block.free()
    cuda.close()
    with pytest.raises(CudaError, match="closed"), cuda.current():
        pass


def test_rows_between_pitches(cuda: HostCuda) -> None:
    stream, source, target = cuda.stream(), cuda.pinned((3, 4), np.int32), cuda.allocate(3 * 32, "rows")
    source[:] = np.arange(12).reshape(3, 4)
    cuda.zero(target.pointer, 96, stream)
    cuda.copy_rows(target.pointer, 32, source.ctypes.data, 16, 8, 3, stream)
    got = cuda.view(target.pointer, (3, 8), np.int32)
    assert got[:, :2].tolist() == [[0, 1], [4, 5], [8, 9]]
    assert not got[:, 2:].any()
    with pytest.raises(CudaError, match="overlaps"):
        cuda.copy(target.pointer, target.pointer + 8, 16, stream)


def test_deferred_work_shows_a_race() -> None:
    cuda = HostCuda(deferred=True)
    with cuda.current():
        first, second, block = cuda.stream(), cuda.stream(), cuda.allocate(4, "x")
        staging, back, event = cuda.pinned((1,), np.float32), cuda.pinned((1,), np.float32), cuda.event()
        staging[:] = 1
        cuda.copy(block.pointer, staging.ctypes.data, 4, first)
        event.record(first)
        second.wait(event)
        cuda.copy(back.ctypes.data, block.pointer, 4, second)
        staging[:] = 7
        assert not event.passed
        assert back[0] == 0
        second.synchronize()
        assert back[0] == 7
        assert event.passed
    cuda.close()


def test_a_function_on_a_stream_by_handle(cuda: HostCuda) -> None:
    stream, seen = cuda.stream(), []
    graph = cuda.capture(stream, lambda: cuda.enqueue(stream.handle, lambda: seen.append(1), "engine"))
    assert seen == []
    graph.launch(stream)
    assert seen == [1]
    assert cuda.counts["engine"] == 1


def test_kernel_arguments_carry_their_type(cuda: HostCuda) -> None:
    kernel = cuda.kernel(b"m", "add")
    with pytest.raises(CudaError, match="numpy numbers"):
        cuda.launch(kernel, 1, 1, [1, np.int32(1)], cuda.stream())
    with pytest.raises(CudaError, match="no kernel 'sub'"):
        cuda.kernel(b"m", "sub")


def test_elapsed_time(cuda: HostCuda) -> None:
    stream, block, start, end = cuda.stream(), cuda.allocate(8, "x"), cuda.event(), cuda.event()
    with pytest.raises(CudaError, match="recorded"):
        end.elapsed_ms(start)
    start.record(stream)
    cuda.zero(block.pointer, 8, stream)
    cuda.zero(block.pointer, 8, stream)
    end.record(stream)
    assert end.elapsed_ms(start) == 2.0
