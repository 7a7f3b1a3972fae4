"""Shares of nominal rates that published software reaches, by class of devices, and how far that is to be trusted.

Few figures exist, so few parameters are fitted: the share of 16-bit arithmetic that projections reach and that
attention reaches, the share of narrow arithmetic, the share of bandwidth; and for each class of devices one factor on
arithmetic and one on bandwidth, which a prior holds near 1. Least squares on the logarithm of predicted over published,
weighted so that a publisher of many figures does not outvote the others (docs/decisions/0008-efficiency-by-class.md).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.targets.catalog import load_target
from motedge.targets.roofline.published import PublishedFigure, published_figures
from motedge.targets.roofline.roofline import MEMORY, Efficiency, predict
from motedge.targets.roofline.work import Work

# What is thought before any figure is seen, as logarithms: mean and standard deviation. Shares of 40 to 80 % are what
# tuned libraries reach at these shapes
_SHARES = {"gemm": 0.6, "attention": 0.45, "narrow": 0.5, "memory": 0.75}
_SHARE_DEVIATION = 0.35
# How much classes differ
_CLASS_DEVIATION = 0.25
# How much two pieces of good software differ on one device
_FIGURE_DEVIATION = 0.15
_STEPS, _SETTLED = 40, 1e-4
_ARITHMETIC = "arithmetic"


@dataclass(frozen=True)
class Judged:
    """One figure beside its predictions."""

    figure: PublishedFigure
    # By the fit to all figures, and by one that saw none of this publisher's; s
    predicted_s: float
    unseen_s: float
    # "compute" or "memory"
    bound: str

    @property
    def ratio(self) -> float:
        """Prediction of the fit that had not seen it over what was published."""
        return self.unseen_s / self.figure.seconds


@dataclass(frozen=True)
class Judgement:
    """All figures, and the error of predicting sources that were left out."""

    rows: tuple[Judged, ...]
    # Root mean square of the logarithm of the ratio, of fitted figures, each publisher weighing the same
    log_error: float

    @property
    def worst(self) -> Judged:
        """The fitted figure that was missed by most."""
        return max((row for row in self.rows if row.figure.fitted), key=lambda row: abs(math.log(row.ratio)))

    @property
    def typical_factor(self) -> float:
        """exp(log_error): a prediction is off by this factor or less two times out of three."""
        return math.exp(self.log_error)


class Fit:
    """Parameters fitted to some figures; logarithms."""

    def __init__(self, figures: Sequence[PublishedFigure]) -> None:
        """Solves; takes the figures that are marked as fitted."""
        self._figures = [figure for figure in figures if figure.fitted]
        classes = sorted({load_target(figure.target).architecture for figure in self._figures})
        self._names = [*_SHARES, *(f"{kind}/{name}" for name in classes for kind in (_ARITHMETIC, MEMORY))]
        self._mean = np.array([math.log(_SHARES.get(name, 1.0)) for name in self._names])
        deviation = [_SHARE_DEVIATION if name in _SHARES else _CLASS_DEVIATION for name in self._names]
        self._precision = 1 / np.square(np.array(deviation))
        counts = {f.publisher: sum(g.publisher == f.publisher for g in self._figures) for f in self._figures}
        self._weights = np.array([1 / math.sqrt(counts[f.publisher]) / _FIGURE_DEVIATION**2 for f in self._figures])
        self._values = self._solve()

    def efficiency(self, architecture: str, log_error: float = 0.0) -> Efficiency:
        """Of a class of devices; one that the fit has not seen gets what the others have in common."""
        seen = {f.publisher for f in self._figures if load_target(f.target).architecture == architecture}
        return self._shares(self._values, architecture, log_error, tuple(sorted(seen)))

    def predicted_s(self, figure: PublishedFigure) -> float:
        """Time of a figure's work."""
        target = load_target(figure.target)
        return predict(_work(figure), target, self.efficiency(target.architecture)).time_s

    def _shares(self, values: Any, architecture: str, log_error: float, sources: tuple[str, ...]) -> Efficiency:
        found = dict(zip(self._names, values))
        arithmetic = found.get(f"{_ARITHMETIC}/{architecture}", 0.0)
        memory = found.get(f"{MEMORY}/{architecture}", 0.0)
        share = {name: math.exp(found[name] + (memory if name == MEMORY else arithmetic)) for name in _SHARES}
        return Efficiency(**share, log_error=log_error, sources=sources)

    def _residuals(self, values: Any) -> Any:
        errors = []
        for figure in self._figures:
            target = load_target(figure.target)
            efficiency = self._shares(values, target.architecture, 0.0, ())
            errors.append(math.log(predict(_work(figure), target, efficiency).time_s / figure.seconds))
        return np.array(errors)

    def _solve(self) -> Any:
        """Gauss-Newton with the prior; the residuals are close to linear in the logarithms."""
        values = self._mean.copy()
        for _ in range(_STEPS):
            residuals = self._residuals(values)
            jacobian = np.empty((len(residuals), len(values)))
            for index in range(len(values)):
                moved = values.copy()
                moved[index] += 1e-4
                jacobian[:, index] = (self._residuals(moved) - residuals) / 1e-4
            weighted = jacobian.T * self._weights
            step = np.linalg.solve(
                weighted @ jacobian + np.diag(self._precision),
                weighted @ residuals + self._precision * (values - self._mean),
            )
            values = values - step
            if np.abs(step).max() < _SETTLED:
                break
        return values


@functools.lru_cache(maxsize=64)
def _work(figure: PublishedFigure) -> Work:
    return figure.work()


@functools.lru_cache(maxsize=1)
def judge() -> Judgement:
    """Every figure against the fit to all, and against the fit that has not seen its publisher."""
    figures = published_figures()
    whole, rows = Fit(figures), []
    partial = {p: Fit([f for f in figures if f.publisher != p]) for p in sorted({f.publisher for f in figures})}
    for figure in figures:
        target = load_target(figure.target)
        time = predict(_work(figure), target, whole.efficiency(target.architecture))
        rows.append(Judged(figure, time.time_s, partial[figure.publisher].predicted_s(figure), time.bound))
    by_publisher: dict[str, list[float]] = {}
    for row in rows:
        if row.figure.fitted:
            by_publisher.setdefault(row.figure.publisher, []).append(math.log(row.ratio) ** 2)
    mean = sum(sum(errors) / len(errors) for errors in by_publisher.values()) / len(by_publisher)
    return Judgement(tuple(rows), math.sqrt(mean))


@functools.lru_cache(maxsize=16)
def efficiency_of(architecture: str) -> Efficiency:
    """What published software reaches on a class of devices, with the error that `judge` found.

    A class of which no arithmetic was published borrows from the others and is trusted less.
    """
    fit = Fit(published_figures())
    spread = judge().log_error
    if not _has_arithmetic(architecture):
        spread = math.hypot(spread, _CLASS_DEVIATION)
    return fit.efficiency(architecture, spread)


def _has_arithmetic(architecture: str) -> bool:
    """Whether a figure of the class is about arithmetic; decoding is about memory alone."""
    return any(
        figure.fitted and figure.computed != "decode" and load_target(figure.target).architecture == architecture
        for figure in published_figures()
    )


def borrowed(architecture: str) -> Optional[str]:
    """What a plan must say of a class without published arithmetic; None for one that has it."""
    if _has_arithmetic(architecture):
        return None
    return (
        f"no policy time of the class {architecture!r} is published: its share of nominal rates is that of the others"
    )
