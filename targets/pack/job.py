"""From a bundle to an archive: decide, list, sign, write; nothing is written before all of it is known to be there."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import motedge
from motedge.bundle import Bundle
from motedge.bundle.model_words import plain_model
from motedge.errors import UsageError
from motedge.files import require_free
from motedge.runtime.engine_files import EngineFiles
from motedge.targets.catalog import Target
from motedge.targets.install.listing import PackListing, Release, check_names
from motedge.targets.pack.contents import Sources, all_members, target_member
from motedge.targets.pack.engines import PackedEngines, find_engines, require_complete
from motedge.targets.pack.notices import read_model_licence
from motedge.targets.pack.plan_file import plan_bytes
from motedge.targets.pack.serve import Wish, choose_for
from motedge.targets.pack.sign import require_minisign, sign
from motedge.targets.pack.wheels import build_wheel, checkout, find_wheels
from motedge.targets.pack.write import Member, Progress, write_archive

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """What to pack, beside bundle and target."""

    wish: Wish = field(default_factory=Wish)
    # Leave graphs and weights out, where every graph has a whole engine
    engines_only: bool = False
    # Leave engines out
    no_engines: bool = False
    # motedge's wheel or source folder; None: built from the checkout, where this is one
    wheel: Optional[Path] = None
    no_wheel: bool = False
    # Put plan.json in, which needs the onnx package here
    plan: bool = True
    # A folder with the wheels of what motedge needs
    wheels: Optional[Path] = None
    model_licence: Optional[Path] = None
    # A secret key of minisign's
    sign: Optional[Path] = None
    # The file that the target came from, where it is not one of the catalogue
    target_file: Optional[Path] = None
    progress: Progress = lambda done, total: None


@dataclass(frozen=True)
class PackReport:
    """What was packed, or would be."""

    listing: PackListing
    listing_bytes: bytes
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    # Of the archive; None when it was not written
    sha256: Optional[str] = None
    signed: bool = False


def plan_pack(bundle: Bundle, target: Target, options: PackOptions) -> PackReport:
    """What `pack` would write. Raises as it does, and writes nothing."""
    with _planned(bundle, target, options) as report:
        return report


def pack(bundle: Bundle, target: Target, out: Path, options: PackOptions) -> PackReport:
    """Writes the archive.

    Args:
        bundle: the bundle.
        target: the device.
        out: the archive's path.
        options: what to pack.

    Raises:
        UsageError: options that contradict each other or name what is not there; a recipe that the device can't run.
        BundleError: no variant fits the device, or a file is damaged.
        HostError: too little disk, or minisign is missing.
    """
    if options.sign is not None:
        require_minisign()
    with _planned(bundle, target, options) as report:
        require_free(out.parent, report.listing.total_bytes, "the archive")
        signature = None
        if options.sign is not None:
            comment = f"motedge {report.listing.name} for {target.id}"
            signature = sign(report.listing_bytes, options.sign, comment)
        digest = write_archive(out, report.listing_bytes, signature, report.members, options.progress)
    return PackReport(report.listing, report.listing_bytes, report.members, report.notes, digest, signature is not None)


@contextlib.contextmanager
def _planned(bundle: Bundle, target: Target, options: PackOptions) -> Iterator[PackReport]:
    """The list of files; a wheel that had to be built is there as long as the context lasts."""
    served = choose_for(bundle, target, options.wish)
    engines = find_engines(bundle, target, served.choices)
    if options.no_engines:
        engines = PackedEngines(EngineFiles(engines.files.folder, target.id, ()))
    if options.engines_only:
        require_complete(engines, served.choices)
    notes: list[str] = list(served.doubts)
    plan = plan_bytes(bundle, target, options.wish, served.releases, notes) if options.plan else None
    with tempfile.TemporaryDirectory(prefix="motedge-pack-") as folder:
        own = _own_wheel(options, Path(folder), notes)
        sources = Sources(
            bundle=bundle,
            target=target,
            served=served,
            engines=engines,
            engines_only=options.engines_only,
            wheels=find_wheels(own, options.wheels, target),
            model_licence=read_model_licence(options.model_licence) if options.model_licence else None,
            plan=plan,
            target_file=options.target_file,
            name=_name(bundle, served.choices[0].entry.recipe if served.choices else None, options.wish),
        )
        if sources.model_licence is None:
            notes.append("the model's licence text is not in the archive: --model-license FILE passes it on")
        members = all_members(sources)
        check_names(member.name for member in members)
        listing = _listing(sources, members)
        yield PackReport(listing, listing.to_bytes(), tuple(members), tuple(notes))


def _own_wheel(options: PackOptions, folder: Path, notes: list[str]) -> Optional[Path]:
    if options.no_wheel:
        if options.wheel is not None:
            raise UsageError("--wheel and --no-wheel contradict each other")
        notes.append("without motedge's wheel: the device must have motedge already")
        return None
    source = checkout() if options.wheel is None else options.wheel
    if source is None:
        notes.append(
            "without motedge's wheel, which only a checkout can build: --wheel FILE, or install it there first"
        )
        return None
    if source.is_dir():
        _log.info("building motedge's wheel from %s", source)
        return build_wheel(source, folder)
    return source


def _name(bundle: Bundle, recipe: Optional[str], wish: Wish) -> str:
    """For people, and for folders: family, model variant, shape set, recipe."""
    model, embodiment = bundle.manifest.model, bundle.manifest.policy.get("embodiment")
    named = plain_model(" ".join(str(model[key]) for key in ("family", "variant") if model.get(key)), embodiment)
    parts = [named, bundle.manifest.shape_set.get("name"), wish.recipe or recipe]
    words = "-".join(str(part) for part in parts if part).lower()
    return "-".join(filter(None, "".join(c if c.isascii() and c.isalnum() else "-" for c in words).split("-")))


def _listing(sources: Sources, members: list[Member]) -> PackListing:
    target = sources.target
    recipes = {choice.entry.recipe for choice in sources.served.choices} - {None}
    return PackListing(
        name=sources.name,
        target=target.id,
        builder=target.engine,
        motedge=motedge.__version__,
        variants={choice.graph: choice.variant for choice in sources.served.choices},
        recipe=next(iter(sorted(str(recipe) for recipe in recipes)), None),
        releases=tuple(Release(r.release, r.l4t, r.tensorrt, r.python) for r in sources.served.releases),
        files={member.name: member.entry for member in members},
        target_file=target_member(target) if sources.target_file is not None else None,
    )
