"""Certificates for tests with the dates that a test wants, which openssl's command line cannot all give."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def dated(path: Path, *spans: tuple[float, float]) -> Path:
    """Into ``path`` a self-signed certificate for localhost for each (begin, end) in epoch seconds, and the
    last one's key beside it, as ``.key``."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    text, key = b"", ec.generate_private_key(ec.SECP256R1())
    for begins, ends in spans:
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(int(begins), UTC))
            .not_valid_after(datetime.fromtimestamp(int(ends), UTC))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        text += made.public_bytes(Encoding.PEM)
    path.write_bytes(text)
    path.with_suffix(".key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
