"""What a PEM file with certificates says of itself, and OpenSSL's complaints in words.

What flows in: a file's text, or an error of `ssl`. What flows out: the time a certificate ends at, and what
is wrong. Only what OpenSSL itself must judge is given as a path.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
UTC_TIME, VERSION = 0x17, 0xA0  # tags of DER
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


def ends(pem: str) -> tuple[float, ...]:
    """When each of a file's certificates ends, in Unix time; of those that can be read."""
    return tuple(end for block in _blocks(pem) if (end := _end_of(block)) is not None)


def _blocks(pem: str) -> Iterator[bytes]:
    for part in pem.split(BEGIN)[1:]:
        try:
            yield ssl.PEM_cert_to_DER_cert(BEGIN + part.partition(END)[0] + END)
        except ValueError:
            continue


def _end_of(der: bytes) -> float | None:
    """RFC 5280, 4.1: a certificate begins with its to-be-signed part, and that with version (may be absent),
    serial number, algorithm, issuer and the validity, two times."""
    try:
        (_, certificate), *_ = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = list(_elements(signed))
        _, validity = fields[4 if fields[0][0] == VERSION else 3]
        _, (tag, text) = _elements(validity)
        return _time(tag, text.decode("ascii"))
    except (ValueError, IndexError):
        return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER elements that ``data`` consists of: tag and content. Raises IndexError where it is cut."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length > 0x7F:
            digits = length & 0x7F
            length, at = int.from_bytes(data[at : at + digits], "big"), at + digits
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, text: str) -> float:
    """RFC 5280, 4.1.2.5: two digits of a year are of 1950 to 2049. Raises ValueError."""
    if tag == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp()
