"""Where a fleet keeps what must survive."""

import os
import socket
from pathlib import Path

import pytest

from tritonfleet.cli import unix_http
from tritonfleet.controller.paths import FleetPaths, belongs_to_a_stranger


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"TRITONFLEET_STATE_DIR": "/srv/s", "XDG_STATE_HOME": "/x"}, "/srv/s/demo"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/home/u"}, "/x/tritonfleet/demo"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/tritonfleet/demo"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": ""}, "/home/u/.local/state/tritonfleet/demo"),
    ],
)
def test_the_root(environ: dict[str, str], root: str) -> None:
    paths = FleetPaths.of("demo", environ)
    assert paths.root == Path(root)
    assert paths.control_socket == Path(root, "control.sock")


def test_everything_is_below_the_root() -> None:
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": "/srv/s"})
    for path in (paths.lock, paths.controller_file, paths.state_file, paths.journal, paths.controller_log):
        assert path.is_relative_to("/srv/s/demo")


def test_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(tmp_path / "state")})
    paths.make()
    paths.make()
    assert paths.root.stat().st_mode & 0o777 == 0o700
    assert paths.logs.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_gets_a_short_one_of_its_own(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    paths = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(deep), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert paths.control_socket.parent == tmp_path
    other = FleetPaths.of("other", {"TRITONFLEET_STATE_DIR": str(deep), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert paths.control_socket != other.control_socket
    without = FleetPaths.of("demo", {"TRITONFLEET_STATE_DIR": str(deep)})
    assert len(os.fsencode(without.control_socket)) < 100
    assert str(os.getuid()) in str(without.control_socket)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(paths.control_socket))
    paths.control_socket.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_that_a_stranger_has_made_in_tmp_is_not_used(tmp_path: Path) -> None:
    """The command line would hand them the environment, and the router ask them for its replicas."""
    anybodys = Path("/tmp") / f"tf-{os.urandom(4).hex()}"
    squatted = anybodys / "tritonfleet-0"
    squatted.mkdir(parents=True)
    anybodys.chmod(0o1777)
    environ = {"TRITONFLEET_STATE_DIR": str(tmp_path / ("d" * 120)), "XDG_RUNTIME_DIR": str(squatted)}
    try:
        FleetPaths.of("demo", environ).make()
        assert not belongs_to_a_stranger(squatted)
        os.chown(squatted, 65534, 65534)
        with pytest.raises(PermissionError, match="tritonfleet-0 belongs to another user"):
            FleetPaths.of("demo", environ).make()
        with (
            pytest.raises(PermissionError, match="belongs to another user"),
            unix_http.asked(squatted / "control.sock", "GET", "/v1/snapshot"),
        ):
            pytest.fail("asked a stranger's socket")
        assert not belongs_to_a_stranger(tmp_path / "not" / "there")
    finally:
        squatted.rmdir()
        anybodys.rmdir()
