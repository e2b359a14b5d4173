"""Certificates for tests, by openssl."""

import subprocess
from pathlib import Path


def certificate(folder: Path, name: str, authority: tuple[Path, Path] | None = None) -> tuple[Path, Path]:
    """A certificate for localhost that ``authority`` signs, or else itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *(("-CA", str(authority[0]), "-CAkey", str(authority[1])) if authority else ()),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
