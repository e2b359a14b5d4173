"""What is shown of a launch, and what never is."""

import pytest

from tritonfleet.core.launched import HIDDEN, masked


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "PGPASS", "API_KEY", "APIKEY", "GOOGLE_CREDENTIALS",
     "SSH_PRIVATE_KEY", "KEY", "BASIC_AUTH"],
)  # fmt: skip
def test_a_variable_with_a_secrets_name_is_masked(name: str) -> None:
    assert masked([], {name: "swordfish"}).env == {name: HIDDEN}
    assert masked([], {name: ""}).env == {name: ""}  # that it is empty is no secret, and often the mistake


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "TRITONFLEET_INSTANCE", "KEYBOARD", "MONKEY_MODE"])
def test_others_are_shown(name: str) -> None:
    assert masked([], {name: "0"}).env == {name: "0"}


def test_a_password_within_a_url_is_masked_wherever_it_is() -> None:
    found = masked(["--model-repository=s3://id:word@host:9000/bucket"], {"PROXY": "http://me:word@proxy/"})
    assert found.command == (f"--model-repository=s3://{HIDDEN}@host:9000/bucket",)
    assert found.env == {"PROXY": f"http://{HIDDEN}@proxy/"}


def test_an_argument_that_holds_a_secret_is_masked_in_either_form() -> None:
    given = [
        "tritonserver",
        "--http-restricted-api=health:key=word",
        "--access-token",
        "word",
        "--log-verbose=1",
    ]
    assert masked(given, {}).command == (
        "tritonserver", f"--http-restricted-api={HIDDEN}", "--access-token", HIDDEN, "--log-verbose=1",
    )  # fmt: skip


def test_backend_settings_are_shown() -> None:
    argument = "--backend-config=python,shm-region-prefix-name=tf-demo-1234-"
    assert masked([argument], {}).command == (argument,)
