"""`motedge install FILE --root DIR`: a packed bundle beside others on a device; the switch between them and back."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Optional

from motedge.errors import EXIT_OK
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.targets.install import InstallOptions, InstallReport, PackListing, Store


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "install",
        help="install a packed bundle on this device, or switch between installed ones",
        description="Check an archive of motedge pack (signature, device, every byte), unpack it beside the bundles "
        "that are there, and make DIR/current point to it, in one step that a loss of power can't divide. Whatever "
        "fails, the bundle that was active stays so.",
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("archive", metavar="FILE", nargs="?", help="the archive; - reads it from stdin")
    action.add_argument("--list", action="store_true", help="show what is installed")
    action.add_argument("--rollback", action="store_true", help="make the bundle active that was so before")
    action.add_argument("--activate", metavar="NAME", help="make an installed bundle the active one")
    parser.add_argument("--root", required=True, metavar="DIR", help="where bundles are installed, /opt/motedge say")
    how = parser.add_argument_group("of FILE")
    how.add_argument("--build", action="store_true", help="build its engines before it becomes active")
    how.add_argument(
        "--require-signature", metavar="KEY", help="a public key of minisign, or its file, that must have signed"
    )
    how.add_argument("--any-device", action="store_true", help="install although it was packed for another device")
    how.add_argument("--no-switch", action="store_true", help="install, and leave the active bundle active")
    how.add_argument(
        "--keep", type=int, default=2, metavar="N", help="bundles that stay installed (default %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check FILE to its last byte, write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Installs, lists or switches."""
    from motedge.targets.install import Store

    store = Store(Path(args.root))
    if args.list:
        _list(store, args.json)
    elif args.rollback:
        with store.lock():
            before, name = store.rollback()
        _say_switched(store, name, before, args.json)
    elif args.activate is not None:
        with store.lock():
            before_name = store.current
            store.activate(args.activate)
        _say_switched(store, args.activate, before_name, args.json)
    else:
        _install(args)
    return EXIT_OK


def _install(args: argparse.Namespace) -> None:
    from motedge.cli.byte_progress import ByteProgress
    from motedge.errors import UsageError
    from motedge.targets.install import InstallOptions, install
    from motedge.targets.install.fit import engine_room
    from motedge.targets.install.job import check

    if args.keep < 1:
        raise UsageError("--keep must leave at least the active bundle", expected="1 or more", got=args.keep)
    progress = ByteProgress("checking" if args.dry_run else "installing")
    options = InstallOptions(
        require_signature=args.require_signature,
        check=None if args.any_device else _check_device,
        build=_build if args.build else None,
        build_bytes=engine_room,
        activate=not args.no_switch,
        keep=args.keep,
        progress=progress,
    )
    try:
        with _opened(args.archive) as stream:
            report = (check if args.dry_run else install)(stream, Path(args.root), options)
    finally:
        progress.close()
    _deliver(report, options, args)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
        return
    from motedge.errors import UsageError

    try:
        stream = open(name, "rb")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise UsageError(f"can't read the archive {name}", got=error.strerror) from error
    with stream:
        yield stream


def _check_device(listing: PackListing) -> None:
    from motedge.targets.detect import detect
    from motedge.targets.install.fit import require_fit

    require_fit(listing, detect())


def _build(folder: Path, listing: PackListing) -> None:
    """Builds the engines of a bundle that is installed and not active yet."""
    from motedge.bundle import Bundle
    from motedge.runtime.engine_files import EngineFiles
    from motedge.targets.builders.job import BuildOptions, build_engines
    from motedge.targets.catalog import load_target

    bundle = Bundle.open(folder)
    if not any(graph.variants for graph in bundle.manifest.graphs.values()):
        # Packed with --engines-only: there is nothing to build from
        EngineFiles.open(bundle, listing.target)
        return
    target = load_target(listing.target if listing.target_file is None else str(folder / listing.target_file))
    build_engines(bundle, target, BuildOptions(recipe=listing.recipe), lambda graph, phase, share: None)


def _deliver(report: InstallReport, options: InstallOptions, args: argparse.Namespace) -> None:
    active = options.activate and not args.dry_run
    if args.json:
        document = {
            "id": report.id,
            "path": str(report.path),
            "target": report.listing.target,
            "bytes": report.listing.total_bytes,
            "key": report.key,
            "signature_checked": report.trusted,
            "installed": not args.dry_run,
            "unchanged": report.unchanged,
            "mended": list(report.mended),
            "removed": list(report.removed),
            "active": active,
        }
        print(json.dumps(document, indent=2))
        return
    size = f"{format_bytes(report.listing.total_bytes)} in {len(report.listing.files)} files"
    if args.dry_run:
        print(f"{report.id}: whole, {size}; nothing was written")
    else:
        print(f"{report.path}: {'was there already' if report.unchanged else size}")
    print(f"signature {_signature(report)}")
    for file in report.mended:
        print(f"mended    {file}")
    for name in report.removed:
        print(f"removed   {name}")
    if not args.dry_run:
        print(f"active    {'yes' if active else f'no: motedge install --activate {report.id} --root {args.root}'}")


def _signature(report: InstallReport) -> str:
    if report.key is None:
        return "none"
    return f"by key {report.key}, {'good' if report.trusted else 'not checked: no key is known here'}"


def _list(store: Store, as_json: bool) -> None:
    found = store.installed()
    if as_json:
        rows = [
            {
                "id": entry.id,
                "path": str(entry.path),
                "active": entry.active,
                "target": entry.listing.target if entry.listing else None,
                "bytes": entry.listing.total_bytes if entry.listing else None,
            }
            for entry in found
        ]
        print(json.dumps({"root": str(store.root), "bundles": rows}, indent=2))
        return
    for entry in found:
        what = "damaged: pack.json can't be read"
        if entry.listing is not None:
            what = f"{format_bytes(entry.listing.total_bytes):>9}  {entry.listing.target}"
        print(f"{'*' if entry.active else ' '} {entry.id}  {what}")
    if not found:
        print(f"nothing is installed in {store.root}", file=sys.stderr)


def _say_switched(store: Store, name: str, before: Optional[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"active": name, "before": before, "path": str(store.path(name))}, indent=2))
        return
    print(f"{name} is active, {before or 'nothing'} before")
