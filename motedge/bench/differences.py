"""What two JSON values differ in, told briefly: the parts that are not the same, with what each was and is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

# Parts that are told, and names of a list's
_MOST, _NAMES = 6, 4
# Letters of a value, and of what both values begin with
_WIDEST, _LEAD = 72, 12
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Difference:
    """One part."""

    # "options repeat"
    name: str
    before: str
    now: str


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """All of them; of mappings and of lists of named entries only the parts that are not the same.

    Args:
        before, now: as JSON gives them.
    """
    return [Difference(name, *_apart(old, new)) for name, old, new in _parts("", before, now)]


def told(found: Sequence[Difference], side: str) -> str:
    """The first few, as one line of "before" or "now"."""
    words = [f"{one.name}: {getattr(one, side)}" for one in found[:_MOST]]
    return "; ".join(words + ([f"and {len(found) - _MOST} more"] if len(found) > _MOST else []))


def _parts(name: str, before: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    """(Name, what it was, what it is) of everything that is not the same."""
    if before == now:
        return
    olds, news = _named(before), _named(now)
    if olds is None or news is None or type(before) is not type(now):
        yield (name, *_texts(before, now))
        return
    if not isinstance(before, dict):
        # Entries have names of their own: those of one side alone are told together
        gone, come = ([key for key in own if key not in other] for own, other in ((olds, news), (news, olds)))
        if gone or come:
            yield name, _others(gone), _others(come)
        elif list(olds) != list(news):
            yield f"order of {name}", _quoted(list(olds)), _quoted(list(news))
        olds = {key: value for key, value in olds.items() if key in news}
    for key in {**olds, **(news if isinstance(now, dict) else {})}:
        if key in olds and key in news:
            yield from _parts(f"{name} {key}".strip(), olds[key], news[key])
        else:
            yield f"{name} {key}".strip(), _one(olds, key), _one(news, key)


def _named(value: Any) -> Optional[dict[str, Any]]:
    """Parts by name: of a mapping, or of a list of mappings that each have another name; None of anything else."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) and "name" in one for one in value):
        return None
    found = {str(one["name"]): one for one in value}
    return found if len(found) == len(value) else None


def _texts(before: Any, now: Any) -> tuple[str, str]:
    if not (isinstance(before, list) and isinstance(now, list)):
        return _text(before), _text(now)
    if len(before) == len(now):
        pairs = [(old, new) for old, new in zip(before, now) if old != new]
        return ", ".join(_text(old) for old, _ in pairs), ", ".join(_text(new) for _, new in pairs)
    return f"{len(before)} of them", f"{len(now)} of them"


def _one(values: Mapping[str, Any], key: str) -> str:
    return _text(values[key]) if key in values else "not there"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return _SHA256.sub(lambda found: found.group()[:12], json.dumps(value, ensure_ascii=False))


def _others(names: Sequence[str]) -> str:
    return f"also {_quoted(names)}" if names else "no others"


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(f'"{name}"' for name in names[:_NAMES]) + more


def _apart(before: str, now: str) -> tuple[str, str]:
    """Both, cut where they are long, and so that what differs is seen."""
    alike = next((at for at, (old, new) in enumerate(zip(before, now)) if old != new), min(len(before), len(now)))
    start = max(0, alike - _LEAD) if max(len(before), len(now)) > _WIDEST else 0
    return _cut(before, start), _cut(now, start)


def _cut(text: str, start: int) -> str:
    end = start + _WIDEST
    return ("... " if start else "") + text[start:end] + (" ..." if len(text) > end else "")
