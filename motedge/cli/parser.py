"""The argument parser of every verb: `-v` everywhere, no abbreviations, and "did you mean" for what it doesn't know."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from motedge.errors import EXIT_USAGE

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_INVALID_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)", re.DOTALL)
# difflib ratio below which a guess confuses more than it helps
_NEAR = 0.6


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose subparsers are of the same kind.

    Options can't be abbreviated: a script's `--st` would change its meaning with the next option that starts so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        # SUPPRESS: a verb's parser must not reset what was given before the verb
        self.add_argument(
            "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="log more, show tracebacks"
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses, and refuses unknown arguments here, where the verb and its options are known."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._near_options(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, with the nearest spelling of a wrong choice; exits with 2."""
        found = _INVALID_CHOICE.search(message)
        if found:
            message += _did_you_mean(found.group(1), re.findall(r"[\w.-]+", found.group(2)))
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"motedge: error: {message}\n")

    def _near_options(self, unknown: Sequence[str]) -> str:
        known = set(_OPTION.findall(self.format_help()))
        wrong = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
        return "".join(_did_you_mean(argument, sorted(known)) for argument in wrong)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
    return f"; did you mean {near[0]!r}?" if near else ""
