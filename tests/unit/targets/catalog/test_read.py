"""Files of devices: what is read, and what is refused with which message."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.errors import UsageError
from motedge.targets.catalog import Figure, SoftwareRow, load_target, releases, targets
from motedge.targets.catalog.files import data_files
from motedge.targets.catalog.precisions import parse_precisions
from motedge.targets.catalog.read import parse_releases, parse_target

BOARD = """
name = "Board"
kind = "jetson"
architecture = "orin"
unified_memory = true
engine = "tensorrt"

[compute_capability]
value = 8.7
mark = "vendor"
source = "data sheet"
[memory_gb]
value = 8.6
mark = "derived"
source = "8 GiB"
[available_gb]
mark = "unknown"
source = "nobody said"
[bandwidth_gbps]
value = 102
mark = "vendor"
source = "data sheet"
[dense_tflops.fp16]
value = 17
mark = "vendor"
source = "data sheet"

[[power_modes]]
name = "15W"
[power_modes.power_w]
value = 15
mark = "vendor"
source = "its name"

[[software]]
release = "JetPack 6.2"
[[software]]
release = "JetPack 7.2.2"
accepts = ["11.4.1"]
[[software]]
release = "Own image"
tensorrt = "10.3.0"
mark = "measured"
source = "dpkg -l"
"""


def _parse(text: str) -> object:
    return parse_target("board", text, "board.toml", releases())


def test_a_device() -> None:
    board = parse_target("board", BOARD, "board.toml", releases())
    assert board.id == "board" and board.compute_capability == 8.7
    assert board.available_gb == Figure(None, "unknown", "nobody said") and not board.available_gb.known
    assert board.dense_tflops["fp16"].value == 17.0
    assert board.power_modes[0].power_w.value == 15.0 and board.power_modes[0].compute_scale is None
    first, second, own = board.software
    assert (first.l4t, first.tensorrt, first.python) == ("36.4.3", "10.3.0.30", "3.10")
    assert second.accepts == ("11.4.1",) and releases()["JetPack 7.2.2"].accepts == ()
    assert (own.tensorrt, own.l4t, own.mark) == ("10.3.0", None, "measured")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "Board"', 'nmae = "Board"', "board.toml: unknown key 'nmae'\n.*did you mean 'name'"),
        ("[memory_gb]", "[memory]", "unknown key 'memory'\n.*did you mean 'memory_gb'"),
        ("[bandwidth_gbps]\nvalue = 102", "[bandwidth_gbps]\nvalu = 102", "bandwidth_gbps: unknown key 'valu'"),
        ('mark = "vendor"\nsource = "its name"', 'mark = "vender"\nsource = "x"', "marked 'vender'\n.*mean 'vendor'"),
        ('source = "its name"', "", "power_w: a device's figure has no source"),
        ("value = 8.7", 'value = "8.7"', "compute_capability: the value is of a wrong kind"),
        ("value = 8.7", "value = true", "compute_capability: the value is of a wrong kind"),
        ("value = 102", "value = -102", "bandwidth_gbps: a device's figure does not fit"),
        ("value = 102", "value = nan", "bandwidth_gbps: a device's figure does not fit"),
        ('[available_gb]\nmark = "unknown"', '[available_gb]\nvalue = 7\nmark = "unknown"', "figure does not fit"),
        ("[dense_tflops.fp16]", "[dense_tflops.fp61]", "dense_tflops: unknown key 'fp61'\n.*did you mean 'fp16'"),
        ('kind = "jetson"', 'kind = "jetsen"', "unknown kind 'jetsen'\n.*did you mean 'jetson'"),
        ('engine = "tensorrt"', 'engine = "trt"', "unknown engine 'trt'"),
        ("unified_memory = true", 'unified_memory = "yes"', "unified_memory is of a wrong kind"),
        ("unified_memory = true", "", "board.toml lacks unified_memory"),
        ('release = "JetPack 6.2"', 'release = "JetPak 6.2"', "'JetPak 6.2' has no source\n.*mean 'JetPack 6.2'"),
        ('accepts = ["11.4.1"]', 'accepts = "11.4.1"', "accepts is of a wrong kind"),
        ('name = "15W"', "", "a mode lacks a field"),
        ('name = "Board"', "name = Board", "board.toml is not TOML"),
    ],
)
def test_a_device_that_does_not_fit(old: str, new: str, says: str) -> None:
    assert old in BOARD
    with pytest.raises(UsageError, match=f"(?s){says}"):
        _parse(BOARD.replace(old, new, 1))


def test_a_table_where_a_number_belongs() -> None:
    text = BOARD.replace('[memory_gb]\nvalue = 8.6\nmark = "derived"\nsource = "8 GiB"\n', "")
    with pytest.raises(UsageError, match="memory_gb is of a wrong kind"):
        _parse(text.replace("unified_memory = true", "unified_memory = true\nmemory_gb = 8.6"))


def test_releases_that_do_not_fit() -> None:
    row = '[[release]]\nrelease = "A"\nmark = "vendor"\nsource = "x"\n'
    with pytest.raises(UsageError, match="'A' is there twice"):
        parse_releases(row * 2, "r.toml")
    with pytest.raises(UsageError, match=r"unknown key 'tensort'\n.*did you mean 'tensorrt'"):
        parse_releases(row + 'tensort = "10.3"\n', "r.toml")
    with pytest.raises(UsageError, match="marked 'rumour'"):
        SoftwareRow("A", None, None, None, None, "rumour", "x")


def test_precisions_that_do_not_fit() -> None:
    text = data_files()["_precisions.toml"]
    with pytest.raises(UsageError, match=r"unknown cpu 'run'\n.*did you mean 'runs'"):
        parse_precisions(text.replace('cpu = "runs"', 'cpu = "run"', 1), "p.toml")
    with pytest.raises(UsageError, match=r"p\.toml: fp8 lacks mark"):
        parse_precisions('[fp8]\nleast_sm = 8.9\nsource = "x"\nscope = ""\ncpu = "runs"\ncpu_source = ""', "p.toml")


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "my-board.toml"
    file.write_text(BOARD)
    assert load_target(str(file)).id == "my-board"
    assert "my-board" not in targets()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("My_Board.toml", BOARD, "can't name a target"),
        ("h200.toml", BOARD, "would hide the catalogue's 'h200'"),
        ("none.toml", None, "can't read the target"),
        ("bytes.toml", b"\xff\xfe", "can't read the target"),
    ],
)
def test_an_own_device_that_does_not_fit(tmp_path: Path, name: str, content: object, says: str) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content)
    with pytest.raises(UsageError, match=says):
        load_target(str(file))
