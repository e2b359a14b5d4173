"""Files that OpenSSL can use, and what is said of those that it cannot."""

from pathlib import Path

from certificates import certificate

from tritonfleet.core.tls_files import misfit, no_authorities


def test_what_fits_has_no_complaint(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "a")
    assert (misfit(cert, key), no_authorities(cert)) == ("", "")


def test_what_does_not_fit_is_told_in_words(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "a")
    other, _ = certificate(tmp_path, "b")
    assert misfit(other, key) == "the key is not that of the certificate"
    assert misfit(key, key) == "not a PEM file of its kind"
    assert misfit(cert, tmp_path / "none.key") == "No such file or directory"
    assert no_authorities(key) == "no certificate is in it"
