"""From a prompt to the token ids of the reasoner: chat template, tokenizer, and the two tokens that close a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import tokenizers

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.engine import IntArray
from motedge.runtime.text.chat import ChatTemplate
from motedge.runtime.text.codec import TextCodec

FOLDER = "tokenizer"


class PromptTokenizer:
    """Tokenizes prompts as one user message: `template(prompt) + eos + vision_start`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, template: ChatTemplate, *, eos: int, vision_start: int) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._closing = [eos, vision_start]

    @classmethod
    def open(cls, bundle: Bundle) -> PromptTokenizer:
        """The tokenizer of a bundle.

        Raises:
            BundleError: a file or a special token is missing or damaged.
        """
        special = bundle.manifest.model.get("special_tokens") or {}
        missing = [name for name in ("eos", "vision_start") if not isinstance(special.get(name), int)]
        if missing:
            raise BundleError(
                "manifest.json lacks special tokens of the prompt",
                expected="model.special_tokens with eos and vision_start",
                got=f"no {', '.join(missing)}",
                fix="export again",
            )
        return cls.read(bundle.path(FOLDER), eos=special["eos"], vision_start=special["vision_start"])

    @classmethod
    def read(cls, folder: Path, *, eos: int, vision_start: int) -> PromptTokenizer:
        """The tokenizer of a folder with tokenizer.json, tokenizer_config.json and chat_template.jinja.

        Raises:
            BundleError: a file is missing or damaged.
        """
        codec = TextCodec.read(folder)
        return cls(codec.tokenizer, codec.template, eos=eos, vision_start=vision_start)

    def encode(self, prompt: str, system: Optional[str] = None) -> IntArray:
        """Token ids of a prompt, int64 [n], behind a system prompt if there is one.

        The empty prompt is legal: the unconditional branch.
        """
        before = [] if system is None else [{"role": "system", "content": system}]
        text = self._template.render([*before, {"role": "user", "content": prompt}], add_generation_prompt=True)
        # The template writes its markers itself, so the tokenizer must add none
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.array([*ids, *self._closing], np.int64)
