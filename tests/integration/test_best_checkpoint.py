"""The checkpoint that a run is tested on."""

import csv
from pathlib import Path

import pytest

import torchloom
from torchloom import checkpoint


@pytest.mark.parametrize("lr", [0.0, 0.03])
def test_the_best_checkpoint_is_the_newest_of_those_with_the_best_metric(tmp_path: Path, lr: float) -> None:
    settings = ["experiment=cnn", "dataset=digits", "trainer.max_epochs=6", "trainer.limit_train_batches=10"]
    limits = [
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=0",
        "trainer.progress=none",
        f"optimizer.lr={lr}",
    ]
    torchloom.train(torchloom.compose([*settings, *limits]), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        scores = {int(row["step"]): float(row["val/accuracy"]) for row in csv.DictReader(file) if row["val/accuracy"]}
    assert len(scores) == 6
    best = max(scores, key=lambda step: (scores[step], step))
    assert checkpoint.read(tmp_path / checkpoint.FOLDER / checkpoint.BEST)["global_step"] == best
