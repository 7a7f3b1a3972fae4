"""The catalogue as Markdown tables, every figure with its mark and a footnote that says its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from motedge.targets.catalog import Figure, PowerMode, SoftwareRow, Target, legal_precisions, precisions
from motedge.targets.matrix.footnotes import Footnotes
from motedge.targets.software import dialects

# One letter a mark; figures of vendors carry none, so that the others stand out
SIGNS = {"measured": "m", "vendor": "", "derived": "d", "community": "c", "unverified": "u", "unknown": ""}
_RATES = ("fp32", "fp16", "int8", "fp8", "nvfp4")
_NONE = "-"


def device_table(known: Sequence[Target], notes: Footnotes) -> Iterator[str]:
    """One row a device: capability, memory, bandwidth, dense rates."""
    header = ("device", "SM", "memory GB", "left GB", "GB/s", *_RATES, "engine")
    rows = []
    for target in known:
        capability = "" if target.compute_capability is None else f"{target.compute_capability:.1f}"
        sm = _signed(capability or _NONE, target.capability, notes)
        cells = [figure(f, notes) for f in (target.memory_gb, target.available_gb, target.bandwidth_gbps)]
        rates = [figure(target.dense_tflops[k], notes) if k in target.dense_tflops else _NONE for k in _RATES]
        rows.append((f"`{target.id}`", sm, *cells, *rates, target.engine))
    yield from table(header, rows)


def remark_list(known: Sequence[Target]) -> Iterator[str]:
    """What one should know of a device."""
    yield from (f"- **{target.name}**: {target.note}" for target in known if target.note)


def precision_table(known: Sequence[Target], notes: Footnotes) -> Iterator[str]:
    """Number formats, and the devices that run them."""
    header = ("format", "of", "GPUs from SM", "on a CPU", "devices")
    rows = []
    for precision in precisions().values():
        legal = [target.id for target in known if precision.id in legal_precisions(target)]
        missing = [target.id for target in known if precision.id not in legal_precisions(target)]
        short = f"all but {', '.join(missing)}" if missing and len(missing) < len(legal) else ", ".join(legal)
        least = f"{precision.least_sm.value:.1f}{notes.sign(_source(precision.least_sm))}"
        cpu = f"{precision.cpu}{notes.sign(precision.cpu_source)}"
        rows.append((precision.id, precision.scope, least, cpu, short if missing else "all"))
    yield from table(header, rows)


def mode_table(known: Sequence[Target], notes: Footnotes) -> Iterator[str]:
    """Power modes: shares are of the device's own figures."""
    rows = [_mode_row(target, mode, notes) for target in known for mode in target.power_modes]
    yield from table(("device", "mode", "W", "compute", "bandwidth", "GPU MHz", ""), rows)


def software_table(known: Sequence[Target], notes: Footnotes) -> Iterator[str]:
    """Releases of system software; devices with the same rows share them."""
    header = ("devices", "software", "Jetson Linux", "CUDA", "TensorRT", "dialect", "Python")
    groups: dict[tuple[str, ...], list[str]] = {}
    for target in known:
        for row in target.software:
            groups.setdefault(_software_row(row, target, notes), []).append(target.id)
    rows = [(", ".join(f"`{name}`" for name in ids), *cells) for cells, ids in groups.items()]
    yield from table(header, rows)


def figure(value: Figure, notes: Footnotes) -> str:
    """ "17", "8.5 d" and so on, with the footnote of the source; "?" where nothing is known."""
    number = value.value
    text = "?" if number is None else f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"
    return _signed(text, value, notes)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _mode_row(target: Target, mode: PowerMode, notes: Footnotes) -> tuple[str, ...]:
    shares = (mode.compute_scale, mode.bandwidth_scale, mode.gpu_clock_mhz)
    cells = [_NONE if share is None else figure(share, notes) for share in shares]
    return (f"`{target.id}`", mode.name, figure(mode.power_w, notes), *cells, mode.note)


def _software_row(row: SoftwareRow, target: Target, notes: Footnotes) -> tuple[str, ...]:
    tensorrt = " or ".join(filter(None, (row.tensorrt, *row.accepts)))
    if row.tensorrt_rtx is not None:
        tensorrt = f"{tensorrt}{', ' if tensorrt else ''}RTX {row.tensorrt_rtx}"
    sign = SIGNS[row.mark]
    name = f"{row.release}{f' {sign}' if sign else ''}{notes.sign(f'{row.mark}: {row.source}')}"
    cells = (row.l4t, row.cuda, tensorrt or None, ", ".join(dialects(row, target)) or None, row.python)
    return (name, *(cell or "?" for cell in cells))


def _signed(text: str, value: Figure, notes: Footnotes) -> str:
    sign = SIGNS[value.mark]
    return f"{text}{f' {sign}' if sign and value.value is not None else ''}{notes.sign(_source(value))}"


def _source(value: Figure) -> str:
    return f"{value.mark}: {value.source}"
