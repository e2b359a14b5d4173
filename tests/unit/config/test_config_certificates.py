"""Which files are read of a fleet file, and what dates come of them."""

from pathlib import Path
from typing import Any

import pytest
from certificate_dates import dated

from tritonfleet.config import FleetSpec
from tritonfleet.config.certificates import read_certificates
from tritonfleet.core.certificates import Certificate

NOW = 1_800_000_000.0


def spec(
    folder: Path, router: dict[str, Any] | None = None, triton: dict[str, Any] | None = None
) -> FleetSpec:
    pool = {"model_repository": str(folder), "triton": triton or {}}
    return FleetSpec.model_validate(
        {"version": 1, "name": "demo", "router": router or {}, "pools": {"main": pool}}
    )


def read(folder: Path, **files: str | Path) -> dict[str, Certificate]:
    """Of a router with these files of its own, by the last part of the key."""
    tls = {"cert": "/nowhere", "key": "/nowhere", **{key: str(path) for key, path in files.items()}}
    return {one.use.rpartition(".")[2]: one for one in read_certificates(spec(folder, {"tls": tls}))}


def test_a_fleet_without_tls_has_none(tmp_path: Path) -> None:
    assert read_certificates(spec(tmp_path)) == ()


def test_each_is_named_by_its_key_and_keys_are_left_alone(tmp_path: Path) -> None:
    pem = str(dated(tmp_path / "a.pem", (NOW, NOW + 9)))
    found = read_certificates(
        spec(
            tmp_path,
            {"tls": {"cert": pem, "key": "/no/key", "client_ca": pem}},
            {"tls": {"cert": pem, "key": "/no/key", "ca": pem, "client_cert": pem, "client_key": "/no/key"}},
        )
    )
    assert found == tuple(
        Certificate(use, pem, NOW, NOW + 9)
        for use in (
            "router.tls.cert",
            "router.tls.client_ca",
            "pools.main.triton.tls.cert",
            "pools.main.triton.tls.ca",
            "pools.main.triton.tls.client_cert",
        )
    )


def test_a_chain_holds_while_all_of_it_does(tmp_path: Path) -> None:
    chain = dated(tmp_path / "chain.pem", (NOW + 2, NOW + 20), (NOW, NOW + 10))
    found = read(tmp_path, cert=chain)["cert"]
    assert (found.begins_at, found.ends_at) == (NOW + 2, NOW + 10)


def test_authorities_hold_while_one_of_them_does(tmp_path: Path) -> None:
    both = dated(tmp_path / "both.pem", (NOW + 2, NOW + 20), (NOW, NOW + 10))
    found = read(tmp_path, client_ca=both)["client_ca"]
    assert (found.begins_at, found.ends_at) == (NOW, NOW + 20)


@pytest.mark.parametrize(
    "content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\0"]
)
def test_what_is_no_certificate_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pem").write_bytes(content)
    assert read(tmp_path, cert=tmp_path / "a.pem")["cert"].error == (
        "there is no certificate in it, or a damaged one"
    )


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    assert read(tmp_path)["cert"] == Certificate(
        "router.tls.cert", "/nowhere", error="No such file or directory"
    )
