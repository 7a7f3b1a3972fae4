"""What a reasoner on a GPU must answer as the CPU does, and the CPU's answers in a file that travels.

    PYTHONPATH=.:tests/support python3 tests/support/reason_reference.py bundle OUT        the tiny bundle that is asked
    PYTHONPATH=.:tests/support python3 tests/support/reason_reference.py answers OUT ANSWERS.npz

Making the bundle needs what exporting needs; the rest runs on Python 3.9.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple
from unittest import mock

import numpy as np
from policy_reference import CUP, observation

from motedge.bundle import Bundle
from motedge.runtime.reasoned.loader import load_reasoned_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoner.clip import Clip
from motedge.runtime.reasoner.events import Finished
from motedge.runtime.reasoner.loader import load_reasoner
from motedge.runtime.reasoner.sampling import Sampler, SamplingOptions
from motedge.runtime.text.codec import TextCodec

# The exact one, which every machine has
VARIANT = "primitive-fp32"
VARIANTS = "primitive-fp32,fused-fp16,primitive17-fp32,primitive17-fp16"
TOKENS, SEED = 24, 3
TEXT = "Put the red cube in the bowl. What next?"
PLANS: Tuple[str, ...] = (
    json.dumps({"plan": ["lift the cup", "put it down"]}),
    json.dumps({"plan": ["open the drawer"]}),
)
NO_PLAN = "I would rather not."


def questions() -> Dict[str, Tuple[Any, ...]]:
    """Name -> text, images, clips."""
    random = np.random.RandomState(7)
    image = random.randint(0, 256, (90, 130, 3)).astype(np.uint8)
    frames = random.randint(0, 256, (5, 64, 96, 3)).astype(np.uint8)
    return {
        "text": (TEXT,),
        "image": (TEXT, [image]),
        "two images": (TEXT, [image, image[::-1].copy()]),
        "video": (TEXT, [], [Clip(frames, (0, 2, 4, 6, 8), 4.0)]),
    }


@contextlib.contextmanager
def written(bundle: Path, text: str, repeat: int = 1) -> Iterator[None]:
    """The reasoner chooses the tokens of a text, so many times over, one a forward, whatever its logits say."""
    opened = Bundle.open(bundle)
    tokens = TextCodec.read(opened.path("tokenizer")).encode(text).tolist() * repeat
    with forced([*tokens, opened.manifest.model["special_tokens"]["eos"]]):
        yield


@contextlib.contextmanager
def forced(tokens: List[int]) -> Iterator[None]:
    """Likewise for tokens."""

    def choose(sampler: Sampler, logits: Any) -> int:
        said = sampler.__dict__.setdefault("said", [])
        said.append(0)
        return int(tokens[len(said) - 1])

    with mock.patch.object(Sampler, "next", choose):
        yield


class Recorded:
    """The tower of a reasoner, with the logits of each step."""

    def __init__(self, und: Any) -> None:
        self._und, self.logits = und, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._und, name)

    def step(self, *arguments: Any) -> Any:
        """See `motedge.runtime.reasoner.ports.UndStep.step`."""
        logits = self._und.step(*arguments)
        self.logits.append(np.array(logits))
        return logits


def answer(reasoner: Any, asked: Tuple[Any, ...], tokens: int = TOKENS) -> Tuple[Finished, List[Any]]:
    """The greedy reply, and the logits from which each of its tokens was chosen."""
    und = reasoner._reasoner._und
    recorded = reasoner._reasoner._und = Recorded(und)
    stop = reasoner._reasoner._stop_tokens
    # Random weights may end a reply at once
    reasoner._reasoner._stop_tokens = frozenset()
    try:
        done = list(reasoner.ask(*asked, options=SamplingOptions(max_new_tokens=tokens)))[-1]
    finally:
        reasoner._reasoner._und, reasoner._reasoner._stop_tokens = und, stop
    return done, recorded.logits[-len(done.token_ids) :]


def margin(logits: Any) -> float:
    """How far the likeliest token is ahead of the next, in standard deviations of all."""
    second, first = np.partition(logits, -2)[-2:]
    return float((first - second) / np.std(logits))


def chunk(policy: Any, seed: int = SEED) -> Any:
    """One tick of a policy that reasons."""
    return policy.act(observation(CUP), seed=seed)


def make_reference(bundle: Path) -> Dict[str, Any]:
    """Tokens, margins and the first and last logits of each question; actions with each plan and with none."""
    found: Dict[str, Any] = {}
    with load_reasoner(bundle, variant=VARIANT, threads=1, check="size") as reasoner:
        for name, asked in questions().items():
            done, logits = answer(reasoner, asked)
            found[f"{name}: tokens"] = np.array(done.token_ids)
            found[f"{name}: margins"] = np.array([margin(one) for one in logits])
            found[f"{name}: logits"] = np.stack([logits[0], logits[-1]]).astype(np.float32)
    for name, text in (("no plan", NO_PLAN), *((f"plan {n}", plan) for n, plan in enumerate(PLANS))):
        found[f"{name}: actions"] = _planned(bundle, text)
    return found


def _planned(bundle: Path, text: str) -> Any:
    with contextlib.ExitStack() as opened:
        opened.enter_context(written(bundle, text))
        options = {"variant": VARIANT, "threads": 1, "check": "size"}
        return chunk(opened.enter_context(load_reasoned_policy(bundle, ReasonOptions(), **options))).actions


def read_reference(path: Optional[Path], bundle: Path) -> Dict[str, Any]:
    """That of a file, or made here."""
    if path is None:
        return make_reference(bundle)
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def make_bundle(root: Path, variants: Optional[str] = None) -> None:
    """A tiny Edge with a policy and the reasoner, in all variants that a GPU may run."""
    from tiny import MINI_POLICY

    from motedge.checkpoint.make import make_checkpoint
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.variants import parse_variants

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "edge", "edge", "policy-droid", "tiny", seed=7)
        options = ExportOptions(MINI_POLICY, parse_variants(variants or VARIANTS), "none", ("reasoner",))
        export_bundle(Checkpoint.open(checkpoint), root, options)


def main() -> int:
    """Makes the bundle, or the answers."""
    if sys.argv[1] == "bundle":
        make_bundle(Path(sys.argv[2]))
        return 0
    bundle, out = Path(sys.argv[2]), Path(sys.argv[3])
    reference = make_reference(bundle)
    np.savez_compressed(out, **reference)
    margins = {name: round(float(value.min()), 4) for name, value in reference.items() if name.endswith("margins")}
    sys.stdout.write(json.dumps({"smallest margins": margins, "bytes": out.stat().st_size}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
