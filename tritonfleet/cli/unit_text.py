"""A systemd unit for a fleet's controller. Pure."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """``command``: the program and what comes before the subcommand, absolute. ``user``: whose the processes
    of a unit of the system are. ``state_dir`` "": the default."""

    fleet: str
    command: tuple[str, ...]
    folder: str
    user: str = ""
    system: bool = False
    state_dir: str = ""
    docker: bool = False

    @property
    def name(self) -> str:
        return f"tritonfleet-{self.fleet}.service"


def unit_text(service: Service) -> str:
    command = " ".join(quoted(word) for word in service.command)
    return "\n".join(
        [
            "# Written by `tritonfleet service install`, which writes it anew with --force.",
            "[Unit]",
            f"Description=Triton fleet {service.fleet}",
            *_after(service),
            "",
            "[Service]",
            "# Ready when every pool has its size ready; `systemctl status` shows how far it is. A first",
            "# start may pull images and load models for long: nothing is gained by giving up on it.",
            "Type=notify",
            "TimeoutStartSec=infinity",
            *([f"User={service.user}"] if service.user else []),
            f"WorkingDirectory={service.folder.replace('%', '%%')}",
            *_state(service),
            f"ExecStart={command} controller",
            f"ExecReload={command} up -d -y",
            "# Stopping the unit stops the fleet. Replicas and router are to outlive a controller that dies,",
            "# so that its successor adopts them: hence KillMode.",
            f"ExecStop={command} down -y",
            "TimeoutStopSec=15min",
            "KillMode=process",
            "Restart=on-failure",
            "RestartSec=1",
            "LimitNOFILE=65536",
            "",
            "[Install]",
            f"WantedBy={'multi-user.target' if service.system else 'default.target'}",
            "",
        ]
    )


def _after(service: Service) -> list[str]:
    if not service.system:
        return []
    needed = "docker.service" if service.docker else ""
    lines = [f"After=network-online.target {needed}".rstrip(), "Wants=network-online.target"]
    return [*lines, f"Requires={needed}"] if needed else lines


def _state(service: Service) -> list[str]:
    if service.state_dir:
        setting = f"TRITONFLEET_STATE_DIR={service.state_dir}"
        return [f"Environment={quoted(setting).replace('$$', '$')}"]  # no command line: $ is itself
    if service.system:
        return ["StateDirectory=tritonfleet", "Environment=TRITONFLEET_STATE_DIR=/var/lib/tritonfleet"]
    return []


def quoted(word: str) -> str:
    """As systemd reads it back: % and $ are doubled, blanks and quotes are within quotes."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9@%$_+=:,./-]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
