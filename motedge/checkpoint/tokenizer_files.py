"""The prompt's tokenizer: the files of text_tokenizer/ and the special tokens that the prompt packer needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motedge.errors import CheckpointError

FOLDER = "text_tokenizer"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
VISION_START = "<|vision_start|>"


def tokenizer_files(root: Path) -> dict[str, Path]:
    """Name -> path of the files that turn a prompt into tokens.

    Raises:
        CheckpointError: the folder or one of the files is missing.
    """
    folder = root / FOLDER
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"the checkpoint has no complete tokenizer: {folder}",
            expected=", ".join(FILES),
            got=f"no {', '.join(missing)}" if folder.is_dir() else "no such folder",
            why="the instruction can't be turned into tokens without it",
            fix="fetch the checkpoint again with its text_tokenizer/ folder",
        )
    return {name: folder / name for name in FILES}


def special_tokens(root: Path) -> dict[str, int]:
    """Ids of "eos" and "vision_start", which the packer appends to every prompt, and of "pad".

    Raises:
        CheckpointError: a file is missing or damaged, or the tokenizer lacks one of the tokens.
    """
    files = tokenizer_files(root)
    try:
        tokenizer: dict[str, Any] = json.loads(files["tokenizer.json"].read_text(encoding="utf-8"))
        settings: dict[str, Any] = json.loads(files["tokenizer_config.json"].read_text(encoding="utf-8"))
        ids: dict[str, int] = dict(tokenizer["model"]["vocab"])
        ids.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
        eos = _content(settings["eos_token"])
        pad = _content(settings.get("pad_token") or settings["eos_token"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the tokenizer can't be read: {root / FOLDER}",
            got=f"{type(error).__name__}: {error}",
            fix="fetch the checkpoint again",
        ) from error
    wanted = {"eos": eos, "vision_start": VISION_START, "pad": pad}
    missing = sorted({token for token in wanted.values() if token not in ids})
    if missing:
        raise CheckpointError(
            "the tokenizer lacks special tokens of the prompt",
            expected=", ".join(wanted.values()),
            got=f"no {', '.join(missing)}",
            fix="take the text_tokenizer/ that belongs to the checkpoint",
        )
    return {name: ids[token] for name, token in wanted.items()}


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
