"""TLS to a policy server: whom to trust, and what it means when it fails."""

from __future__ import annotations

import ssl
from typing import Optional

from motedge.client.remote_errors import ConnectionFailedError
from motedge.errors import UsageError

# The connection was lost while they spoke; the next try may do better
_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError)
# OpenSSL's name for a first word that is no TLS
_NO_TLS = "WRONG_VERSION_NUMBER"
# OpenSSL's X509_V_ERR_..., x509_vfy.h: expired, not yet valid, another host name, another address
_DATES, _NAMES = (9, 10), (62, 64)
_VERSIONS = "the same versions of TLS on both sides: a policy server speaks 1.2 and later"


def encryption(url: str, authority: Optional[str]) -> Optional[ssl.SSLContext]:
    """As `trust`, for a wss:// address; None for ws://, which is not encrypted.

    Raises:
        UsageError: as `trust`; or an authority was given, whose certificates nothing would be checked against.
    """
    if url.lower().startswith("wss://"):
        return trust(authority)
    if authority is not None:
        raise UsageError(
            "an authority for TLS (tls_ca) is given, and the address is one without TLS",
            expected="wss://HOST:PORT",
            got=url,
            why="what is sent there, the token too, can be read on the way",
            fix="give the address with wss://, or leave the authority out",
        )
    return None


def trust(authority: Optional[str]) -> ssl.SSLContext:
    """What certificates are checked against.

    Args:
        authority: PEM file of the authority; None: the system's.

    Raises:
        UsageError: the file can't be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise UsageError(
            f"the certificate of the authority {authority} can't be used",
            expected="a PEM file of certificates",
            got=error.strerror or str(error),
            fix="copy the authority's certificate here; for a self-signed one, the file of the server's --tls-cert",
        ) from error


def tls_refusal(error: BaseException, url: str) -> Optional[ConnectionFailedError]:
    """What to tell the user of a failure that trying again does not mend; None of others."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fix = "give the file of its authority (tls_ca)"
        if error.verify_code in _DATES:
            fix = "a new certificate; or set this machine's clock, if that is wrong"
        elif error.verify_code in _NAMES:
            fix = "connect by a name or address that is in the certificate, or have it made for this one"
        return ConnectionFailedError(f"the certificate of {url} is not trusted", got=str(error), fix=fix)
    if not isinstance(error, ssl.SSLError) or isinstance(error, _PASSING):
        return None
    fix = _VERSIONS
    if error.reason == _NO_TLS:
        fix = "ws:// for a server without --tls-cert, or the right port"
    return ConnectionFailedError(f"no TLS with the server at {url}", got=str(error), fix=fix)


def tls_hint(error: BaseException, url: str) -> Optional[str]:
    """How what was tried until there was no time left may come of TLS; None if it does not look like that."""
    if url.startswith("wss://"):
        # A server that agrees to nothing hangs up without a word; so does one that is about to end
        return _VERSIONS if isinstance(error, (*_PASSING, ConnectionResetError)) else None
    # What a server that waits for TLS makes of a request without; websockets' InvalidMessage has the end for its cause
    return "wss://, if the server speaks TLS" if isinstance(error.__cause__, EOFError) else None
