"""Takes one moment out of a LeRobot v3 dataset of DROID and writes it as an observation folder.

    python examples/lerobot_frame.py EPISODE_DIR --frame 120 --instruction "Put the marker in the cup" --out frame
    motedge run BUNDLE --observation frame --plot actions.png

Needs pyarrow and av. The files decide which cameras there are, not meta/info.json, which may name more of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from franka_arm import flange_pose, follow_pose, pose_from_xyz_rpy

from motedge.errors import MotedgeError, ObservationError
from motedge.runtime.policy.observation_folder import write_observation

# The dataset's cameras by their place in the policy's picture; exterior_image_2_left is the left eye of the camera
# over the right shoulder
CAMERAS = {
    "wrist": "observation.image.wrist_image_left",
    "left": "observation.image.exterior_image_1_left",
    "right": "observation.image.exterior_image_2_left",
}
# Columns of the state, as DROID's LeRobot conversion names them
JOINTS, GRIPPER = "observation.state.joint_positions", "observation.state.gripper_position"
POSE, GRIPPER_COMMAND = "observation.state.cartesian_position", "action.gripper_position"


def main() -> int:
    """Writes the folder; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("episode", type=Path, metavar="EPISODE_DIR", help="folder with data/ and videos/")
    parser.add_argument("--frame", type=int, default=0, metavar="K", help="row of the episode, from 0")
    parser.add_argument("--instruction", help="what to do; needed where the dataset's own task text is empty")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    args = parser.parse_args()
    try:
        print(extract(args.episode, args.frame, args.instruction, args.out))
    except MotedgeError as error:
        print(f"lerobot_frame: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def extract(episode: Path, frame: int, instruction: str | None, out: Path) -> str:
    """Writes the observation of row `frame`; returns one line about it."""
    files = sorted((episode / "data").rglob("*.parquet"))
    if not files:
        raise ObservationError(f"{episode} holds no episode", expected="data/chunk-*/file-*.parquet")
    table = pa.concat_tables([pq.read_table(file) for file in files])
    if not 0 <= frame < table.num_rows:
        raise ObservationError("the episode has no such frame", expected=f"0 to {table.num_rows - 1}", got=frame)
    row = table.slice(frame, 1).to_pylist()[0]
    joints, joint_note = joint_state(table, frame)
    gripper, gripper_note = gripper_state(table, frame)
    views = {}
    for name, folder in CAMERAS.items():
        videos = sorted((episode / "videos" / folder).rglob("*.mp4"))
        if videos:
            views[name] = read_frame(videos[0], float(row["timestamp"]))
    notes = "".join(f"; {note}" for note in (joint_note, gripper_note) if note)
    path = write_observation(
        out,
        views=views,
        joint_position=joints,
        gripper_position=gripper,
        instruction=instruction or read_task(episode, row),
        source=f"LeRobot dataset {episode.name}, frame {frame}{notes}",
    )
    missing = ", ".join(name for name in CAMERAS if name not in views) or "none"
    return f"{path}: {', '.join(views)}; missing views: {missing}{notes}"


def joint_state(table: pa.Table, frame: int) -> tuple[np.ndarray, str]:
    """Joint angles [7] in rad of a row, and a note where they are not simply the recorded ones.

    Some conversions have spread the seven angles of row 0 over the first seven rows and filled the rest with the last
    of them. The measured pose of the flange tells: it fits those seven angles. Later angles are then solved from the
    poses, row by row from the recorded start.
    """
    column = _column(table, JOINTS)
    if column.ndim == 2:
        return column[frame], ""
    start, poses = column[:7], _column(table, POSE)
    spread = column.size > 7 and (column[7:] == column[6]).all()
    if not spread or np.abs(flange_pose(start) - pose_from_xyz_rpy(poses[0])).max() > 1e-4:
        raise ObservationError("the dataset has no joint state", expected=f"7 numbers a row in {JOINTS}")
    joints = start
    try:
        for pose in poses[1 : frame + 1]:
            joints = follow_pose(joints, pose_from_xyz_rpy(pose))
    except ValueError as error:
        raise ObservationError("the joint state can't be solved from the poses", got=str(error)) from error
    return joints, "joint angles solved from the measured poses" if frame else ""


def gripper_state(table: pa.Table, frame: int) -> tuple[float, str]:
    """Fraction closed in a row, and a note where it is the last command instead of a measurement."""
    measured = _column(table, GRIPPER).reshape(table.num_rows)
    commanded = _column(table, GRIPPER_COMMAND).reshape(table.num_rows)
    if np.ptp(measured) == 0 and np.ptp(commanded) > 0:
        return float(commanded[max(frame - 1, 0)]), "gripper as last commanded, its measurement never moves"
    return float(measured[frame]), ""


def _column(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        raise ObservationError(f"the dataset has no column {name}", got=", ".join(table.column_names))
    return np.array(table[name].to_pylist(), dtype=np.float64)


def read_frame(video: Path, time_s: float) -> np.ndarray:
    """The last picture at or before `time_s`, uint8 RGB [rows, columns, 3]."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate)
        # Half a frame of slack: timestamps of the table and of the video are rounded differently
        latest = time_s + 0.5 / rate
        container.seek(int(time_s / stream.time_base), stream=stream, backward=True)
        found = None
        for picture in container.decode(stream):
            if picture.time is None or (picture.time > latest and found is not None):
                break
            found = picture
        if found is None:
            raise ObservationError(f"{video.name} has no picture at {time_s:.2f} s")
        return found.to_ndarray(format="rgb24")


def read_task(episode: Path, row: dict[str, Any]) -> str:
    """The task text of a row, where the dataset has one."""
    path = episode / "meta" / "tasks.parquet"
    text = ""
    if path.is_file():
        for task in pq.read_table(path).to_pylist():
            if task.get("task_index") == row.get("task_index"):
                text = next((value for value in task.values() if isinstance(value, str)), "")
    # DROID joins up to three annotations with bars; without any, only the bars are there
    if not text.strip(" |"):
        raise ObservationError("the dataset has no task text for this frame", fix="give --instruction TEXT")
    return text


if __name__ == "__main__":
    sys.exit(main())
