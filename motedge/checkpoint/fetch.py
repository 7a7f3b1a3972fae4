"""Brings a checkpoint from the Hugging Face hub: chosen files only, resumed, with the commit recorded.

A cut connection is taken up in the middle of the file. A fetch that failed or was stopped goes on with the files that
it had not finished, each from its beginning: the hub client (2.4) keeps no part of a file between processes.

The hub client's settings hold: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_DISABLE_XET.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.checkpoint.hub_errors import hub_errors
from motedge.checkpoint.provenance import HUB, Provenance, read_provenance, write_provenance
from motedge.errors import CheckpointError, MissingPackageError, UsageError, closest
from motedge.files import PathLike, require_free
from motedge.units import format_bytes

_log = logging.getLogger(__name__)
# What `--only` may name, and which files that means; None is everything
SELECTIONS: dict[str, list[str] | None] = {
    "all": None,
    # Neither the reasoner's vision encoder nor the sound tokenizer: actions do not need them
    "policy": ["*.json", "transformer/*", "vae/*", "text_tokenizer/*", "scheduler/*", "LICENSE*", "README.md"],
}
# `*` crosses folders in the hub's patterns, so "*.json" would bring these too
_NOT_FOR_POLICY = ["vision_encoder/*", "sound_tokenizer/*"]
_MARK = "transformer/config.json"  # every Cosmos 3 repository has it


@dataclass(frozen=True)
class FetchPlan:
    """What a fetch would download."""

    repository: str
    # What was asked for, and the commit that it means
    requested: str
    commit: str
    # File -> bytes, of those that are not here yet
    missing: dict[str, int]
    # Files that are here already
    present: list[str]

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be downloaded."""
        return sum(self.missing.values())


def plan_fetch(
    repository: str,
    revision: str = "main",
    *,
    out: PathLike | None = None,
    only: str = "all",
    endpoint: str | None = None,
) -> FetchPlan:
    """Asks the hub what there is, and looks what is here already. Downloads nothing.

    Raises:
        UsageError: no such repository or revision, or an unknown selection.
        CheckpointError: the repository holds no Cosmos 3 checkpoint.
        HostError: no network, or the repository is gated.
    """
    if only not in SELECTIONS:
        raise UsageError("unknown selection", expected=" or ".join(SELECTIONS), got=only, fix=closest(only, SELECTIONS))
    hub = _hub()
    with hub_errors(repository, revision):
        info = hub.HfApi(endpoint=endpoint).repo_info(repository, revision=revision, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    if _MARK not in sizes:
        raise CheckpointError(
            f"{repository} holds no Cosmos 3 checkpoint",
            expected=f"{_MARK} among its files",
            got=", ".join(sorted(sizes)[:6]) or "no files",
            fix="for example nvidia/Cosmos3-Edge",
        )
    allow, ignore = SELECTIONS[only], _NOT_FOR_POLICY if SELECTIONS[only] else None
    names = list(hub.utils.filter_repo_objects(sizes, allow_patterns=allow, ignore_patterns=ignore))
    present = [name for name in names if _is_here(repository, info.sha, name, sizes[name], out)]
    missing = {name: sizes[name] for name in names if name not in set(present)}
    return FetchPlan(repository, revision, info.sha, missing, present)


def _is_here(repository: str, commit: str, name: str, size: int, out: PathLike | None) -> bool:
    """Whether a file need not be downloaded. In `out` by its size; the client compares checksums later."""
    if out is None:
        return isinstance(_hub().try_to_load_from_cache(repository, name, revision=commit), str)
    path = Path(out) / name
    return path.is_file() and path.stat().st_size == size


def fetch_checkpoint(
    repository: str,
    revision: str = "main",
    *,
    out: PathLike | None = None,
    only: str = "all",
    endpoint: str | None = None,
) -> Path:
    """Downloads a checkpoint, or what is missing of it.

    Args:
        repository: the hub's id, e.g. "nvidia/Cosmos3-Edge-Policy-DROID".
        revision: branch, tag or commit; the commit is recorded.
        out: the folder to fill; by default the hub's cache below HF_HOME.
        only: "all", or "policy" for what actions need.
        endpoint: another hub's address; by default HF_ENDPOINT.

    Returns:
        The checkpoint's folder.

    Raises:
        UsageError: no such repository or revision, or `out` holds another checkpoint.
        CheckpointError: the repository holds no Cosmos 3 checkpoint.
        HostError: no network, a gated repository, or too little disk space.
    """
    if out is not None:
        _require_same(Path(out), repository)
    plan = plan_fetch(repository, revision, out=out, only=only, endpoint=endpoint)
    hub = _hub()
    _log.info("%s %s: commit %s", repository, revision, plan.commit)
    _log.info("%d files here, %d to fetch, %s", len(plan.present), len(plan.missing), format_bytes(plan.missing_bytes))
    require_free(out or hub.constants.HF_HUB_CACHE, plan.missing_bytes, "the checkpoint")
    quiet: dict[str, Any] = {} if sys.stderr.isatty() else {"tqdm_class": _silent()}
    with hub_errors(repository, revision, Path(out or hub.constants.HF_HUB_CACHE)):
        folder = Path(
            hub.snapshot_download(repository, **_selection(plan.commit, out, only), endpoint=endpoint, **quiet)
        )
    if out is not None:
        write_provenance(folder, Provenance(source=HUB, id=repository, revision=plan.commit, requested=revision))
    return folder


def _selection(commit: str, out: PathLike | None, only: str) -> dict[str, Any]:
    patterns = SELECTIONS[only]
    return {
        "revision": commit,
        "local_dir": out,
        "allow_patterns": patterns,
        "ignore_patterns": None if patterns is None else _NOT_FOR_POLICY,
    }


def _require_same(out: Path, repository: str) -> None:
    """Raises UsageError before one checkpoint's files are laid over another's."""
    known = read_provenance(out) if out.is_dir() else None
    if known is not None and known.id != repository and (known.id is not None or known.source != HUB):
        raise UsageError(
            f"{out} holds another checkpoint",
            expected=f"an empty folder, or one fetched from {repository}",
            got=known.id or known.source,
            fix="give another folder",
        )


def _silent() -> Any:
    """A progress bar that draws nothing: for dry runs and for output that is no terminal."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)

    return Silent


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingPackageError("huggingface_hub", extra="export", purpose="to fetch checkpoints") from error
    return huggingface_hub
