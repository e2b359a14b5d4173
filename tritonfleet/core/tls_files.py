"""Whether OpenSSL can use PEM files, and its complaints in words. It takes nothing but paths."""

from __future__ import annotations

import ssl
from pathlib import Path

_WORDS = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate is in it",
}


def in_words(error: OSError) -> str:
    """What OpenSSL means; anything else as it is."""
    if isinstance(error, ssl.SSLError):
        said = _WORDS.get(error.reason or "")
        return said or ("not a PEM file of its kind" if "PEM lib" in str(error) else str(error))
    return error.strerror or str(error)


def no_pass_phrase() -> str:
    """Instead of one: OpenSSL would ask for it at the terminal, and all calls would wait. Raises OSError."""
    raise OSError("the key has a pass phrase")


def misfit(cert: str | Path, key: str | Path) -> str:
    """Why a certificate's file and a key's file cannot be used together; "" when they can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, no_pass_phrase)
    except OSError as error:  # ssl.SSLError is one
        return in_words(error)
    return ""


def no_authorities(path: str | Path) -> str:
    """Why no certificate can be read from a file; "" when one can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except OSError as error:
        return in_words(error)
    return ""
