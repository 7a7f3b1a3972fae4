"""Takes one moment out of a LeRobot dataset of DROID and writes it as an observation folder.

    python examples/lerobot_frame.py EPISODE_DIR --frame 120 --instruction "Put the marker in the cup" --out frame
    motedge run BUNDLE --observation frame --plot actions.png

Needs pyarrow and av: pip install "motedge[quant]".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motedge.errors import DataError, MotedgeError
from motedge.quant.datasets.dataset import Moment
from motedge.quant.datasets.lerobot import LeRobotDataset
from motedge.runtime.policy.observation_folder import write_observation


def main() -> int:
    """Writes the folder; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="EPISODE_DIR", help="folder with data/ and videos/")
    parser.add_argument("--episode", default="0", metavar="N", help="episode of the dataset (default 0)")
    parser.add_argument("--frame", type=int, default=0, metavar="K", help="row of the episode, from 0")
    parser.add_argument("--instruction", help="what to do; needed where the dataset's own task text is empty")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    try:
        print(extract(args.dataset, args.episode, args.frame, args.instruction, args.out))
    except MotedgeError as error:
        print(f"lerobot_frame: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def extract(root: Path, episode: str, frame: int, instruction: str | None, out: Path) -> str:
    """Writes the observation of row `frame` of an episode; returns a line about it."""
    dataset = LeRobotDataset(root, instruction)
    moment = Moment(episode, frame)
    moments = dataset.moments()
    if moment not in moments:
        last = max((m.index for m in moments if m.group == episode), default=None)
        expected = "another episode" if last is None else f"0 to {last}"
        raise DataError("the episode has no such frame", expected=expected, got=f"{episode}, {frame}")
    path = write_observation(out, dataset.observation(moment))
    return f"{path}: {'; '.join(dataset.notes) or 'nothing missing'}"


if __name__ == "__main__":
    sys.exit(main())
