"""The text that the policy is given: the instruction, and how the clip was made. Byte for byte as it was trained.

Two forms exist: JSON, which the released policies were trained with, and plain sentences. Both as cosmos-framework at
5eee9ed makes them for the DROID policy, whose odd places are kept: the duration is truncated, the end of the time
range rounded half to even, and the plain form puts ". " after "!" and "?".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from motedge.errors import UsageError, closest

FORMATS = ("json", "plain")
_FRAMING = (
    "This video contains concatenated views from multiple camera perspectives. "
    "The top row is from the wrist-mounted camera. "
    "The bottom row contains two horizontally concatenated third-person perspective views of the scene from opposite "
    "sides, with the robot visible."
)
# Columns x rows of the canvases that the models were trained with, by nominal ratio; transposed ones likewise
_CANVASES = {
    "4,3": ((320, 256), (736, 544), (1088, 832), (1104, 832), (1184, 880), (1664, 1248)),
    "16,9": ((320, 192), (832, 480), (1280, 704), (1280, 720), (1360, 768), (1920, 1080)),
    "3,2": ((768, 512),),
}


@dataclass(frozen=True)
class Clip:
    """The clip that the policy imagines, as far as the prompt tells."""

    # Pixel frames, the current one included
    frames: int
    # Frames a second
    fps: float
    # Rows and columns of the padded canvas, in pixels
    canvas: tuple[int, int]

    @property
    def duration_s(self) -> float:
        """Length in seconds, 33 frames at 15 Hz being 2.2."""
        return self.frames / self.fps


def build_prompt(instruction: str, clip: Clip, prompt_format: str = "json") -> str:
    """The prompt of one instruction, "json" or "plain". The empty instruction (unconditional branch) stays empty.

    Raises:
        UsageError: an unknown format.
    """
    if prompt_format not in FORMATS:
        raise UsageError(f"unknown prompt format {prompt_format!r}", fix=closest(prompt_format, FORMATS))
    if not instruction:
        return ""
    return _json_prompt(instruction, clip) if prompt_format == "json" else _plain_prompt(instruction, clip)


def _json_prompt(instruction: str, clip: Clip) -> str:
    rows, columns = clip.canvas
    minutes, seconds = divmod(round(clip.duration_s), 60)
    description = instruction.strip()
    if not description.endswith((".", "!", "?")):
        description += "."
    prompt = {
        "cinematography": {"framing": _FRAMING},
        "actions": [{"time": f"0:00-{minutes}:{seconds:02d}", "description": description}],
        "duration": f"{int(clip.duration_s)}s",
        "fps": float(clip.fps),
        "resolution": {"H": rows, "W": columns},
        "aspect_ratio": _aspect_ratio(columns, rows),
    }
    return json.dumps(prompt)


def _plain_prompt(instruction: str, clip: Clip) -> str:
    text = instruction.rstrip()
    sentences = (
        _FRAMING,
        f"The video is {int(clip.duration_s):.1f} seconds long and is of {clip.fps:.0f} FPS.",
        f"This video is of {clip.canvas[0]}x{clip.canvas[1]} resolution.",
    )
    for sentence in sentences:
        text += (" " if text.endswith(".") else ". ") + sentence
    return text


def _aspect_ratio(columns: int, rows: int) -> str:
    for ratio, canvases in _CANVASES.items():
        if (columns, rows) in canvases:
            return ratio
        if (rows, columns) in canvases:
            return ",".join(reversed(ratio.split(",")))
    divisor = math.gcd(columns, rows)
    return f"{columns // divisor},{rows // divisor}"
