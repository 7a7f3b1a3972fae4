"""The secret that a policy server asks for, as a client shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from motedge.errors import UsageError
from motedge.files import PathLike

_EXPECTED = "a file that holds the server's token and nothing else, in printable ASCII characters"
_COPY = "copy the file that the server was started with (--token-file) to this machine"


def read_token(path: PathLike, *, fix: str = _COPY) -> str:
    """The secret in a file, without the white space around it.

    Args:
        path: of the file.
        fix: how to come to a right one, for the messages.

    Raises:
        UsageError: no such file, an empty one, or one with other characters than a header can hold.
    """
    file = Path(path)
    try:
        token = file.read_text(encoding="ascii").strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the token in {file} holds other characters than ASCII's",
            expected=_EXPECTED,
            got=f"byte 0x{error.object[error.start]:02x} at {error.start}",
            fix=fix,
        ) from error
    except OSError as error:
        got = error.strerror or str(error)
        raise UsageError(f"the token file {file} can't be read", expected=_EXPECTED, got=got, fix=fix) from error
    if not token:
        raise UsageError(f"the token file {file} is empty", expected=_EXPECTED, got="no characters", fix=fix)
    if not token.isprintable():
        raise UsageError(f"the token in {file} can't be sent", expected=_EXPECTED, got="several lines", fix=fix)
    return token


def check_token(token: Optional[str]) -> None:
    """Whether a token can be sent. The message does not repeat it: it may end up in a log.

    Raises:
        UsageError: it is empty, or holds other characters than a header can.
    """
    if token is None or (token and token.isascii() and token.isprintable() and token == token.strip()):
        return
    raise UsageError(
        "this token can't be sent to a policy server",
        expected="printable ASCII characters, no white space around them; or None where the server asks for none",
        got="an empty one" if not token else f"{len(token)} characters, not all of them such",
        fix="motedge.client.read_token(FILE) reads one from a file",
    )
