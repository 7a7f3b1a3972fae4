"""The cache of prompts on a simulated device, read by something that may work beside the requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.errors import ContractError
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.device.prompts import DevicePrompts

BYTES_A_TOKEN = 256


class CountingReader:
    """A `PromptReader` that writes the number of tokens over the memory."""

    graph, dtype, aside = "und", "fp32", True

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda, self.read_lengths, self.freed = cuda, [], 0
        self.fails: Any = None

    def nbytes(self, count: int) -> int:
        return BYTES_A_TOKEN * count

    def read(self, values: Sequence[np.ndarray], pointer: int, stream: Any) -> None:
        if self.fails is not None:
            raise self.fails
        count = len(values[0])
        self.read_lengths.append(count)
        self.cuda.view(pointer, (BYTES_A_TOKEN * count // 4,), np.float32)[:] = count

    def free(self) -> None:
        self.freed += 1


class Tables:
    def embeddings(self, token_ids: np.ndarray) -> np.ndarray:
        return np.zeros((token_ids.size, 4), np.float32)


class Rotary:
    def text(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((count, 2), np.float32), np.zeros((count, 2), np.float32)


def tokens(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64)


@pytest.fixture
def scene() -> Any:
    cuda = HostCuda()
    with cuda.current():
        reader, stream = CountingReader(cuda), cuda.stream()
        prompts = DevicePrompts(cuda, reader, "fp32", Tables(), Rotary(), max_entries=3)  # type: ignore[arg-type]
        yield cuda, reader, prompts, stream
        prompts.free()
        assert not cuda.ledger and reader.freed == 1
    cuda.close()


def test_what_was_read_aside_joins_with_the_next_request(scene: Any) -> None:
    cuda, reader, prompts, stream = scene
    prompts.prepare(tokens(5), stream)
    prompts.prepare(tokens(5), stream)
    assert reader.read_lengths == [5] and len(prompts) == 0
    found = prompts.encode(tokens(5), stream)
    assert (found.und_len, found.graph, prompts.hits, prompts.misses) == (5, "und", 1, 0)
    assert cuda.view(found.memory.pointer, (1,), np.float32)[0] == 5
    # Known by now
    prompts.prepare(tokens(5), stream)
    assert reader.read_lengths == [5] and prompts.kept_bytes == 5 * BYTES_A_TOKEN


def test_requests_free_nothing_and_the_next_reading_does(scene: Any) -> None:
    cuda, _, prompts, stream = scene
    for count in range(1, 6):
        prompts.prepare(tokens(count), stream)
        prompts.encode(tokens(count), stream)
    # Two gave way to later ones; the second waits for the next reading
    assert len(prompts) == 3 and cuda.ledger == {"prompt K and V": (2 + 3 + 4 + 5) * BYTES_A_TOKEN}
    prompts.prepare(tokens(5), stream)
    assert cuda.ledger == {"prompt K and V": (3 + 4 + 5) * BYTES_A_TOKEN}


def test_requests_that_wait_for_a_reading_free_what_gave_way(scene: Any) -> None:
    cuda, _, prompts, stream = scene
    for count in range(1, 9):
        prompts.encode(tokens(count), stream)
    assert cuda.ledger == {"prompt K and V": (6 + 7 + 8) * BYTES_A_TOKEN}


def test_one_that_was_read_twice_is_kept_once(scene: Any) -> None:
    cuda, reader, prompts, stream = scene
    read = reader.read

    def late(*arguments: Any) -> None:
        # A request needs it before the reading aside is done
        reader.read = read
        prompts.encode(tokens(4), stream)
        read(*arguments)

    reader.read = late
    prompts.prepare(tokens(4), stream)
    prompts.encode(tokens(4), stream)
    prompts.prepare(tokens(4), stream)
    assert len(prompts) == 1 and cuda.ledger == {"prompt K and V": 4 * BYTES_A_TOKEN}


def test_want_of_memory_drops_prompts_for_a_request_but_not_aside() -> None:
    cuda = HostCuda(total_bytes=8 * BYTES_A_TOKEN)
    with cuda.current():
        reader, stream = CountingReader(cuda), cuda.stream()
        prompts = DevicePrompts(cuda, reader, "fp32", Tables(), Rotary(), max_entries=2)  # type: ignore[arg-type]
        for count in (3, 4):
            prompts.encode(tokens(count), stream)
        with pytest.raises(OutOfDeviceMemoryError, match="prompt K and V"):
            prompts.prepare(tokens(5), stream)
        assert len(prompts) == 2
        # The oldest gave way to a third; the other one too, because there is no room
        assert prompts.encode(tokens(5), stream).und_len == 5
        assert cuda.ledger == {"prompt K and V": 5 * BYTES_A_TOKEN}
        reader.fails = OutOfDeviceMemoryError("no room for a workspace")
        with pytest.raises(OutOfDeviceMemoryError):
            prompts.encode(tokens(1), stream, needed=list(prompts._kept.values()))
        prompts.free()
        assert not cuda.ledger
    cuda.close()


def test_another_type_is_refused_by_name() -> None:
    cuda = HostCuda()
    with cuda.current(), pytest.raises(ContractError, match="und and gen_step are loaded in different types"):
        DevicePrompts(cuda, CountingReader(cuda), "fp16", Tables(), Rotary())  # type: ignore[arg-type]
    cuda.close()
