"""The certificates that a fleet file names, as their files are now."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tritonfleet.config.spec import FleetSpec
from tritonfleet.core.certificates import Certificate

if TYPE_CHECKING:
    from cryptography import x509


def read_certificates(spec: FleetSpec) -> tuple[Certificate, ...]:
    """Each of ``router.tls`` and of every pool's ``triton.tls``, in the file's order. Raises nothing: what
    cannot be read says why."""
    return tuple(_read(use, path, authorities) for use, path, authorities in _named(spec))


def _named(spec: FleetSpec) -> Iterator[tuple[str, str, bool]]:
    """Key, path, and whether the file holds authorities."""
    if spec.router.tls is not None:
        yield "router.tls.cert", spec.router.tls.cert, False
        if spec.router.tls.client_ca is not None:
            yield "router.tls.client_ca", spec.router.tls.client_ca, True
    for name, pool in spec.pools.items():
        tls, key = pool.triton.tls, f"pools.{name}.triton.tls"
        if tls is not None:
            yield f"{key}.cert", tls.cert, False
            yield f"{key}.ca", tls.ca, True
            if tls.client_cert is not None:
                yield f"{key}.client_cert", tls.client_cert, False


def _read(use: str, path: str, authorities: bool) -> Certificate:
    # Takes 0.15 s, and most fleets have no certificate.
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        return Certificate(use, path, error=error.strerror or str(error))
    except ValueError:
        return Certificate(use, path, error="there is no certificate in it, or a damaged one")
    begins, ends = [_begins(one) for one in found], [_ends(one) for one in found]
    if authorities:  # an old one may stay beside a new one for a while
        return Certificate(use, path, min(begins), max(ends))
    return Certificate(use, path, max(begins), min(ends))


def _begins(found: "x509.Certificate") -> float:
    return found.not_valid_before_utc.timestamp()


def _ends(found: "x509.Certificate") -> float:
    return found.not_valid_after_utc.timestamp()
