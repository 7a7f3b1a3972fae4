"""A bundle's tokenizer and chat template as two plain functions: messages to text, text to token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import tokenizers

from motedge.errors import BundleError
from motedge.runtime.engine import IntArray
from motedge.runtime.text.chat import ChatTemplate

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# What a tokenizer_config.json names that templates may use
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TextCodec:
    """Renders conversations and tokenizes text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate) -> None:
        self.tokenizer, self.template = tokenizer, template

    @classmethod
    def read(cls, folder: Path) -> TextCodec:
        """Those of a folder with tokenizer.json, tokenizer_config.json and chat_template.jinja.

        Raises:
            BundleError: a file is missing or damaged.
        """
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise BundleError(
                f"the tokenizer is incomplete: {folder}",
                expected=", ".join(FILES),
                got=f"no {', '.join(missing)}",
                why="the instruction can't be turned into tokens without it",
                fix="export again from a checkpoint with its text_tokenizer/ folder",
            )
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        try:
            settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        # tokenizers raises a bare Exception for a damaged file
        except Exception as error:
            raise BundleError(f"the tokenizer can't be read: {folder}", got=str(error), fix="export again") from error
        return cls(tokenizer, ChatTemplate(template, _special_texts(settings)))

    def render(self, messages: Sequence[Mapping[str, Any]], variables: Optional[Mapping[str, Any]] = None) -> str:
        """The text of a conversation, up to where the assistant speaks.

        Raises:
            BundleError: the template failed, or refused the messages.
        """
        return self.template.render(messages, add_generation_prompt=True, variables=variables)

    def encode(self, text: str) -> IntArray:
        """Token ids, int64 [n]. The template writes its markers itself, so the tokenizer adds none."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def token_id(self, token: str) -> int:
        """The id of a special token.

        Raises:
            BundleError: the tokenizer has none.
        """
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise BundleError(
                "the tokenizer lacks a token", expected=token, why="it is another model's", fix="export again"
            )
        return int(index)


def _special_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    texts = {}
    for name in _SPECIAL_NAMES:
        token = settings.get(name)
        if token is not None:
            texts[name] = str(token["content"] if isinstance(token, dict) else token)
    return texts
