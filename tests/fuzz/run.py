"""Fuzz the targets for a while: ``make fuzz``, FUZZ_SECONDS=60 for all of them together.

With atheris (guided by coverage, libFuzzer's engine) where it is installed; else by a loop of our own, which
mutates the corpus and knows nothing of coverage: less, and it says so. What fails is kept in
tests/fuzz/corpus/TARGET/, where the tests find it from then on.
"""

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
LARGEST = 4096  # bytes of an input


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def mutated(rng: random.Random, known: list[bytes]) -> bytes:
    """One of the known inputs, changed in a few places, or two of them joined."""
    data = bytearray(rng.choice(known))
    for _ in range(rng.randint(1, 5)):
        at = rng.randint(0, len(data))
        match rng.randint(0, 5):
            case 0:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 1:
                del data[at : at + rng.randint(1, 16)]
            case 2 if at < len(data):
                data[at] ^= 1 << rng.randint(0, 7)
            case 3 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 64)]
            case _:
                other = rng.choice(known)
                data[at:] = other[rng.randint(0, len(other)) :]
    return bytes(data[:LARGEST])


def keep_failure(target: str, data: bytes) -> Path:
    path = CORPUS / target / f"failed-{sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def by_mutation(target: str, seconds: float, seed: int) -> int:
    """Exit status. Without coverage nothing is learned from one input for the next."""
    from targets import TARGETS

    rng, known, runs = random.Random(seed), seeds(target), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(rng, known)
        runs += 1
        try:
            TARGETS[target](data)
        except Exception as error:  # noqa: BLE001 # any is a find
            print(f"{target}: {error!r}\n  kept as {keep_failure(target, data)}")
            return 1
    print(
        f"{target}: {runs} inputs in {seconds:.0f} s, mutated without knowledge of coverage (no atheris here)"
    )
    return 0


def by_atheris(target: str, seconds: float, seed: int) -> int:
    """One process for each target: libFuzzer ends its process itself."""
    with tempfile.TemporaryDirectory() as found:
        command = [sys.executable, __file__, "--inside", target, found, str(CORPUS / target)]
        options = [f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", f"-max_len={LARGEST}"]
        result = subprocess.run(
            [*command, *options, "-timeout=10", f"-artifact_prefix={found}/failed-"],
            capture_output=True,
            text=True,
            timeout=seconds + 120,
            check=False,
        )
        said = result.stdout + result.stderr
        failures = sorted(Path(found).glob("failed-*"))
        for path in failures:
            why = next((line for line in said.splitlines() if "Error" in line), "see the file")
            print(f"{target}: {why.strip()[:500]}\n  kept as {keep_failure(target, path.read_bytes())}")
        done = [line for line in said.splitlines() if line.startswith("Done ")]
        if not done and not failures:
            print(said[-3000:])
        new = sum(1 for _ in Path(found).iterdir()) - len(failures)
        print(f"{target}: {done[-1] if done else 'failed'}, {new} inputs with new coverage (atheris)")
        return result.returncode


def inside(target: str, arguments: list[str]) -> None:
    """The process that atheris instruments."""
    import atheris

    with atheris.instrument_imports(include=["tritonfleet"]):
        from targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
        return 0
    names = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (%(default)g)")
    parser.add_argument("--targets", nargs="+", choices=names, default=names)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-atheris", action="store_true", help="mutate blindly, even if it is there")
    chosen = parser.parse_args()
    guided = importlib.util.find_spec("atheris") is not None and not chosen.without_atheris
    one = by_atheris if guided else by_mutation
    each = chosen.seconds / len(chosen.targets)
    return max(one(target, each, chosen.seed) for target in chosen.targets)


if __name__ == "__main__":
    sys.exit(main())
