"""Every experiment of a task runs from end to end on a few examples, on data of one's own and on the real files."""

import math
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torchloom

QUIET = ["debug=fast", "trainer.accelerator=cpu", "trainer.progress=none", "dataset.batch_size=4"]
SMALL = ["architecture.d_model=16", "architecture.num_layers=1", "architecture.num_heads=2"]
FEW = ["dataset.examples=40", "dataset.eval_examples=10"]
HALF = ["dataset.val_fraction=0.25", "dataset.test_fraction=0.25"]


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train for two steps; return the run's summary."""
    config = torchloom.compose([*overrides, *QUIET])
    small = SMALL if "d_model" in config.architecture else ["architecture.hidden_size=16"]
    summary = torchloom.train(torchloom.compose([*overrides, *small, *QUIET]), folder)
    assert summary["status"] == "finished"
    assert summary["steps"] == 2
    assert math.isfinite(summary["metrics"]["test/loss"])
    return summary


def real(name: str) -> Path:
    """Return a folder of real data, or skip."""
    if "TORCHLOOM_DATA" not in os.environ:
        pytest.skip("TORCHLOOM_DATA is not set")
    folder = Path(os.environ["TORCHLOOM_DATA"]) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def table(path: Path, rows: int, line: str) -> Path:
    """Write lines that differ in a number each."""
    path.write_text("".join(line.format(number=number, odd=number % 2) + "\n" for number in range(rows)))
    return path


def test_babi_and_questions_that_are_made_up(tmp_path: Path) -> None:
    assert "test/accuracy" in train(tmp_path / "classes", "experiment=babi", *FEW)["metrics"]
    assert {"test/em", "test/f1"} <= train(tmp_path / "spans", "experiment=qa", *FEW)["metrics"].keys()


@pytest.mark.parametrize("experiment", ["lookups", "facts"])
def test_tasks_made_up_for_special_modules(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLOOM_DATASETS", str(tmp_path / "data"))
    assert "test/accuracy" in train(tmp_path / "run", f"experiment={experiment}", *FEW)["metrics"]
    if experiment == "facts":
        assert len((tmp_path / "data" / "facts-0-40-10.txt").read_text().splitlines()) == 60


def test_babi_on_its_real_test(tmp_path: Path) -> None:
    real_test = f"dataset.test_path={real('babi')}"
    assert "test/accuracy" in train(tmp_path, "experiment=babi", real_test, *FEW)["metrics"]


def test_an_encoder_is_pre_trained_and_goes_on_to_a_task(tmp_path: Path) -> None:
    metrics = train(tmp_path / "bert", "experiment=bert", "trainer.val_every_n_steps=null")["metrics"]
    assert "test/perplexity" in metrics
    texts = table(tmp_path / "moods.tsv", 40, "film number {number} was seen\t{odd}")
    start = [f"architecture.init_from={tmp_path / 'bert'}"]
    tuned = train(tmp_path / "tuned", "experiment=sentiment", f"dataset.path={texts}", *HALF, *start)
    assert "test/accuracy" in tuned["metrics"]


def test_both_halves_of_berts_pre_training(tmp_path: Path) -> None:
    metrics = train(tmp_path, "experiment=bert_pairs", "trainer.val_every_n_steps=null")["metrics"]
    assert {"test/accuracy", "test/mlm_accuracy"} <= metrics.keys()


def test_entailment(tmp_path: Path) -> None:
    line = '{{"premise": "it is {number}", "hypothesis": "{number} is odd", "label": {odd}}}'
    pairs = table(tmp_path / "pairs.jsonl", 40, line)
    classes = "dataset.classes=[entailment,contradiction]"
    words = [classes, "tokenizer.vocab_size=45", *HALF]
    metrics = train(tmp_path / "run", "experiment=entailment", f"dataset.path={pairs}", *words)["metrics"]
    assert "test/accuracy" in metrics


@pytest.mark.parametrize(("experiment", "name"), [("sentiment", "sst2"), ("entailment", "sick")])
def test_the_real_files_as_they_come(experiment: str, name: str, tmp_path: Path) -> None:
    metrics = train(tmp_path, f"experiment={experiment}", f"dataset.path={real(name)}")["metrics"]
    assert "test/accuracy" in metrics


def test_a_series_is_forecast_and_the_last_value_stands_beside(tmp_path: Path) -> None:
    metrics = train(tmp_path, "experiment=forecast")["metrics"]
    assert {"test/mae", "test/naive_mae"} <= metrics.keys()


@pytest.mark.parametrize(
    ("experiment", "metric", "package"),
    [("translation", "test/bleu", "sacrebleu"), ("summarisation", "test/rougeL", "rouge_score")],
)
def test_text_is_made_of_text(experiment: str, metric: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package, reason=f"measures with {package}")
    texts = table(tmp_path / "texts.tsv", 40, "the number {number} is seen\tnumber {number}")
    words = [f"dataset.path={texts}", "tokenizer.vocab_size=280", *HALF]
    metrics = train(tmp_path / "run", f"experiment={experiment}", *words)["metrics"]
    assert metric in metrics
    loaded = torchloom.load(tmp_path / "run")
    assert [set(record) for record in loaded.predict(["the number 3 is seen", "number"])] == [{"prediction"}] * 2
    assert set(loaded.predict()[0]) == {"prediction", "loss"}


def test_spoken_words(tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "words" / ("low", "high")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = 2 * np.pi * (300 + 900 * (number % 2) + number) * np.arange(4_000) / 16_000
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((8_000 * np.sin(wanted)).astype("<i2").tobytes())
    metrics = train(tmp_path / "run", "experiment=keywords", f"dataset.path={tmp_path / 'words'}", *HALF)["metrics"]
    assert "test/accuracy" in metrics
