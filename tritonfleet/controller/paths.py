"""Where a fleet keeps what must survive its controller. Cheap to import: every command needs it.

The root is ``$TRITONFLEET_STATE_DIR/<fleet>`` if that is set, else ``$XDG_STATE_HOME/tritonfleet/<fleet>``
(``~/.local/state`` by default). After `down` only the journal and the logs are left there, and what routers
share that others run.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EPERM
from pathlib import Path

LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107 (sun_path), and httpx or a proxy may add some


@dataclass(frozen=True, slots=True)
class FleetPaths:
    """Absolute paths of one fleet's files."""

    root: Path
    control_socket: Path

    @classmethod
    def of(cls, fleet: str, environ: Mapping[str, str] | None = None) -> "FleetPaths":
        environ = os.environ if environ is None else environ
        root = state_home(environ) / fleet
        socket = root / "control.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            import hashlib  # a few ms, for the few that need it

            run_time = environ.get("XDG_RUNTIME_DIR") or f"/tmp/tritonfleet-{os.getuid()}"  # noqa: S108 # 0700, by the user's id
            name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
            socket = Path(run_time) / f"tritonfleet-{name}.sock"
        return cls(root, socket)

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def controller_file(self) -> Path:
        """Who the controller is: pid, start time, fleet file."""
        return self.root / "controller.json"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def routers_file(self) -> Path:
        return self.root / "routers.json"

    @property
    def board_file(self) -> Path:
        """What several router workers have in flight (`router.board`)."""
        return self.root / "inflight.board"

    @property
    def finishes_file(self) -> Path:
        """When several router workers last got an answer of each replica (`router.finishes`)."""
        return self.board_file.with_suffix(".finishes")

    @property
    def siblings_file(self) -> Path:
        """By which routers that others run know those of another fleet (`router.siblings`)."""
        return self.root / "routers.lock"

    @property
    def settings(self) -> Path:
        """A folder: what clients have set on the whole fleet."""
        return self.root / "settings"

    @property
    def statistics_file(self) -> Path:
        return self.root / "statistics.json"

    @property
    def revisions_file(self) -> Path:
        """What the fleet was asked to be, and became."""
        return self.root / "revisions.json"

    @property
    def autoscale_file(self) -> Path:
        """What autoscaling remembers of each pool."""
        return self.root / "autoscale.json"

    @property
    def journal(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def controller_log(self) -> Path:
        return self.logs / "controller.log"

    def make(self) -> None:
        """Create the folders, for their owner only."""
        for folder in (self.root, self.logs, self.control_socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if belongs_to_a_stranger(self.control_socket.parent):
            raise PermissionError(EPERM, f"{self.control_socket.parent} belongs to another user")


def belongs_to_a_stranger(folder: Path) -> bool:
    """Whether somebody else has made it where anybody can, as in /tmp: who talks by a socket in there talks
    to them. False where it is not there."""
    try:
        found, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    return bool(above.st_mode & stat.S_IWOTH) and found.st_uid != os.geteuid()


def state_home(environ: Mapping[str, str]) -> Path:
    """The folder that holds every fleet's root."""
    if named := environ.get("TRITONFLEET_STATE_DIR"):
        return Path(named).absolute()
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "/"), ".local", "state")
    return Path(base, "tritonfleet")
