"""What VGG16's published convolutions are worth with ten images a class, and what caching their output saves.

    python benchmarks/vgg16.py --data FOLDER [--seeds 5] [--runs FOLDER]

FOLDER holds vgg16_imagenet/features.safetensors. Digits are scikit-learn's, Fashion-MNIST is Debian's dataset-fashion-mnist
or a download. Every run of a dataset trains on the same 100 images and is tested on the same 1,000, after its last epoch:
nothing is selected, so there is no validation. Seeds differ in initialisation (a random base included) and order. All runs take
100 epochs in batches of 20 with their experiment's own learning rate.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _runs import Runs, heading, parser, spread, table

COMMON = [
    "dataset.train_per_class=10",
    "dataset.test_limit=1000",
    "dataset.batch_size=20",
    "trainer.max_epochs=100",
    "trainer.limit_val_batches=0",
    "callbacks=[]",
]
DATASETS = {
    "digits": (["dataset=digits", "dataset.test=0.6"], 64),
    "Fashion-MNIST": (["dataset=fashion_mnist"], 96),
}
REAL, RANDOM, SCRATCH = "VGG16, ImageNet's weights", "VGG16, random weights", "`cnn` from scratch, 28 pixels"
STILL = ["dataset.augment=true", "dataset.max_shift=0", "dataset.max_rotation=0", "dataset.max_zoom=0"]
"""Augmentation that changes nothing, but whose images count as new ones in every epoch."""


def accuracies(runs: Runs, weights: str, dataset: str, seeds: int) -> dict[str, list[float]]:
    """Return test accuracies of every contender, one a seed."""
    chosen, size = DATASETS[dataset]
    vgg16 = ["experiment=vgg16", *chosen, f"dataset.image_size={size}"]
    contenders = {
        SCRATCH: ["experiment=cnn", *chosen],
        REAL: [*vgg16, f"architecture.weights={weights}"],
        RANDOM: vgg16,
    }
    return {
        name: [runs.train(*overrides, *COMMON, f"seed={seed}")["metrics"]["test/accuracy"] for seed in range(seeds)]
        for name, overrides in contenders.items()
    }


def seconds_an_epoch(runs: Runs, weights: str, epochs: int, *overrides: str) -> float:
    """Return the mean time of the epochs after the first of `experiment=vgg16`, validation and checkpoint included."""
    settings = ["experiment=vgg16", f"architecture.weights={weights}", *overrides, "trainer.limit_test_batches=0"]
    one, more = (runs.train(*settings, f"trainer.max_epochs={count}")["seconds"] for count in (1, 1 + epochs))
    return float((more - one) / epochs)


def main() -> int:
    options = parser(__doc__, seeds=5).parse_args()
    weights = Path(options.data or "") / "vgg16_imagenet" / "features.safetensors"
    if not weights.is_file():
        sys.exit(f"{weights}: there is no such file; name the folder above it with --data or TORCHLOOM_DATA")
    runs = Runs(options.runs)
    found = {name: accuracies(runs, str(weights), name, options.seeds) for name in DATASETS}
    kept = seconds_an_epoch(runs, str(weights), 20)
    recomputed = seconds_an_epoch(runs, str(weights), 1, *STILL)

    print(heading("VGG16's frozen convolutions", options))
    print("Test accuracy with 10 training images a class: mean and deviation over seeds, on the same 100 training and")
    print("1,000 test images (`dataset.split_seed=0`), after the last of 100 epochs.\n")
    sizes = [f"{name} (VGG16 at {size} pixels)" for name, (_, size) in DATASETS.items()]
    rows = [[name, *(spread(found[dataset][name], 3) for dataset in DATASETS)] for name in (REAL, RANDOM, SCRATCH)]
    print(table(["", *sizes], rows))
    print(
        "\nSeconds of each epoch after the first of `experiment=vgg16` (1,259 digits of 64 pixels), validation and checkpoint"
    )
    print("included, with the convolutions' output kept, and computed anew in every epoch:\n")
    print(table(["kept", "computed anew", "ratio"], [[f"{kept:.2f}", f"{recomputed:.1f}", f"{recomputed / kept:.0f}"]]))
    means = {data: {name: sum(values) for name, values in each.items()} for data, each in found.items()}
    best = all(each[REAL] > max(each[RANDOM], each[SCRATCH]) for each in means.values())
    return 0 if best and recomputed >= 20 * kept else 1


if __name__ == "__main__":
    sys.exit(main())
