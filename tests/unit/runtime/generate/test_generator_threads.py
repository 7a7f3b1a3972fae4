"""One generator, several threads: videos that do not mix, decoders opened once, and nothing after it is closed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.runtime.generate import GenerateRequest, Generator
from motedge.runtime.vae import VideoDecoder


class _Engine:
    """A decoder's engine whose frames are the sum of all latents so far; `busy`: held while one of them runs."""

    def __init__(self, busy: threading.Lock, counts: Counter[str], frames: int) -> None:
        self.busy, self.counts, self.frames = busy, counts, frames
        caches = [] if frames == 1 else ["cache_sum"]
        self.contract = SimpleNamespace(
            inputs=[SimpleNamespace(name=name) for name in ("latent", *caches)],
            outputs=[SimpleNamespace(name=name) for name in ("frames", "next_cache_sum")],
        )

    def context(self, dims: dict[str, int]) -> _Context:
        return _Context(self)

    def close(self) -> None:
        self.counts["closed"] += 1


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self._inputs = engine, {"cache_sum": np.zeros(1, np.float32)}
        self._outputs = {
            "frames": np.zeros((3, engine.frames, 2, 2), np.float32),
            "next_cache_sum": np.zeros(1, np.float32),
        }

    def set_input(self, name: str, value: np.ndarray) -> None:
        self._inputs[name] = value

    def output(self, name: str) -> np.ndarray:
        return self._outputs[name]

    def run(self) -> None:
        assert self._engine.busy.acquire(blocking=False), "two chunks at once"
        time.sleep(0.001)
        total = self._inputs["cache_sum"] + self._inputs["latent"].flat[0]
        self._outputs["next_cache_sum"][:], self._outputs["frames"][:] = total, total
        self._engine.busy.release()


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def generator(counts: Counter[str]) -> Generator:
    busy = threading.Lock()

    def open_decoder() -> VideoDecoder:
        counts["opened"] += 1
        time.sleep(0.01)
        return VideoDecoder(None, (_Engine(busy, counts, 1), _Engine(busy, counts, 4)))

    def open_sound() -> SimpleNamespace:
        counts["sound"] += 1
        time.sleep(0.01)
        return SimpleNamespace(decode=lambda latents: latents, sample_rate_hz=48000, close=lambda: None)

    return Generator(
        loop=SimpleNamespace(close=lambda: counts.update(["loop"])),
        image_encoder=SimpleNamespace(context=lambda dims: None),
        open_encoder=lambda: None,
        open_decoder=open_decoder,
        open_sound=open_sound,
        engines=(),
        tokenizer=None,
        tables=None,
        shape=None,
        model={},
        policy={},
    )


def _latents(value: float, count: int = 4) -> np.ndarray:
    return np.full((2, count, 1, 1), value, np.float32)


def _levels(pictures: list[np.ndarray]) -> list[int]:
    return [int(frame[0, 0, 0]) for chunk in pictures for frame in chunk]


def test_two_videos_and_a_preview_side_by_side(generator: Generator) -> None:
    alone = [_levels(list(generator.frames(_latents(value)))) for value in (0.1, -0.2)]
    assert len(alone[0]) == 13 and alone[0] != alone[1]
    preview = generator.preview(_latents(0.1))
    both: list[list[np.ndarray]] = [[], []]
    for pair in zip(generator.frames(_latents(0.1)), generator.frames(_latents(-0.2))):
        for index, chunk in enumerate(pair):
            both[index].append(chunk)
        np.testing.assert_array_equal(generator.preview(_latents(0.1)), preview)
    assert [_levels(chunks) for chunks in both] == alone


def test_many_threads(generator: Generator, counts: Counter[str]) -> None:
    def work(value: float) -> list[int]:
        generator.preview(_latents(value))
        generator.waveform(_latents(value))
        return _levels(list(generator.frames(_latents(value))))

    values = [0.05 * index for index in range(-4, 4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, values))
    assert counts == {"opened": 1, "sound": 1}
    assert found == [work(value) for value in values]


def test_a_closed_generator_opens_nothing(generator: Generator, counts: Counter[str]) -> None:
    begun = generator.frames(_latents(0.1))
    next(begun)
    generator.close()
    generator.close()
    assert counts == {"opened": 1, "closed": 2, "loop": 1}
    for call in (
        lambda: next(begun),
        lambda: next(generator.frames(_latents(0.1))),
        lambda: generator.preview(_latents(0.1)),
        lambda: generator.waveform(_latents(0.1)),
        lambda: generator.require_decoder(),
        lambda: generator.generate(GenerateRequest("text2image", "a cube")),
    ):
        with pytest.raises(UsageError, match="generator is closed"):
            call()
    assert counts == {"opened": 1, "closed": 2, "loop": 1}
