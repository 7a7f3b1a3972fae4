"""The hub client's exceptions, turned into messages that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from motedge.errors import HostError, MotedgeError, UsageError
from motedge.files import disk_error

_UNAUTHORISED = (401, 403)


@contextlib.contextmanager
def hub_errors(repository: str, revision: str, folder: Path | None = None) -> Iterator[None]:
    """Translates what the hub client raises inside the block; other exceptions pass.

    Raises:
        UsageError: no such repository or revision, or an id that can't be one.
        HostError: no network, no permission, a hub that fails, a full disk.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except MotedgeError:
        raise
    except errors.HFValidationError as error:
        raise UsageError("not a repository id", expected="owner/name", got=repository, why=_first(error)) from error
    except errors.GatedRepoError as error:
        raise _no_permission(repository, "the repository is gated") from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"the hub has no repository {repository}, or does not show it to you",
            why=_first(error),
            fix="check the spelling; for a private one log in with `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"{repository} has no revision {revision}",
            expected="a branch, tag or full commit hash",
            got=revision,
            fix=f"see https://huggingface.co/{repository}/tree/main",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in _UNAUTHORISED:
            raise _no_permission(repository, f"the hub answered {status}") from error
        raise HostError(
            f"the hub failed while fetching {repository}",
            got=f"status {status}",
            why=_first(error),
            fix="run the same command again later: it goes on where it stopped",
        ) from error
    except (httpx2.TransportError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise HostError(
            f"can't reach the hub for {repository}",
            why=_first(error.__cause__ or error),
            fix="check the network, HF_ENDPOINT and HF_HUB_OFFLINE; the same command goes on where it stopped",
        ) from error
    except OSError as error:
        translated = disk_error(error, folder or Path.cwd())
        if isinstance(translated, MotedgeError):
            raise translated from error
        # The client reports sizes that differ after its own retries as a plain OSError
        raise HostError(
            f"the download of {repository} failed", why=_first(error), fix="run the same command again"
        ) from error


def _no_permission(repository: str, why: str) -> HostError:
    return HostError(
        f"no permission to fetch {repository}",
        why=why,
        fix=f"accept the terms at https://huggingface.co/{repository}, then `hf auth login` or set HF_TOKEN",
    )


def _first(error: BaseException) -> str:
    """The first line of an exception with its type: the client's messages are long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
