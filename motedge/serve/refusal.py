"""Saying no over HTTP: in OpenAI's form where its clients ask, in plain text elsewhere."""

from __future__ import annotations

from typing import Optional

from aiohttp import web

from motedge.serve.chat_answer import error_body

# Below it are the paths of OpenAI's protocol
CHAT_PATHS = "/v1/"
# To who asks there where nothing answers; a policy that reasons keeps the reasoner to itself
NO_CHAT = (
    "this server answers no questions: it was started without --chat\n"
    "  fix: motedge serve BUNDLE --chat, with a bundle that was exported with --extras reasoner"
)
NO_CHAT_BESIDE = (
    "this server answers no questions: its reasoner writes the policy's prompt (--reason)\n"
    "  fix: a second server for them: motedge serve BUNDLE --no-policy --chat --port N"
)
INVALID, SERVER = "invalid_request_error", "server_error"
# OpenAI's names, where it has one for a status
_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}


def refusal(request: web.Request, status: int, text: str, *, close: bool = False, **headers: str) -> web.Response:
    """An answer that says no.

    Args:
        request: what is refused.
        status: of HTTP.
        text: why.
        close: whether the connection ends with it, so that whoever may not ask does not keep a place.
        headers: more of them; `_` stands for `-`.
    """
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if request.path.startswith(CHAT_PATHS):
        response = error_response(status, text, headers=given)
    else:
        response = web.Response(status=status, text=f"{text}\n", headers=given)
    if close:
        response.force_close()
    return response


def error_response(
    status: int, text: str, *, code: Optional[str] = None, headers: Optional[dict[str, str]] = None
) -> web.Response:
    """An error in OpenAI's form, by its status."""
    # Not the question's fault: too many of them, or the server's own trouble
    kind = INVALID if status < 500 and status != 429 else SERVER
    return web.json_response(error_body(text, kind, code or _CODES.get(status)), status=status, headers=headers)
