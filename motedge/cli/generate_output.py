"""Where the results of `motedge generate` go: a file's extension says what is written into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import MissingPackageError, UsageError
from motedge.files import atomic_path, require_writable, write_json
from motedge.media.audio import add_sound, write_wav
from motedge.media.image import FORMATS, write_image
from motedge.media.packages import require_av, require_pillow
from motedge.media.video import write_video

if TYPE_CHECKING:
    from motedge.runtime.generate import Generated, GenerateRequest, Generator
    from motedge.runtime.reasoned.reasoning import Reasoning

SCHEMA = "motedge.generated/v1"
VIDEO, SOUND, DOCUMENT, TABLE = (".mp4",), (".wav",), (".json",), (".parquet",)
_GENERATES_ACTIONS = ("inverse_dynamics", "policy")


def check_outputs(mode: str, targets: Sequence[Path], *, sound: bool = False, preview: bool = False) -> None:
    """Refuses files that the mode has nothing for, or that can't be written, before the long part.

    `sound`, `preview`: whether they were asked for.

    Raises:
        UsageError: an unknown extension, a picture of a video, a video of a picture, actions where there are none, a
            folder where a file is to be.
        HostError: the folder is not writable.
        MissingPackageError: what writes them is not installed.
    """
    if preview:
        require_pillow("to write previews")
    for target in targets:
        suffix = target.suffix.lower()
        if suffix not in (*VIDEO, *FORMATS, *SOUND, *DOCUMENT, *TABLE):
            expected = ", ".join((*VIDEO, *FORMATS, *SOUND, *DOCUMENT, *TABLE))
            raise UsageError("--out: unknown kind of file", expected=expected, got=target.name)
        if suffix in SOUND and not sound:
            raise UsageError("no sound is asked for", got=target.name, fix="add --sound, or leave the file out")
        problem = None
        if suffix in VIDEO and mode in ("text2image", "inverse_dynamics"):
            problem = "a picture, not a video", ".png" if mode == "text2image" else ".json or .parquet"
        elif suffix in FORMATS and mode != "text2image":
            problem = "no single picture", ".json or .parquet" if mode == "inverse_dynamics" else ".mp4"
        elif suffix in TABLE and mode not in _GENERATES_ACTIONS:
            problem = "no actions", ".png" if mode == "text2image" else ".mp4"
        if problem is not None:
            made = "actions alone" if mode == "inverse_dynamics" else problem[0]
            raise UsageError(f"mode {mode!r} makes {made}", expected=problem[1], got=target.name)
        _require_writer(suffix)
        require_writable(target)


def _require_writer(suffix: str) -> None:
    if suffix in VIDEO:
        require_av("to write videos")
    elif suffix in FORMATS:
        require_pillow("to write pictures")
    elif suffix in TABLE:
        _parquet()


def needs_pictures(targets: Sequence[Path]) -> bool:
    """Whether anything has to be decoded."""
    return any(target.suffix.lower() in (*VIDEO, *FORMATS) for target in targets)


def write_outputs(
    generator: Generator,
    request: GenerateRequest,
    made: Generated,
    targets: Sequence[Path],
    reasoning: Optional[Reasoning] = None,
) -> dict[str, Any]:
    """Writes every file, each whole or not at all; returns the JSON document of the result, `reasoning` included."""
    document = to_document(request, made)
    if reasoning is not None:
        document["reasoning"] = reasoning.to_dict()
    for target in targets:
        suffix = target.suffix.lower()
        if suffix in VIDEO:
            _write_video(generator, made, target)
        elif suffix in SOUND and made.sound is not None:
            write_wav(target, *generator.waveform(made.sound))
        elif suffix in FORMATS:
            write_image(target, next(generator.frames(made.latents))[0])
        elif suffix in DOCUMENT:
            write_json(target, document)
        else:
            _write_table(target, made)
    return document


def _write_video(generator: Generator, made: Generated, target: Path) -> None:
    """The pictures, and the sound where there is one."""
    with atomic_path(target) as partial:
        write_video(partial, generator.frames(made.latents), made.fps)
        if made.sound is not None:
            add_sound(partial, partial, *generator.waveform(made.sound))


def to_document(request: GenerateRequest, made: Generated) -> dict[str, Any]:
    """The JSON form of a result: how it was made, and its actions."""
    settings = {name: value for name, value in dataclasses.asdict(made.settings).items() if value is not None}
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "mode": made.mode,
        "prompt": request.prompt,
        "negative": request.negative,
        "seed": made.seed,
        "frames": made.frames,
        "fps": made.fps,
        "size": {"rows": made.size[0], "columns": made.size[1]},
        "sampler": settings,
        "prompt_tokens": made.prompt_tokens,
        "counters": made.counters.to_dict(),
        "loop_ms": round(made.timings.total_ms, 3),
    }
    if made.sound is not None:
        document["sound_latents"] = made.sound.shape[1]
    if made.actions is not None:
        document["embodiment"] = request.embodiment
        # Raw, or in the model's normalised space
        document["raw_actions"] = made.raw_actions
        document["fields"], document["units"] = list(made.fields), list(made.units)
        document["actions"] = [[float(f"{value:.9g}") for value in row] for row in made.actions.tolist()]
    return document


def _write_table(target: Path, made: Generated) -> None:
    """A column a channel, and the time of each row: that of the frame it leads to."""
    import pyarrow

    if made.actions is None:
        raise UsageError("there are no actions to write", got=target.name)
    count, width = made.actions.shape
    names = made.fields or tuple(f"channel_{index}" for index in range(width))
    columns: dict[str, Any] = {"time_s": [(index + 1) / made.fps for index in range(count)]}
    columns.update({name: made.actions[:, index] for index, name in enumerate(names)})
    with atomic_path(target) as partial:
        _parquet().write_table(pyarrow.table(columns), partial)


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="parquet", purpose="to write parquet files") from error
    return parquet
