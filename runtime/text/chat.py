"""The chat template around a prompt: the checkpoint's own chat_template.jinja, rendered as transformers renders it.

The template is a program that comes with the weights, so it runs in jinja2's sandbox and can neither change what it is
given nor reach Python's internals.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from motedge.errors import BundleError


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compiles.

        Args:
            source: Text of chat_template.jinja.
            special_tokens: Name (bos_token, eos_token, ...) -> text, variables of the template.

        Raises:
            BundleError: the template is not valid jinja2.
        """
        self._special_tokens = dict(special_tokens)
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise BundleError(
                "the chat template is not valid", got=str(error), fix="take the checkpoint's chat_template.jinja"
            ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Optional[Mapping[str, Any]] = None,
    ) -> str:
        """The text of a conversation. `variables` (enable_thinking, ...) left out stay at the template's defaults.

        Raises:
            BundleError: the template failed, or refused the messages.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{**self._special_tokens, **(variables or {})},
            )
        # A template is a program: whatever it raises is the template's failure
        except Exception as error:
            raise BundleError(
                "the chat template failed",
                got=f"{type(error).__name__}: {error}",
                fix="take the checkpoint's chat_template.jinja",
            ) from error


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}` marks the assistant's words for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 -- jinja2's own interface

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's own filter: no HTML escapes, for this text goes to a model."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
