"""Run folders as training leaves them, made without training."""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CONFIG = (
    "seed: 0\ndataset:\n  name: digits\n  batch_size: 64\narchitecture:\n  name: cnn\n  hidden_channels: [32, 64, 64]\n"
)
VERSIONS = {"torchloom": "0.1.0", "python": "3.11.9", "torch": "2.14.1", "pytorch-lightning": "2.6.6"}


def write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(["epoch", "step", *(name for row in rows for name in row)]))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def curve_rows(steps: int, every: int, start: float, end: float, **more: float) -> list[dict[str, float]]:
    noise = random.Random(0)
    rows: list[dict[str, float]] = []
    for step in range(every, steps + 1, every):
        level = end + (start - end) * math.exp(-4 * step / steps)
        rows.append(
            {"epoch": step // 100, "step": step, "train/loss": level * noise.uniform(0.9, 1.1), "lr": 1e-3, **more}
        )
        if step % (steps // 5) == 0:
            rows.append({"epoch": step // 100, "step": step, "val/loss": level * 1.1, "val/accuracy": 1 - level / 5})
    return rows


def summary_of(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "status": "finished",
        "error": None,
        "name": name,
        "components": {"architecture": {"name": name, "distribution": "torchloom", "version": "0.1.0"}},
        "metrics": {"val/loss": 0.123456, "test/loss": 0.0987654},
        "tables": {},
        "classes": None,
        "steps": 1000,
        "epochs": 10,
        "seconds": 42.1234,
        "throughput": {"samples_per_second": 12345.6, "tokens_per_second": None},
        "parameters": {"total": 93322, "trainable": 93322},
        "seed": 0,
        "compile": "false",
        "versions": VERSIONS,
        "plugins": {"torchloom-plugins": "0.1.0"},
        "notes": {},
        "checkpoint": "checkpoints/last.ckpt",
        "started": "2026-01-31T12:00:00+00:00",
    } | changes


def write_run(folder: Path, summary: dict[str, Any] | None, rows: list[dict[str, float]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if rows is not None:
        write_metrics(folder, rows)
    return folder


def write_grid(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    noise = random.Random(seed)
    image = Image.new("L", (232, 232))
    image.putdata([int(noise.random() * 255) if seed == 0 else (x * y) % 256 for y in range(232) for x in range(232)])
    image.save(path)


def write_cnn(folder: Path, **changes: Any) -> Path:
    counts = [[18 if true == guess else 0 for guess in range(10)] for true in range(10)]
    counts[4][9], counts[8][1] = 2, 1
    summary = summary_of(
        "cnn",
        metrics={"val/accuracy": 0.97, "test/loss": 0.0443, "test/accuracy": 0.98333333},
        tables={"test/confusion_matrix": counts},
        classes=[str(digit) for digit in range(10)],
        **changes,
    )
    return write_run(folder, summary, curve_rows(1000, 10, 2.3, 0.02))


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    """A finished classification run."""
    return write_cnn(tmp_path / "cnn")


@pytest.fixture
def sweep(tmp_path: Path, whole_sweep: Path) -> Path:
    """A copy of `whole_sweep` to change."""
    return shutil.copytree(whole_sweep, tmp_path / "sweep")


@pytest.fixture(scope="session")
def whole_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five jobs: text, classification, a killed one, generated images, and one that failed."""
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def write_sweep(folder: Path) -> Path:
    llm = summary_of(
        "llm",
        job=0,
        metrics={"test/loss": 1.8123, "test/perplexity": 6.1245, "val/loss": 1.85},
        throughput={"samples_per_second": 240.0, "tokens_per_second": 15360.0},
        parameters={"total": 809856, "trainable": 809856},
    )
    write_run(folder / "0", llm, curve_rows(2000, 1, 4.2, 1.8))
    (folder / "0" / "samples").mkdir()
    (folder / "0" / "samples" / "step-20.txt").write_text("xq;zz <b>&nbsp; kk")
    (folder / "0" / "samples" / "step-100.txt").write_text("ROMEO:\nWhat light through yonder window breaks?\n" * 8)
    write_cnn(folder / "1", job=1)
    write_run(folder / "2", summary_of("lstm", job=2, status="running", metrics={}), curve_rows(300, 10, 4.0, 2.0))
    path = folder / "2" / "metrics.csv"
    path.write_text(path.read_text() + "3,310,1.2")
    gan = summary_of("gan", job=3, metrics={"val/loss": 0.69, "train/d_loss": 0.6, "train/g_loss": 0.9})
    rows = [
        {"epoch": 0, "step": s, "train/d_loss": 0.69 - s / 5000, "train/g_loss": 0.7 + s / 2000}
        for s in range(5, 900, 5)
    ]
    write_run(folder / "3", gan, rows)
    write_grid(folder / "3" / "samples" / "step-9.png", 0)
    write_grid(folder / "3" / "samples" / "step-900.png", 1)
    error = "Traceback (most recent call last):\n  File 'x.py', line 1\nDataError: vgg.pt: no such file"
    vgg = summary_of(
        "vgg16",
        job=4,
        status="failed",
        error=error,
        metrics={},
        steps=0,
        parameters={"total": 21140042, "trainable": 6425354},
        notes={"base weights": "random"},
    )
    write_run(folder / "4", vgg)
    jobs = [
        {"number": n, "folder": str(n), "overrides": [f"experiment={name}", "trainer.max_steps=100"], "name": name}
        for n, name in enumerate(["llm", "cnn", "lstm", "gan", "vgg16"])
    ]
    jobs[2] |= {"status": "interrupted", "error": "killed by signal 9"}
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "jobs": jobs}))
    return folder


@pytest.fixture
def make_run() -> Callable[..., Path]:
    """Write a run's folder from a summary and rows of metrics."""
    return write_run


@pytest.fixture
def make_summary() -> Callable[..., dict[str, Any]]:
    """Make a finished run's summary, with changes by key."""
    return summary_of
