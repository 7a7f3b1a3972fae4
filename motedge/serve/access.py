"""Who may ask: tokens, the address that is listened on, TLS, pages in browsers."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import shlex
import ssl
import stat
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from motedge.client.token import read_token as token_text
from motedge.errors import HostError, UsageError
from motedge.files import PathLike
from motedge.serve.options import ServeOptions

LOG = logging.getLogger(__name__)
# RoboLab's client and OpenAI's send the first, openpi's the second
_SCHEMES = ("bearer", "api-key")
_TOKEN_CHARACTERS_MIN = 16
_CERTIFY = (
    "give the right files; or make a pair, whose cert.pem clients trust (tls_ca): openssl req -x509 -newkey ec"
    " -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -keyout key.pem -out cert.pem -subj /CN=robot"
    " -addext subjectAltName=IP:ADDRESS"
)


def read_token(path: PathLike) -> str:
    """The secret in a file, without the white space around it.

    Raises:
        UsageError: no such file, an empty one, one that others may read, a secret that is short or holds other
            characters than a header can.
    """
    file = Path(path)
    make = f"(umask 077; python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > {shlex.quote(str(file))})"
    text = token_text(file, fix=make)
    mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"others may read the token file {file}",
            expected="mode 600: its owner alone",
            got=f"mode {stat.S_IMODE(mode):o}",
            fix=f"chmod 600 {shlex.quote(str(file))}",
        )
    if len(text) < _TOKEN_CHARACTERS_MIN or " " in text:
        raise UsageError(
            f"the token in {file} is no secret",
            expected=f"{_TOKEN_CHARACTERS_MIN} printable characters or more, no space between",
            got=f"{len(text)} characters" + (", a space between" if " " in text else ""),
            fix=make,
        )
    return text


def check_exposure(options: ServeOptions) -> None:
    """Whether the options may be served.

    Raises:
        UsageError: an address beyond this machine without a token.
    """
    if is_loopback(options.host):
        return
    if options.token is None:
        raise UsageError(
            f"a server on {options.host} needs a token",
            expected="--token-file FILE",
            why="whoever reaches it could move the robot",
            fix="or --host 127.0.0.1, and ssh -L for clients elsewhere",
        )
    if options.tls_cert is None:
        LOG.warning("token and observations travel unencrypted: --tls-cert and --tls-key prevent it")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_own_name(header: Optional[str], options: ServeOptions) -> bool:
    """Whether a Host header names this server: an address, localhost, or a name that the options know.

    A browser says there what its page's URL does; an address in it can't be one that a DNS server made up. Without a
    header it is no browser.
    """
    if header is None:
        return True
    try:
        name = "" if set(header) & set("/?#@") else (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return False
    with contextlib.suppress(ValueError):
        # With a zone, as fe80::1%eth0, it is one too
        ipaddress.ip_address(name.partition("%")[0])
        return True
    known = ("localhost", options.host.lower(), *(host.lower() for host in options.hosts))
    return name in known or name.endswith(".localhost")


def is_authorised(header: Optional[str], token: Optional[str]) -> bool:
    """Whether an Authorization header shows the token, in a time that does not depend on how much of it is right."""
    if token is None:
        return True
    scheme, _, shown = (header or "").partition(" ")
    known = scheme.lower() in _SCHEMES
    same = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token.encode("ascii"))
    return known and same


def tls_context(options: ServeOptions) -> Optional[ssl.SSLContext]:
    """What TLS is spoken with; None without.

    Raises:
        HostError: a certificate or key that can't be read, or that don't belong together.
    """
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for option, file in (("--tls-cert", options.tls_cert), ("--tls-key", options.tls_key)):
        _require_readable(option, file)
    try:
        # A key that asks for a password must not wait at a terminal
        context.load_cert_chain(options.tls_cert, options.tls_key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise HostError(
            "the certificate or its key can't be used",
            expected="PEM files that belong together, the key without a password",
            got=f"{options.tls_cert}, {options.tls_key}: {error}",
            fix=_CERTIFY,
        ) from error
    return context


def _require_readable(option: str, file: Optional[str]) -> None:
    """OpenSSL does not say which of two files it could not open."""
    try:
        with Path(file or "").open("rb"):
            return
    except OSError as error:
        raise HostError(
            f"the file of {option} can't be used",
            expected="a PEM file that the server may read",
            got=f"{file}: {error.strerror or error}",
            fix=_CERTIFY,
        ) from error
