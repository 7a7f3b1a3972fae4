"""The page docs/targets.md, from the catalogue, the recipes and the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from motedge.targets.catalog import Target, targets
from motedge.targets.matrix.cells import GRAPHS, IMPOSSIBLE, PLANNED, Cell, cells
from motedge.targets.matrix.evidence import BUILDS, MEASURED, read_evidence
from motedge.targets.matrix.footnotes import Footnotes
from motedge.targets.matrix.tables import (
    device_table,
    mode_table,
    precision_table,
    remark_list,
    software_table,
    table,
)

_TITLES = {
    "gen_step": "The generator's step",
    "und_prefill": "The prompt's prefill",
    "vae_encoder": "The camera image's encoder, which no recipe changes",
}
_WORDS = {MEASURED: "**measured**", BUILDS: "builds", PLANNED: "planned", IMPOSSIBLE: "-"}
_HEAD = """\
# Targets

<!-- Written by scripts/targets_page.py from targets/data/, the recipes and benchmarks/evidence.toml. -->

What each device is, what it can run, and what of that was measured, built, or only planned. The same figures, one
device at a time: `motedge targets show T`; which device this machine is: `motedge targets detect`. A device that is
not here goes into a TOML file of the same form, which is given wherever a target's id is."""
_LEGEND = """
## Devices

Footnotes say where each figure is from. **m** was measured by this project, **d** derived by the arithmetic in the
footnote, **c** measured by others, **u** is unverified, and without a letter the maker says so; **?** is not known,
`-` does not exist. GB are 1e9 bytes. "Left" is what a system without a desktop leaves for a program. Rates are peak
**dense** TFLOPS (TOPS), accumulated in fp32 (int32): headline figures are often for 2:4 sparse weights, twice as high.
bf16 runs at the rate of fp16 on every GPU here."""
_SOFTWARE = """\
TensorRT's engines are built on the device, by the TensorRT that its release brings; TensorRT-RTX's ahead of time on any
machine. The dialect is the form of graphs that it takes best ([architecture.md](architecture.md))."""
_STATES = """
## Which recipe runs where

- **measured**: it ran on this device; the footnote gives a time and its conditions.
- builds: an engine was built for this compute capability (without such a GPU), or, on a CPU, the graph ran.
- planned: nothing known speaks against it; nobody has built or run it yet.
- impossible: `-`, for the reason in the footnote.

Whether a model of a given size fits into the memory, and how fast it will be, is another question:
`motedge plan BUNDLE --all`. Recipes: [quantization.md](quantization.md)."""


def make_page(root: Path) -> str:
    """The page's text; `root` is the repository, whose evidence is read.

    Raises:
        UsageError: evidence that does not fit.
    """
    known = list(targets().values())
    notes = Footnotes()
    found = cells(known, read_evidence(root))
    parts = [_head(), _catalogue(known, notes), _matrix(known, found, notes)]
    lines = [line for part in parts for line in part]
    return "\n".join([*lines, "", *notes.lines()]) + "\n"


def _head() -> Iterator[str]:
    yield from _HEAD.splitlines()


def _catalogue(known: Sequence[Target], notes: Footnotes) -> Iterator[str]:
    yield from _LEGEND.splitlines()
    yield ""
    yield from device_table(known, notes)
    yield ""
    yield from remark_list(known)
    yield from ("", "### Power modes", "", "Shares are of the figures above.", "")
    yield from mode_table(known, notes)
    yield from ("", "### Software", "")
    yield from _SOFTWARE.splitlines()
    yield ""
    yield from software_table(known, notes)
    yield from ("", "### Number formats", "")
    yield from precision_table(known, notes)


def _matrix(known: Sequence[Target], found: Sequence[Cell], notes: Footnotes) -> Iterator[str]:
    yield from _STATES.splitlines()
    for graph in GRAPHS:
        yield from ("", f"### `{graph}`: {_title(graph)}", "")
        mine = [cell for cell in found if cell.graph == graph]
        recipes = list(dict.fromkeys(cell.recipe for cell in mine))
        if graph == "vae_encoder":
            recipes = recipes[:1]
        by_place = {(cell.target, cell.recipe): cell for cell in mine}
        rows = [(f"`{t.id}`", *(_word(by_place[t.id, recipe], notes) for recipe in recipes)) for t in known]
        yield from table(("device", *("as exported" if recipe == "none" else recipe for recipe in recipes)), rows)


def _title(graph: str) -> str:
    return _TITLES[graph][0].lower() + _TITLES[graph][1:]


def _word(cell: Cell, notes: Footnotes) -> str:
    return _WORDS[cell.state] + (notes.sign(cell.reason) if cell.reason else "")
