"""A training loop that can be interrupted.

The state is saved whole or not at all, and a step's lots depend on its number alone.

On a GPU the forward and backward pass of a step is captured once as a CUDA graph and replayed: a small model is
otherwise limited by launches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motedge.errors import DataError, UsageError
from motedge.files import atomic_path

Batch = dict[str, Tensor]
_WARM_UP = 0.02


@dataclass(frozen=True)
class LoopSettings:
    """How a part is trained."""

    steps: int
    rate: float
    # Of the averaged weights; in the first steps less, so that the start is forgotten
    ema: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    # Ends earlier, the learning rate falling by the clock; then how far it came depends on the machine
    limit_s: float | None = None
    save_every_s: float = 60.0
    log_every: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.rate < 1 or not 0 <= self.ema < 1 or self.log_every < 1:
            raise UsageError(
                "these settings train nothing",
                expected="at least one step, a rate between 0 and 1, ema from 0 to below 1",
                got=f"steps {self.steps}, rate {self.rate}, ema {self.ema}, log_every {self.log_every}",
            )


class TrainingLoop:
    """Trains one module; `average` holds the averaged weights."""

    def __init__(self, name: str, module: nn.Module, folder: Path, settings: LoopSettings) -> None:
        """Goes on from `folder/NAME.pt` where there is one.

        Raises:
            DataError: it is damaged, or of another module or other settings.
        """
        self.name, self.module, self.settings = name, module, settings
        self.path = folder / f"{name}.pt"
        self.parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
        decayed = [value for value in self.parameters.values() if value.dim() > 1]
        plain = [value for value in self.parameters.values() if value.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))
        self.average = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.step, self.elapsed_s = 0, 0.0
        self.curve: list[dict[str, float]] = []
        if self.path.is_file():
            self._load()

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.progress >= 1

    @property
    def progress(self) -> float:
        """How far it is, from 0 to 1, by steps or by the clock."""
        limit = self.settings.limit_s
        return max(self.step / self.settings.steps, self.elapsed_s / limit if limit else 0.0)

    def run(
        self,
        draw: Callable[[np.random.Generator], Batch],
        losses: Callable[[Batch], dict[str, Tensor]],
        until: int | None = None,
    ) -> None:
        """Trains to the end, or to step `until`.

        Args:
            draw: a batch by lot, of the same shapes each time, on the module's device.
            losses: "loss", which is minimised, and others that are only shown.

        Raises:
            DataError: the loss became NaN or infinite; what was saved before stays.
        """
        step = _Step(losses, self.parameters, self.optimizer)
        started, saved = time.monotonic() - self.elapsed_s, time.monotonic()
        while not self.done and (until is None or self.step < until):
            self._set_rate()
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            made = step(draw(np.random.default_rng([self.settings.seed, self.step])))
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip)
            self.optimizer.step()
            self._average()
            self.step += 1
            self.elapsed_s = time.monotonic() - started
            if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
                self._log(made)
            if time.monotonic() - saved > self.settings.save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Writes the state beside, then over the last one."""
        state = {
            "settings": asdict(self.settings),
            "module": {key: value.detach().cpu() for key, value in self.parameters.items()},
            "average": {key: value.cpu() for key, value in self.average.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "curve": self.curve,
        }
        with atomic_path(self.path) as partial:
            torch.save(state, partial)

    def _load(self) -> None:
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            before, shapes = state["settings"], {key: value.shape for key, value in state["module"].items()}
        except Exception as error:
            raise DataError(
                f"{self.path} can't be read", got=f"{type(error).__name__}: {error}", fix="remove it and train anew"
            ) from error
        if before != asdict(self.settings) or shapes != {key: value.shape for key, value in self.parameters.items()}:
            raise DataError(
                f"{self.path} is the state of another training",
                expected=asdict(self.settings),
                got=before,
                fix="train with the same settings, or in another folder",
            )
        with torch.no_grad():
            for key, value in self.parameters.items():
                value.copy_(state["module"][key])
                self.average[key].copy_(state["average"][key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s, self.curve = state["step"], state["elapsed_s"], state["curve"]

    def _set_rate(self) -> None:
        done = min(self.progress, 1.0)
        factor = min(1.0, (done + 1e-4) / _WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * max(float(factor), 0.01)

    @torch.no_grad()
    def _average(self) -> None:
        kept = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - kept)

    def _log(self, made: Mapping[str, Tensor]) -> None:
        values = {key: float(value) for key, value in made.items()}
        if not np.isfinite(list(values.values())).all():
            raise DataError(
                f"the training of {self.name} came apart at step {self.step}",
                expected="finite losses",
                got=values,
                fix="a smaller rate; what was saved last is still there",
            )
        self.curve.append({"step": self.step, **values})
        shown = ", ".join(f"{key} {value:.5f}" for key, value in values.items())
        print(
            f"{self.name} {self.step} ({100 * self.progress:.0f} %, {self.elapsed_s:.0f} s): {shown}", file=sys.stderr
        )


class _Step:
    """Losses and gradients of a batch."""

    def __init__(
        self,
        losses: Callable[[Batch], dict[str, Tensor]],
        parameters: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._losses, self._optimizer = losses, optimizer
        self._cuda = next(iter(parameters.values())).is_cuda
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch = {}
        self._made: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Leaves the gradients in the parameters; the losses are overwritten by the next call."""
        if not self._cuda:
            self._optimizer.zero_grad()
            return self._pass(batch)
        if self._graph is None:
            self._capture(batch)
        for key, value in batch.items():
            self._batch[key].copy_(value)
        self._optimizer.zero_grad(set_to_none=False)
        self._graph.replay()
        return self._made

    def _pass(self, batch: Batch) -> dict[str, Tensor]:
        made = self._losses(batch)
        made["loss"].backward()
        return {key: value.detach() for key, value in made.items()}

    def _capture(self, batch: Batch) -> None:
        self._batch = {key: value.clone() for key, value in batch.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._pass(self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=False)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._made = self._pass(self._batch)
