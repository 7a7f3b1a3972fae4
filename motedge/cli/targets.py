"""`motedge targets list / show / detect`: what the catalogue knows of devices, and which one this machine is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import EXIT_OK
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.targets.catalog import Figure, PowerMode, SoftwareRow, Target
    from motedge.targets.detect import Detection

SCHEMA = "motedge.targets/v1"
# How far to trust a figure, where a table has no room for the word; vendors' own and measured ones have no sign
SIGNS = {"derived": "~", "community": "^", "unverified": "?"}
LEGEND = "~ derived, ^ community, ? unverified, - unknown or none; rates are dense; `motedge targets show T`: sources"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its three actions."""
    verb = subparsers.add_parser("targets", help="show the devices of the catalogue, or which one this machine is")
    actions = verb.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", help="one line a device", description="All devices of the catalogue.")
    listing.set_defaults(run=_list)
    show = actions.add_parser(
        "show",
        help="one device: each figure with its source",
        description="One device: each figure with its source and how far to trust it, what it runs, its power modes "
        "and its software.",
    )
    show.add_argument("target", metavar="T", help="id of a device, or a .toml file of your own")
    show.set_defaults(run=_show)
    detect = actions.add_parser(
        "detect",
        help="say which device this machine is",
        description="Look at the device tree, nvidia-smi, the Jetson Linux release and the power mode, without "
        "starting CUDA, and say which device of the catalogue this machine is, how sure that is, and what else it may "
        "be.",
    )
    detect.set_defaults(run=_detect)
    for parser in (listing, show, detect):
        parser.add_argument("--json", action="store_true", help="print one JSON object")


def _list(args: argparse.Namespace) -> int:
    from motedge.targets.catalog import targets

    known = list(targets().values())
    if args.json:
        _print_json({"targets": [_dictionary(target) for target in known]})
        return EXIT_OK
    header = ("target", "SM", "memory GB", "left GB", "GB/s", "fp16", "int8", "fp8", "nvfp4", "engine")
    print("\n".join(_table(header, [_line(target) for target in known])))
    print(f"\n{LEGEND}")
    return EXIT_OK


def _show(args: argparse.Namespace) -> int:
    from motedge.targets.catalog import load_target

    target = load_target(args.target)
    if args.json:
        _print_json({"target": _dictionary(target)})
    else:
        print("\n".join(_target_lines(target)))
    return EXIT_OK


def _detect(args: argparse.Namespace) -> int:
    import dataclasses

    from motedge.targets.detect import detect

    found = detect()
    if args.json:
        _print_json({"detection": dataclasses.asdict(found)})
    else:
        print("\n".join(_detection_lines(found)))
    return EXIT_OK


def _line(target: Target) -> tuple[str, ...]:
    from motedge.targets.catalog import Figure

    none = Figure(None, "unknown", "no fast path in the hardware")
    rates = (target.dense_tflops.get(kind, none) for kind in ("fp16", "int8", "fp8", "nvfp4"))
    capability = "-" if target.compute_capability is None else f"{target.compute_capability:.1f}"
    capability += SIGNS.get(target.capability.mark, "")
    cells = (target.memory_gb, target.available_gb, target.bandwidth_gbps, *rates)
    return (target.id, capability, *map(_cell, cells), target.engine)


def _target_lines(target: Target) -> Iterator[str]:
    from motedge.targets.catalog import legal_precisions

    memory = "one memory for CPU and GPU" if target.unified_memory else "memory of its own"
    yield f"{target.name}  ({target.id})"
    yield f"{target.kind}, class {target.architecture}, {memory}; engines by {target.engine}"
    if target.note:
        yield target.note
    yield ""
    named = [
        ("memory, GB", target.memory_gb),
        ("left by the system, GB", target.available_gb),
        ("bandwidth, GB/s", target.bandwidth_gbps),
        *((f"{kind} dense, TFLOPS", figure) for kind, figure in target.dense_tflops.items()),
    ]
    sm = target.capability
    rows = [("compute capability", "-" if sm.value is None else f"{sm.value:.1f}", sm.mark, sm.source)]
    rows += [(name, _value(figure), figure.mark, figure.source) for name, figure in named]
    yield from _table(("figure", "value", "mark", "source"), rows)
    yield ""
    yield f"runs       {', '.join(legal_precisions(target))}"
    yield ""
    yield from _table(("power mode", "W", "compute", "bandwidth", "GPU MHz", "note"), _mode_rows(target))
    yield ""
    header = ("software", "Jetson Linux", "CUDA", "TensorRT", "dialect", "Python", "mark", "source")
    yield from _table(header, [_software_row(row, target) for row in target.software])


def _mode_rows(target: Target) -> list[tuple[str, ...]]:
    def row(mode: PowerMode) -> tuple[str, ...]:
        figures = (mode.power_w, mode.compute_scale, mode.bandwidth_scale, mode.gpu_clock_mhz)
        return (mode.name, *map(_optional, figures), mode.note)

    return [row(mode) for mode in target.power_modes]


def _software_row(row: SoftwareRow, target: Target) -> tuple[str, ...]:
    from motedge.targets.software import dialects

    tensorrt = " or ".join(filter(None, (row.tensorrt, *row.accepts)))
    if row.tensorrt_rtx is not None:
        tensorrt = f"{tensorrt}{', ' if tensorrt else ''}RTX {row.tensorrt_rtx}"
    source = f"{row.source}; {row.note}" if row.note else row.source
    cells = (row.l4t, row.cuda, tensorrt or None, ", ".join(dialects(row, target)) or None, row.python)
    return (row.release, *(cell or "-" for cell in cells), row.mark, source)


def _detection_lines(found: Detection) -> Iterator[str]:
    yield f"target     {found.target or 'not one of the catalogue for sure'}  ({found.certainty})"
    yield f"because    {found.reason}"
    yield from (f"may be     {candidate.target}: {candidate.reason}" for candidate in found.candidates)
    clues = found.clues
    for gpu in clues.gpus:
        yield f"GPU        {gpu.name}, compute capability {gpu.compute_capability or 'unknown'}"
    if clues.memory_bytes is not None:
        free = clues.memory_available_bytes
        available = "" if free is None else f", {format_bytes(free)} available"
        yield f"memory     {format_bytes(clues.memory_bytes)}{available}"
    if clues.l4t is not None:
        known = "no row of the catalogue" if found.software is None else _release(found.software)
        yield f"software   Jetson Linux {clues.l4t}: {known}"
    yield from (f"library    {name} {version} in this Python" for name, version in clues.libraries)
    if clues.power_mode is not None:
        yield f"power      {clues.power_mode}{_mode(found.power_mode)}"
    yield from (f"note       {note}" for note in found.notes)
    yield from (f"problem    {problem}" for problem in clues.problems)


def _release(row: SoftwareRow) -> str:
    named = (("CUDA", row.cuda), ("TensorRT", row.tensorrt), ("TensorRT-RTX", row.tensorrt_rtx), ("Python", row.python))
    return ", ".join([row.release, *(f"{name} {version}" for name, version in named if version is not None)])


def _mode(mode: Optional[PowerMode]) -> str:
    if mode is None or mode.compute_scale is None or mode.compute_scale.value is None:
        return ""
    return f": {mode.compute_scale.value:.0%} of the device's peak rates"


def _dictionary(target: Target) -> dict[str, Any]:
    import dataclasses

    from motedge.targets.catalog import legal_precisions
    from motedge.targets.software import dialects

    made = dataclasses.asdict(target)
    made["legal_precisions"] = legal_precisions(target)
    for row, table in zip(target.software, made["software"]):
        table["dialects"] = dialects(row, target)
    return made


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **value}, indent=2, ensure_ascii=False))


def _value(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:,.4g}" if figure.value < 1000 else f"{figure.value:,.0f}"


def _cell(figure: Figure) -> str:
    return _value(figure) if figure.value is None else _value(figure) + SIGNS.get(figure.mark, "")


def _optional(figure: Optional[Figure]) -> str:
    return "-" if figure is None else _cell(figure)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield f"{header[0]}: none known"
        return
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
