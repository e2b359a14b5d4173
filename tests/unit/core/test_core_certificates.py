"""When certificates end, read from what openssl writes."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import certificate

from tritonfleet.core.certificates import ends, misfit, no_authorities


def made(folder: Path, name: str, days: int) -> str:
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x"]
    subprocess.run(
        [*command, "-days", str(days), "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert.read_text()


def told(pem: str) -> str:
    ran = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601"],
        input=pem, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return ran.stdout.strip()


@pytest.mark.parametrize("days", [3, 20_000])  # within 2049, and beyond, which is written in another way
def test_the_end_is_the_one_that_openssl_tells(tmp_path: Path, days: int) -> None:
    pem = made(tmp_path, "a", days)
    (end,) = ends(pem)
    assert told(pem) == f"notAfter={datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M:%SZ}"


def test_a_chain_has_several_ends(tmp_path: Path) -> None:
    long, short = made(tmp_path, "a", 30), made(tmp_path, "b", 3)
    assert ends(long + "text\n" + short) == (*ends(long), *ends(short))


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN CERTIFICATE-----\nMAoGCCqGSM49\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    assert ends(text) == ()
    cut = text.replace("MAoGCCqGSM49", "not base64!")
    assert ends(cut) == ()


def test_what_fits_has_no_complaint(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "a")
    assert (misfit(cert, key), no_authorities(cert)) == ("", "")
    assert misfit(cert, tmp_path / "none.key") == "No such file or directory"
