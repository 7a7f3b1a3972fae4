"""What every cost is measured on: recorded forwards of real requests, and held-out requests with their results.

A workload is made once, kept as one file, and sent to every worker: numbers then can't depend on who measures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from motedge.errors import UsageError
from motedge.files import PathLike, atomic_path
from motedge.quant.replay import Forward
from motedge.quant.sensitivity.gains import forward_gains
from motedge.runtime.engine import Array, FloatArray
from motedge.runtime.request import GenInputs, SamplerSettings

FORMAT = 1
DEFAULT_FORWARDS = 8


@dataclass(frozen=True)
class RecordedForward:
    """One forward of the unquantized generator."""

    # Number of the request that it belongs to
    request: int
    # int64 [n], the branch's prompt
    tokens: Array
    # Used channels of an action row
    raw_dim: int
    forward: Forward


@dataclass(frozen=True)
class Reference:
    """A held-out request and what the unquantized towers make of it."""

    inputs: GenInputs
    # fp32 [C, T, h, w] and [A, Z], results of the loop
    vision: FloatArray
    action: FloatArray


@dataclass(frozen=True)
class Workload:
    """Everything that workers measure on."""

    settings: SamplerSettings
    forwards: tuple[RecordedForward, ...]
    held_out: tuple[Reference, ...]

    def strata(self) -> dict[str, int]:
        """Forwards by "<step> <branch>"."""
        counts: dict[str, int] = {}
        for entry in self.forwards:
            name = f"{entry.forward.step} {entry.forward.branch}"
            counts[name] = counts.get(name, 0) + 1
        return counts

    def weights(self) -> list[float]:
        """What each forward counts in an error; forwards of one step and branch share its gain. They sum to 1."""
        gains, counts = forward_gains(self.settings), self.strata()
        own = [
            gains[entry.forward.step, entry.forward.branch] / counts[f"{entry.forward.step} {entry.forward.branch}"]
            for entry in self.forwards
        ]
        return [value / sum(own) for value in own]

    def save(self, path: PathLike) -> None:
        """Writes one .npz; arrays that several forwards share are held once."""
        pool = _Pool()
        meta = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "forwards": [
                {
                    "request": entry.request,
                    "raw_dim": entry.raw_dim,
                    "tokens": pool.put(entry.tokens),
                    "step": entry.forward.step,
                    "branch": entry.forward.branch,
                    "inputs": pool.put_all(entry.forward.inputs),
                    "outputs": pool.put_all(entry.forward.outputs),
                }
                for entry in self.forwards
            ],
            "held_out": [
                {
                    "inputs": _request(entry.inputs, pool),
                    "vision": pool.put(entry.vision),
                    "action": pool.put(entry.action),
                }
                for entry in self.held_out
            ],
        }
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        with atomic_path(path) as partial, open(partial, "wb") as stream:
            np.savez(stream, **{"meta": text, **pool.arrays})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: PathLike) -> Workload:
        """Reads what `save` wrote.

        Raises:
            UsageError: another version wrote it.
        """
        with np.load(path, allow_pickle=False) as stored:
            meta = json.loads(stored["meta"].tobytes().decode())
            arrays = {name: stored[name] for name in stored.files if name != "meta"}
        if meta["format"] != FORMAT:
            raise UsageError(f"another version of motedge wrote {path}", fix="give another --out folder")
        settings = SamplerSettings(**meta["settings"])
        forwards = tuple(_forward(entry, arrays) for entry in meta["forwards"])
        held_out = tuple(
            Reference(_inputs(entry["inputs"], arrays), arrays[entry["vision"]], arrays[entry["action"]])
            for entry in meta["held_out"]
        )
        return cls(settings, forwards, held_out)


def choose_forwards(
    loops: Sequence[Sequence[Forward]], wanted: int | None, settings: SamplerSettings
) -> list[tuple[int, int]]:
    """Picks forwards so that every step and branch is there, those that count most more often; requests take turns.

    Args:
        loops: by request, the forwards of its loop; every loop has the same steps and branches.
        wanted: how many; None: 8, or as many as there are steps and branches.
        settings: of the loops.

    Returns:
        (request, number of the forward in its loop), each once.

    Raises:
        UsageError: fewer than there are steps and branches.
    """
    strata = len(loops[0])
    check_forwards(wanted, strata)
    count = max(DEFAULT_FORWARDS, strata) if wanted is None else wanted
    gains = forward_gains(settings)
    own = [gains[forward.step, forward.branch] for forward in loops[0]]
    counts = [1] * strata
    for _ in range(min(count, strata * len(loops)) - strata):
        # One more where the share of the whole that hangs on one forward is largest
        most = max((n for n in range(strata) if counts[n] < len(loops)), key=lambda n: own[n] / counts[n])
        counts[most] += 1
    chosen: list[tuple[int, int]] = []
    for stratum, turns in enumerate(counts):
        start = len(chosen)
        chosen += [((start + turn) % len(loops), stratum) for turn in range(turns)]
    return chosen


def check_forwards(wanted: int | None, strata: int) -> None:
    """Raises UsageError if that many forwards can't hold one of each denoising step and branch."""
    if wanted is not None and wanted < strata:
        raise UsageError(
            "too few forwards to measure on",
            expected=f"at least {strata}: one for each denoising step and branch",
            got=wanted,
            fix=f"--forwards {strata}",
        )


class _Pool:
    """Arrays by the hash of their content."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def put(self, value: Array) -> str:
        value = np.ascontiguousarray(value)
        digest = hashlib.sha256(f"{value.dtype} {value.shape}".encode())
        digest.update(value.tobytes())
        name = f"a{digest.hexdigest()[:24]}"
        self.arrays.setdefault(name, value)
        return name

    def put_all(self, values: Any) -> dict[str, str]:
        return {name: self.put(value) for name, value in values.items()}


def _forward(entry: dict[str, Any], arrays: dict[str, Array]) -> RecordedForward:
    inputs = {name: arrays[key] for name, key in entry["inputs"].items()}
    outputs = {name: arrays[key] for name, key in entry["outputs"].items()}
    forward = Forward(entry["step"], entry["branch"], inputs, outputs)
    return RecordedForward(entry["request"], arrays[entry["tokens"]], entry["raw_dim"], forward)


def _request(inputs: GenInputs, pool: _Pool) -> dict[str, Any]:
    """Fields of a request: arrays as {"array": name}, numbers as they are."""
    values = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {
        name: {"array": pool.put(value)} if isinstance(value, np.ndarray) else value for name, value in values.items()
    }


def _inputs(entry: dict[str, Any], arrays: dict[str, Array]) -> GenInputs:
    values: dict[str, Any] = {
        name: arrays[value["array"]] if isinstance(value, dict) else value for name, value in entry.items()
    }
    return GenInputs(**values)
