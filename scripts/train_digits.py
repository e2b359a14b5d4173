"""Train the `digits` model and write its weights: ``python scripts/train_digits.py``.

scikit-learn's digits (1,797 pictures of 8x8) in, ``model_repository/digits/1/weights.npz`` and
``model_repository/digits/samples.json`` (a held-out picture of each digit, to try the model with) out.
The same machine writes the same bytes every time. Prints the held-out accuracy.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

MODEL = Path(__file__).resolve().parent.parent / "model_repository" / "digits"
PIXEL_MAX = 16.0
HIDDEN = 32
SEED = 7

Arrays = dict[str, np.ndarray]


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, held-out images [n, 64] (0 to 16), training labels, held-out labels [n]."""
    images, labels = load_digits(return_X_y=True)
    train_images, held_images, train_labels, held_labels = train_test_split(
        images.astype(np.float32), labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return train_images, held_images, train_labels, held_labels


def train(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Weights and biases of 64 → HIDDEN → 10, as float16: the rounding costs no accuracy."""
    network = MLPClassifier((HIDDEN,), alpha=1.0, solver="lbfgs", max_iter=200, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are the recipe, not a failure
        network.fit(images / PIXEL_MAX, labels)
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    return {name: a.astype(np.float16) for name, a in (("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2))}


def classify(weights: Arrays, images: np.ndarray) -> np.ndarray:
    """The digit of each image [n, 64], as the model computes it."""
    w1, b1, w2, b2 = (weights[name].astype(np.float32) for name in ("w1", "b1", "w2", "b2"))
    return (np.maximum(images / PIXEL_MAX @ w1 + b1, 0) @ w2 + b2).argmax(axis=1)


def samples(weights: Arrays, images: np.ndarray, labels: np.ndarray) -> list[dict[str, object]]:
    """The first image of each digit that is recognised: they show that a server works, not how well."""
    labels = np.where(classify(weights, images) == labels, labels, -1)
    chosen = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    return [{"label": int(labels[i]), "image": [int(pixel) for pixel in images[i]]} for i in chosen]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="folder of the model (default: %(default)s)"
    )
    model: Path = parser.parse_args(argv).model
    train_images, held_images, train_labels, held_labels = split()
    weights = train(train_images, train_labels)
    path = model / "1" / "weights.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **weights)
    lines = ",\n".join(json.dumps(sample) for sample in samples(weights, held_images, held_labels))
    (model / "samples.json").write_text(f"[\n{lines}\n]\n")
    accuracy = (classify(weights, held_images) == held_labels).mean()
    print(f"{path}: {path.stat().st_size} bytes, {accuracy:.1%} of {len(held_labels)} held-out images right")


if __name__ == "__main__":
    main()
