"""Accuracy of the convolutional network on digits and on Fashion-MNIST.

    python benchmarks/cnn.py [--seeds 5] [--fashion-seeds 2] [--runs FOLDER]

Digits are scikit-learn's, on one fixed split (dataset.split_seed=0) of which the seeds share everything: they differ in
initialisation, order and augmentation. Fashion-MNIST is its own test set; on Debian it is `apt-get install
dataset-fashion-mnist`. No test image is looked at before the end; the checkpoint is chosen by accuracy on a tenth of
the training images.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from _runs import Runs, heading, parser, spread, table

ACCURACY = "test/accuracy"


def row(name: str, summaries: list[dict[str, Any]], aim: str) -> list[str]:
    accuracies = [one["metrics"][ACCURACY] for one in summaries]
    seconds = [one["seconds"] for one in summaries]
    return [
        name,
        f"{summaries[0]['parameters']['total']:,}",
        str(summaries[0]["epochs"]),
        spread(accuracies),
        ", ".join(f"{value:.4f}" for value in accuracies),
        aim,
        f"{min(seconds):.0f} to {max(seconds):.0f}",
    ]


def main() -> int:
    made = parser(__doc__, seeds=5)
    made.add_argument("--fashion-seeds", type=int, default=2, help="runs on Fashion-MNIST; 0 leaves it out")
    options = made.parse_args()
    runs = Runs(options.runs)
    digits = [runs.train("experiment=cnn", f"seed={seed}") for seed in range(options.seeds)]
    rows = [row("`experiment=cnn`", digits, "0.985 or more")]
    fashion = [runs.train("experiment=cnn_fashion", f"seed={seed}") for seed in range(options.fashion_seeds)]
    if fashion:
        rows.append(row("`experiment=cnn_fashion`", fashion, "0.91 or more"))
    print(heading("The convolutional network on images", options))
    print(
        "Accuracy on test images by the checkpoint that was best on validation images; mean and deviation over seeds."
    )
    print("Seconds are those of a run's training, validations and test.\n")
    print(table(["", "parameters", "epochs", "test accuracy", "each seed", "aim", "seconds a run"], rows))
    reached = statistics.mean(one["metrics"][ACCURACY] for one in digits) >= 0.985
    reached &= all(one["metrics"][ACCURACY] >= 0.91 for one in fashion)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
