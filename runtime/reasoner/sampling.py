"""Choosing the next token: greedy, or drawn from a filtered distribution, repeatably."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from motedge.errors import UsageError
from motedge.runtime.engine import FloatArray, IntArray


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are chosen. The defaults are the reasoner's (spec 4.4): greedy, 1,024 tokens."""

    # 0: always the likeliest token
    temperature: float = 0.0
    # Only so many of the likeliest; 0: all
    top_k: int = 0
    # Only the likeliest that together have this probability
    top_p: float = 1.0
    # Divides (or multiplies, below 0) the logits of tokens that stand in prompt or reply; 1: none
    repetition_penalty: float = 1.0
    # Taken from the logits of tokens that stand in the reply
    presence_penalty: float = 0.0
    # Of the drawing
    seed: int = 0
    # The reply is cut there, and says so
    max_new_tokens: int = 1024
    # The reply ends where one of these begins in its answer, and does not hold it
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = (
            ("temperature", self.temperature, 0.0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (all) or more"),
            ("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "above 0, at most 1"),
            ("repetition_penalty", self.repetition_penalty, 0.0 < self.repetition_penalty < math.inf, "above 0"),
            ("presence_penalty", self.presence_penalty, math.isfinite(self.presence_penalty), "a finite number"),
            ("seed", self.seed, 0 <= self.seed < 2**32, "0 to 2^32 - 1"),
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more"),
            ("stop", self.stop, all(self.stop), "texts, none of them empty"),
        )
        for name, value, good, expected in limits:
            if not good:
                raise UsageError(f"{name} is wrong", expected=expected, got=value)


# The prompt upsampler's (spec 4.3)
UPSAMPLER = SamplingOptions(
    temperature=0.7, top_k=20, top_p=0.8, presence_penalty=1.5, seed=3407, max_new_tokens=20_000
)


class Sampler:
    """Chooses the tokens of one reply."""

    def __init__(self, options: SamplingOptions, prompt: IntArray) -> None:
        """`prompt`: token ids, which the repetition penalty counts as said."""
        self._options = options
        self._said = set(prompt.tolist())
        self._generated: set[int] = set()
        self._random = np.random.RandomState(options.seed)

    def next(self, logits: FloatArray) -> int:
        """The next token; it counts as said from now on. Logits fp32 [V], finite."""
        scores = self.scores(logits)
        if self._options.temperature == 0:
            token = int(np.argmax(scores))
        else:
            kept = np.flatnonzero(np.isfinite(scores))
            weight = np.exp((scores[kept] - scores[kept].max()).astype(np.float64)).cumsum()
            drawn = np.searchsorted(weight, self._random.random_sample() * weight[-1], side="right")
            token = int(kept[min(int(drawn), len(kept) - 1)])
        self._said.add(token)
        self._generated.add(token)
        return token

    def scores(self, logits: FloatArray) -> FloatArray:
        """Logits after penalties, temperature and filters, -inf where a token can't be chosen: fp32 [V]."""
        options = self._options
        scores = np.array(logits, np.float32)
        if options.repetition_penalty != 1:
            said = np.fromiter(self._said, np.int64, len(self._said))
            factor = np.float32(options.repetition_penalty)
            scores[said] = np.where(scores[said] < 0, scores[said] * factor, scores[said] / factor)
        if options.presence_penalty and self._generated:
            scores[np.fromiter(self._generated, np.int64, len(self._generated))] -= np.float32(options.presence_penalty)
        if options.temperature > 0:
            scores = over_temperature(scores, options.temperature)
            scores = keep_top_p(keep_top_k(scores, options.top_k), options.top_p)
        return scores


def over_temperature(scores: FloatArray, temperature: float) -> FloatArray:
    """Scores by a temperature above 0; less the largest, which changes no probability, where they would leave fp32."""
    limits = np.finfo(np.float32)
    # Below the least normal number, where 0 / 0 is near, nothing but the largest has a chance either
    divisor = min(max(temperature, float(limits.tiny)), float(limits.max))
    if 2 * float(np.abs(scores).max()) > float(limits.max) * divisor:
        scores = scores - scores.max()
    with np.errstate(over="ignore"):
        divided: FloatArray = scores / np.float32(divisor)
    return divided


def keep_top_k(scores: FloatArray, count: int) -> FloatArray:
    """-inf below the `count`-th score; ties with it stay. 0: all stay."""
    if not 0 < count < scores.size:
        return scores
    least = np.partition(scores, scores.size - count)[scores.size - count]
    return np.where(scores < least, np.float32(-np.inf), scores)


def keep_top_p(scores: FloatArray, probability: float) -> FloatArray:
    """-inf for the least likely tokens that together have at most 1 - probability; the likeliest always stays."""
    if probability >= 1:
        return scores
    candidates = np.flatnonzero(np.isfinite(scores))
    order = candidates[np.argsort(scores[candidates], kind="stable")]
    weight = np.exp(scores[order] - scores[order[-1]])
    below = np.cumsum(weight / weight.sum(dtype=np.float32), dtype=np.float32)
    dropped = order[:-1][below[:-1] <= np.float32(1 - probability)]
    kept = scores.copy()
    kept[dropped] = -np.inf
    return kept
