"""A text that ends where another begins, however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from motedge.runtime.reasoner.stop_texts import StopTexts


def _cut(pieces: list[str], texts: list[str]) -> tuple[str, bool]:
    stop = StopTexts(texts)
    shown = "".join([stop.push(piece) for piece in pieces])
    return shown + stop.finish(), stop.found


@given(st.text("abc", max_size=14), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.data())
def test_any_cut_gives_the_same(text: str, texts: list[str], data: st.DataObject) -> None:
    bounds = [0, *sorted(data.draw(st.sets(st.integers(0, len(text))))), len(text)]
    pieces = [text[begin:end] for begin, end in zip(bounds, bounds[1:])]
    # By hand: the shortest beginning of the text that ends with one of them, less the longest that it ends with
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(each) for each in texts)]
    expected = text
    if ends:
        whole = text[: ends[0]]
        expected = whole[: len(whole) - max(len(each) for each in texts if whole.endswith(each))]
    assert _cut(pieces, texts) == (expected, bool(ends))


def test_nothing_comes_after_it() -> None:
    stop = StopTexts(["\n\n"])
    assert [stop.push(piece) for piece in ("a\n", "b\n", "\nc", "d")] == ["a", "\nb", "", ""]
    assert stop.found and stop.finish() == ""


def test_what_only_began_is_shown() -> None:
    assert _cut(["no STO"], ["STOP"]) == ("no STO", False)
    assert _cut(["all"], []) == ("all", False)
