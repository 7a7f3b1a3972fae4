"""Ed25519 (RFC 8032) verification by OpenSSL's libcrypto, which every system with Python's ssl module has.

Through ctypes, so that a device needs no package for it (docs/decisions/0009-signatures.md).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools

from motedge.errors import HostError

KEY_BYTES, SIGNATURE_BYTES = 32, 64
# NID_ED25519 of openssl/obj_mac.h; EVP_PKEY_ED25519 in openssl/evp.h
_EVP_PKEY_ED25519 = 1087
_NAMES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib")


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is that of `message` under `public_key` (32 bytes).

    Raises:
        HostError: this machine has no libcrypto that knows Ed25519.
    """
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    crypto = libcrypto()
    key = crypto.EVP_PKEY_new_raw_public_key(_EVP_PKEY_ED25519, None, public_key, len(public_key))
    if not key:
        raise HostError("libcrypto refuses Ed25519", why="it may run in a FIPS mode that does not allow it")
    context = crypto.EVP_MD_CTX_new()
    try:
        if crypto.EVP_DigestVerifyInit(context, None, None, None, key) != 1:
            raise HostError("libcrypto can't verify Ed25519 signatures", why="it may run in a FIPS mode")
        # 1: good; 0: bad; negative: malformed
        return bool(crypto.EVP_DigestVerify(context, signature, len(signature), message, len(message)) == 1)
    finally:
        crypto.EVP_MD_CTX_free(context)
        crypto.EVP_PKEY_free(key)
        # What a refused signature left in the thread's queue must not turn up in somebody else's TLS connection
        crypto.ERR_clear_error()


@functools.lru_cache(maxsize=1)
def libcrypto() -> ctypes.CDLL:
    """OpenSSL 1.1.1 or later; HostError where there is none."""
    found = ctypes.util.find_library("crypto")
    for name in (*([found] if found else []), *_NAMES):
        try:
            library = ctypes.CDLL(name)
            _declare(library)
        except (OSError, AttributeError):
            continue
        return library
    raise HostError(
        "signatures can't be checked: OpenSSL's libcrypto is not there, or is older than 1.1.1",
        fix="sudo apt install libssl3   (libssl1.1 on Ubuntu 20.04)",
    )


def _declare(library: ctypes.CDLL) -> None:
    """Types of the functions that are used; AttributeError where one is missing."""
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("EVP_PKEY_new_raw_public_key", pointer, [ctypes.c_int, pointer, text, size]),
        ("EVP_PKEY_free", None, [pointer]),
        ("EVP_MD_CTX_new", pointer, []),
        ("EVP_MD_CTX_free", None, [pointer]),
        ("EVP_DigestVerifyInit", ctypes.c_int, [pointer, pointer, pointer, pointer, pointer]),
        ("EVP_DigestVerify", ctypes.c_int, [pointer, text, size, text, size]),
        ("ERR_clear_error", None, []),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
