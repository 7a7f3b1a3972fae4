"""Filtered distributions against transformers' logits processors; drawing; bad options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import UsageError
from motedge.runtime.reasoner.sampling import UPSAMPLER, Sampler, SamplingOptions

VOCABULARY = 40


def _logits(seed: int) -> np.ndarray:
    # No two equal, of which the reference's unstable sort keeps either
    return (2 * np.random.RandomState(seed).standard_normal(VOCABULARY)).astype(np.float32)


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 2.0),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.05, 1.0),
    repetition=st.floats(0.5, 2.0),
)
@settings(max_examples=200, deadline=None)
def test_scores_as_transformers(seed: int, temperature: float, top_k: int, top_p: float, repetition: float) -> None:
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("transformers.generation.logits_process")
    prompt = np.random.RandomState(seed).randint(0, VOCABULARY, 6)
    logits = _logits(seed)
    theirs, ids = torch.from_numpy(logits)[None], torch.from_numpy(prompt)[None]
    chain = [oracle.RepetitionPenaltyLogitsProcessor(repetition), oracle.TemperatureLogitsWarper(temperature)]
    chain += [oracle.TopKLogitsWarper(top_k)] if top_k else []
    for step in chain:
        theirs = step(ids, theirs)
    before = theirs
    if top_p < 1:
        theirs = oracle.TopPLogitsWarper(top_p)(ids, theirs)
    options = SamplingOptions(temperature, top_k, top_p, repetition)
    ours, theirs = Sampler(options, prompt).scores(logits), theirs[0].numpy()
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert np.abs(ours[both] - theirs[both]).max() <= 2e-6
    # A token on the limit itself may fall on either side of it: fp32 sums in two orders
    probability = before[0].double().softmax(0).numpy()
    for token in np.flatnonzero(np.isfinite(ours) != np.isfinite(theirs)):
        below = probability[probability <= probability[token]].sum()
        assert abs(below - (1 - top_p)) <= 1e-6


def test_presence_counts_the_reply_alone() -> None:
    sampler = Sampler(SamplingOptions(presence_penalty=1.5), np.array([3]))
    logits = np.zeros(5, np.float32)
    logits[3] = 1.0
    assert [sampler.next(logits) for _ in range(3)] == [3, 0, 1]
    assert sampler.scores(logits).tolist() == [-1.5, -1.5, 0.0, -0.5, 0.0]


def test_greedy_takes_the_first_of_the_largest() -> None:
    sampler = Sampler(SamplingOptions(), np.array([1]))
    assert sampler.next(np.array([0, 2, 2], np.float32)) == 1


def test_drawing_repeats_and_follows_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2, 1e-9], np.float32))
    options = SamplingOptions(temperature=1.0, top_k=3, seed=7)
    draws = [Sampler(options, np.array([0])) for _ in range(2)]
    first, second = ([sampler.next(logits) for _ in range(4000)] for sampler in draws)
    assert first == second
    share = np.bincount(first, minlength=4) / 4000
    assert np.abs(share - [0.5, 0.3, 0.2, 0.0]).max() < 0.03
    assert Sampler(SamplingOptions(temperature=1.0, seed=8), np.array([0])).next(logits) in range(4)


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-37])
@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.9}], ids=str)
@pytest.mark.filterwarnings("error")
def test_a_tiny_temperature_takes_the_largest(temperature: float, more: dict[str, float]) -> None:
    logits = np.array([-30, 12, 25, 24.5], np.float32)
    for sign in (1, -1):
        sampler = Sampler(SamplingOptions(temperature, **more), np.array([0]))
        scores = sampler.scores(sign * logits)
        assert not np.isnan(scores).any() and scores.max() < np.inf
        assert sampler.next(sign * logits) == int(np.argmax(sign * logits))


@pytest.mark.filterwarnings("error")
def test_a_huge_temperature_makes_all_alike() -> None:
    sampler = Sampler(SamplingOptions(1e300), np.array([0]))
    assert np.abs(sampler.scores(np.array([-30, 12, 25], np.float32))).max() < 1e-30


def test_the_logits_are_left_alone() -> None:
    logits = _logits(1)
    before = logits.copy()
    Sampler(UPSAMPLER, np.arange(5)).next(logits)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("inf")},
        {"seed": -1},
        {"max_new_tokens": 0},
        {"stop": ("a", "")},
    ],
    ids=str,
)
def test_bad_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is wrong"):
        SamplingOptions(**wrong)
