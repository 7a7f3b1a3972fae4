"""`motedge pack BUNDLE --target T --out FILE`: one archive with what a device needs, and how it installs itself."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.errors import EXIT_OK
from motedge.units import format_bytes

if TYPE_CHECKING:
    from motedge.targets.pack import PackReport


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "pack",
        help="pack what a device needs of a bundle into one archive",
        description="Pack a bundle for one device: the variants that its engine library takes, engines that were built "
        "for it, licences, motedge's own wheel, and a script that installs and builds all of it there. The same bundle "
        "gives the same bytes.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle, as motedge export or quantize writes it")
    parser.add_argument("--target", required=True, metavar="ID", help="the device: motedge targets list")
    parser.add_argument("--out", metavar="FILE", help="the archive to write, such as edge-orin.tar")
    what = parser.add_argument_group("what")
    what.add_argument(
        "--release", metavar="NAME", help='system software, such as "JetPack 6.2" (default: all that fit)'
    )
    what.add_argument(
        "--variant", metavar="ID", help="such as primitive-fp16 (default: the best that the device takes)"
    )
    what.add_argument("--recipe", metavar="NAME", help="quantized graphs of this recipe, where the bundle has several")
    engines = what.add_mutually_exclusive_group()
    engines.add_argument("--engines-only", action="store_true", help="leave graphs out; every engine must be there")
    engines.add_argument("--no-engines", action="store_true", help="leave engines out; the device builds them")
    what.add_argument("--no-plan", action="store_true", help="leave plan.json out, which tells the device what fits")
    program = parser.add_argument_group("program and licences")
    program.add_argument("--wheel", metavar="PATH", help="motedge's wheel or source folder (default: this checkout)")
    program.add_argument("--no-wheel", action="store_true", help="leave motedge out; the device has it")
    program.add_argument("--wheels", metavar="DIR", help="wheels of what motedge needs, for devices without a network")
    program.add_argument("--model-license", metavar="FILE", help="text of the model's licence, to pass on with it")
    program.add_argument("--sign", metavar="KEY", help="sign with this secret key, by the program minisign")
    parser.add_argument("--dry-run", action="store_true", help="list files and sizes, write nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Packs, or lists with --dry-run."""
    from motedge.bundle import Bundle
    from motedge.cli.byte_progress import ByteProgress
    from motedge.errors import UsageError
    from motedge.targets.catalog import load_target
    from motedge.targets.pack import PackOptions, pack, plan_pack
    from motedge.targets.pack.serve import Wish

    if args.out is None and not args.dry_run:
        raise UsageError("where to write the archive?", fix="--out FILE, or --dry-run to see what it would hold")
    target = load_target(args.target)
    progress = ByteProgress("packing")
    options = PackOptions(
        wish=Wish(args.release, args.variant, args.recipe),
        engines_only=args.engines_only,
        no_engines=args.no_engines,
        wheel=_path(args.wheel),
        no_wheel=args.no_wheel,
        plan=not args.no_plan,
        wheels=_path(args.wheels),
        model_licence=_path(args.model_license),
        sign=_path(args.sign),
        target_file=Path(args.target) if args.target.endswith(".toml") else None,
        progress=progress,
    )
    bundle = Bundle.open(args.bundle)
    if args.dry_run:
        _deliver(plan_pack(bundle, target, options), None, args.json)
        return EXIT_OK
    try:
        report = pack(bundle, target, Path(args.out), options)
    finally:
        progress.close()
    _deliver(report, Path(args.out), args.json)
    return EXIT_OK


def _path(text: Optional[str]) -> Optional[Path]:
    return None if text is None else Path(text)


def _deliver(report: PackReport, out: Optional[Path], as_json: bool) -> None:
    listing = report.listing
    if as_json:
        document = json.loads(report.listing_bytes)
        document.update(
            archive=None if out is None else str(out),
            sha256=report.sha256,
            signed=report.signed,
            total_bytes=listing.total_bytes,
            notes=list(report.notes),
        )
        print(json.dumps(document, indent=2))
        return
    if out is None:
        for name, entry in listing.files.items():
            print(f"{format_bytes(entry.bytes):>10}  {name}")
    else:
        print(f"{out}: {format_bytes(out.stat().st_size)}, sha256 {report.sha256}")
    print(f"holds     {listing.name}: {', '.join(f'{g} {v}' for g, v in listing.variants.items())}")
    print(f"for       {listing.target}: {', '.join(release.release for release in listing.releases)}")
    print(f"total     {format_bytes(listing.total_bytes)} in {len(listing.files)} files")
    if out is not None:
        print(f"signed    {'yes' if report.signed else 'no'}")
        for script in sorted(name for name in listing.files if name.startswith("install")):
            print(f"on it     tar -xOf {out.name} {script} | sudo bash -s -- {out.name}")
    for note in report.notes:
        print(f"note      {note}", file=sys.stderr)
