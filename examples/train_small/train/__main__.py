"""Trains the small model on recordings, and writes it as a checkpoint in the hub's layout.

    python -m examples.train_small.train --data road --held-out road-held-out --work work --out checkpoint

Interrupted and started again with the same settings, it goes on from what was saved last in --work. Without --limit-s
and on a CPU the result is the same as without the interruption.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from examples.train_small.data.dataset import read_shards
from examples.train_small.train.loop import LoopSettings
from examples.train_small.train.session import Session, Sizes
from motedge.errors import MotedgeError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = _parser().parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.set_num_threads(options.threads)
    shared = {"seed": options.seed, "save_every_s": options.save_every_s, "log_every": options.log_every}
    vae = LoopSettings(options.vae_steps, options.vae_rate, limit_s=options.vae_limit_s, weight_decay=0.0, **shared)
    towers = LoopSettings(options.steps, options.rate, limit_s=options.limit_s, **shared)
    try:
        session = Session(
            work=options.work,
            train=read_shards(options.data),
            held_out=read_shards(options.held_out),
            vae=vae,
            towers=towers,
            sizes=Sizes(options.vae_batch, options.batch, options.every),
            device=torch.device(options.device),
        )
        session.run()
        report = session.write(options.out)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, words in (
        ("data", "recordings to train on"),
        ("held-out", "recordings of other roads, to look at errors"),
        ("work", "folder of states"),
        ("out", "folder of the checkpoint; must not exist"),
    ):
        parser.add_argument(f"--{name}", required=True, type=Path, help=words)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--vae-rate", type=float, default=2e-3)
    parser.add_argument("--vae-batch", type=int, default=32, help="clips of 5 frames; of 17 a quarter as many")
    parser.add_argument("--vae-limit-s", type=float)
    parser.add_argument("--steps", type=int, default=20000, help="of the towers")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--limit-s", type=float, help="of the towers")
    parser.add_argument("--every", type=int, default=2, help="of the clips at each frame, every so many")
    parser.add_argument("--save-every-s", type=float, default=60.0)
    parser.add_argument("--log-every", type=int, default=100)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
