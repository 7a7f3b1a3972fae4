"""Shares of nominal rates that published software reaches, by class of devices, and how far that is to be trusted.

Few figures exist, so few parameters are fitted: the share of 16-bit arithmetic that projections reach and that
attention reaches, the share of narrow arithmetic, the share of bandwidth, and the time that a whole request takes
beside its stages; and for each class of devices one factor on arithmetic and one on bandwidth, which a prior holds near
1. Least squares on the logarithm of predicted over published, weighted so that an origin of many figures does not
outvote the others (docs/decisions/0008-efficiency-by-class.md).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from motedge.targets.catalog import load_target
from motedge.targets.roofline.published import DECODE, REQUEST, PublishedFigure, published_figures
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
# Host work and a plain encoder of published programs: tens of milliseconds, known within a factor of two
_REQUEST, _REQUEST_S, _REQUEST_DEVIATION = "request", 0.05, 0.7


@dataclass(frozen=True)
class Judged:
    """One figure beside its predictions."""

    figure: PublishedFigure
    # By the fit to all figures; by one that saw none of this origin's; by one that saw none of this class of devices; s
    predicted_s: float
    unseen_s: float
    unseen_class_s: float
    # "compute" or "memory"
    bound: str

    @property
    def ratio(self) -> float:
        """Prediction of the fit that had not seen its origin over what was published."""
        return self.unseen_s / self.figure.seconds

    @property
    def class_ratio(self) -> float:
        """The same of the fit that had not seen its class of devices."""
        return self.unseen_class_s / self.figure.seconds

    @property
    def counts(self) -> bool:
        """Whether the errors are made of it: fitted, and not of decoding, which memory alone makes easy to predict."""
        return self.figure.fitted and self.figure.computed != DECODE


@dataclass(frozen=True)
class Judgement:
    """All figures, and the error of predicting what was left out."""

    rows: tuple[Judged, ...]

    @property
    def log_error(self) -> float:
        """Root mean square of the ratio's logarithm over what counts, each origin weighing the same."""
        return _spread((row.figure.origin, row.ratio) for row in self.rows if row.counts)

    @property
    def class_log_error(self) -> float:
        """The same for a class of devices of which the fit saw nothing, each class weighing the same."""
        return _spread((_class(row.figure), row.class_ratio) for row in self.rows if row.counts)

    @property
    def worst(self) -> Judged:
        """The fitted figure that was missed by most."""
        return max((row for row in self.rows if row.figure.fitted), key=lambda row: abs(math.log(row.ratio)))

    @property
    def typical_factor(self) -> float:
        """exp(log_error): about two predictions of three are off by this factor or less."""
        return math.exp(self.log_error)

    def mean_factor(self, everything: bool = False) -> float:
        """Geometric mean of how far fitted figures, or all, were missed: 1 is exact; each figure weighs the same."""
        errors = [abs(math.log(row.ratio)) for row in self.rows if everything or row.figure.fitted]
        return math.exp(sum(errors) / len(errors))

    @property
    def within(self) -> float:
        """Share of what counts that lies in the interval that a plan would have printed."""
        factor = Efficiency(1.0, 1.0, 1.0, 1.0, self.log_error, ()).factor
        inside = [abs(math.log(row.ratio)) <= math.log(factor) for row in self.rows if row.counts]
        return sum(inside) / len(inside)


def _spread(ratios: Iterable[tuple[str, float]]) -> float:
    groups: dict[str, list[float]] = {}
    for name, ratio in ratios:
        groups.setdefault(name, []).append(math.log(ratio) ** 2)
    return math.sqrt(sum(sum(errors) / len(errors) for errors in groups.values()) / len(groups))


def _class(figure: PublishedFigure) -> str:
    return load_target(figure.target).architecture


class Fit:
    """Parameters fitted to some figures; logarithms."""

    def __init__(self, figures: Sequence[PublishedFigure]) -> None:
        """Solves; takes the figures that are marked as fitted."""
        self._figures = [figure for figure in figures if figure.fitted]
        classes = sorted({load_target(figure.target).architecture for figure in self._figures})
        self._names = [*_SHARES, _REQUEST, *(f"{kind}/{name}" for name in classes for kind in (_ARITHMETIC, MEMORY))]
        means, deviations = {**_SHARES, _REQUEST: _REQUEST_S}, dict.fromkeys(_SHARES, _SHARE_DEVIATION)
        deviations[_REQUEST] = _REQUEST_DEVIATION
        self._mean = np.array([math.log(means.get(name, 1.0)) for name in self._names])
        deviation = [deviations.get(name, _CLASS_DEVIATION) for name in self._names]
        self._precision = 1 / np.square(np.array(deviation))
        counts = {f.origin: sum(g.origin == f.origin for g in self._figures) for f in self._figures}
        self._weights = np.array([1 / math.sqrt(counts[f.origin]) / _FIGURE_DEVIATION**2 for f in self._figures])
        self._values = self._solve()

    def efficiency(self, architecture: str, log_error: float = 0.0) -> Efficiency:
        """Of a class of devices; one that the fit has not seen gets what the others have in common."""
        seen = {f.origin for f in self._figures if _class(f) == architecture}
        return self._shares(self._values, architecture, log_error, tuple(sorted(seen)))

    def predicted_s(self, figure: PublishedFigure) -> float:
        """Time of a figure's work, and of what a request has beside it."""
        return _time_s(figure, self.efficiency(_class(figure)))

    def _shares(self, values: Any, architecture: str, log_error: float, sources: tuple[str, ...]) -> Efficiency:
        found = dict(zip(self._names, values))
        arithmetic = found.get(f"{_ARITHMETIC}/{architecture}", 0.0)
        memory = found.get(f"{MEMORY}/{architecture}", 0.0)
        share = {name: math.exp(found[name] + (memory if name == MEMORY else arithmetic)) for name in _SHARES}
        return Efficiency(**share, log_error=log_error, sources=sources, request_s=math.exp(found[_REQUEST]))

    def _residuals(self, values: Any) -> Any:
        errors = []
        for figure in self._figures:
            efficiency = self._shares(values, _class(figure), 0.0, ())
            errors.append(math.log(_time_s(figure, efficiency) / figure.seconds))
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


@functools.lru_cache(maxsize=128)
def _work(figure: PublishedFigure) -> Work:
    return figure.work()


def _time_s(figure: PublishedFigure, efficiency: Efficiency) -> float:
    beside = efficiency.request_s if figure.computed == REQUEST else 0.0
    return predict(_work(figure), load_target(figure.target), efficiency).time_s + beside


@functools.lru_cache(maxsize=1)
def judge() -> Judgement:
    """Every figure against the fit to all, and against fits that have not seen its origin, or its class of devices."""
    figures = published_figures()
    whole, rows = Fit(figures), []
    by_origin = {name: Fit([f for f in figures if f.origin != name]) for name in {f.origin for f in figures}}
    by_class = {name: Fit([f for f in figures if _class(f) != name]) for name in {_class(f) for f in figures}}
    for figure in figures:
        rows.append(
            Judged(
                figure,
                whole.predicted_s(figure),
                by_origin[figure.origin].predicted_s(figure),
                by_class[_class(figure)].predicted_s(figure),
                predict(_work(figure), load_target(figure.target), whole.efficiency(_class(figure))).bound,
            )
        )
    return Judgement(tuple(rows))


@functools.lru_cache(maxsize=16)
def efficiency_of(architecture: str) -> Efficiency:
    """What published software reaches on a class of devices, with the error that `judge` found.

    A class of which no arithmetic was published borrows from the others, and has the error of classes left out.
    """
    judgement = judge()
    spread = judgement.log_error
    if not _has_arithmetic(architecture):
        spread = max(spread, judgement.class_log_error)
    return Fit(published_figures()).efficiency(architecture, spread)


def _has_arithmetic(architecture: str) -> bool:
    """Whether a figure of the class is about arithmetic; decoding is about memory alone."""
    return any(
        figure.fitted and figure.computed != DECODE and _class(figure) == architecture for figure in published_figures()
    )


def borrowed(architecture: str) -> Optional[str]:
    """What a plan must say of a class without published arithmetic; None for one that has it."""
    if _has_arithmetic(architecture):
        return None
    return (
        f"no policy time of the class {architecture!r} is published: its share of nominal rates is that of the others"
    )
