"""Load that one replica cannot carry, until the pool has grown; then none, until it has shrunk."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

TRITONFLEET = [
    sys.executable,
    "-m",
    "tritonfleet.cli.main",
    "-f",
    str(Path(__file__).with_name("tritonfleet.yaml")),
]
PATIENCE_S = 90.0


def pool() -> tuple[int, str]:
    """How many replicas are ready, and why the pool has the size that it has."""
    shown = subprocess.run([*TRITONFLEET, "ps", "-o", "json"], capture_output=True, text=True, check=True)
    [found] = json.loads(shown.stdout)["pools"]
    return found["ready"], found["reason"]


def until(ready: range) -> bool:
    """Watch the pool until its size is in the range."""
    deadline, last = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < deadline:
        count, reason = pool()
        if (line := f"  {count} ready: {reason}") != last:
            print(line, flush=True)
            last = line
        if count in ready:
            return True
        time.sleep(0.5)
    print(f"not within {PATIENCE_S:g} s", file=sys.stderr)
    return False


def main() -> int:
    text = "word " * 400  # 44 ms of a replica
    load = [*TRITONFLEET, "bench", "text_work", "--concurrency-range", "6", "--string-data", text, "-q"]
    load += ["--measurement-interval", "100s", "--warmup-interval", "1", "-o", "json"]
    print("six requests at a time:", flush=True)
    bench = subprocess.Popen(load, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    collected: list[str] = []
    reader = threading.Thread(target=lambda: collected.append(bench.communicate()[0]))
    reader.start()
    grown = until(range(2, 4))
    bench.send_signal(2)  # Ctrl-C: it reports what it measured
    reader.join()
    [level] = json.loads(collected[0])["levels"]
    print(
        f"{level['requests']} answers, {sum(level['failures'].values())} failures; and now none:", flush=True
    )
    return 0 if grown and not level["failures"] and until(range(1, 2)) else 1


if __name__ == "__main__":
    sys.exit(main())
