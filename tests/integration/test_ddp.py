"""Two processes take the same steps as one, unequal token counts included."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RAGGED = '''
import torch
from dataclasses import dataclass
from torchloom import Component, hookimpl
from torchloom.configs import DatasetConfig

@dataclass
class Config(DatasetConfig):
    """No further fields."""

@hookimpl
def torchloom_components():
    return [Component("dataset", "ragged", "ragged_plugin:Ragged", "ragged_plugin:Config", "Rows of very unequal length.")]

def __getattr__(name):
    from torchloom.contracts.dataset import Dataset, TensorSplit
    from torchloom.contracts.spec import TokenSpec

    class Ragged(Dataset):
        spec = TokenSpec(vocab_size=11, context_length=16)

        def split(self, name):
            generator = torch.Generator().manual_seed(len(name))
            tokens = torch.randint(0, 11, (48, 17), generator=generator)
            lengths = torch.where(torch.arange(48) % 2 == 0, 2, 17)
            return TensorSplit(tokens=tokens, length=lengths[torch.randperm(48, generator=generator)])

    if name == "Ragged":
        return Ragged
    raise AttributeError(name)
'''


def train(folder: Path, *overrides: str, sweep: bool = False, path: Path | None = None) -> str:
    place = f"hydra.sweep.dir={folder}" if sweep else f"hydra.run.dir={folder}"
    command = [sys.executable, "-m", "torchloom", "train", *(["-m"] if sweep else []), place, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_rows(one: Path, two: Path) -> None:
    first, second = rows(one), rows(two)
    assert len(first) == len(second) > 3
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            assert float(left[name] or 0) == pytest.approx(float(right[name] or 0), rel=2e-5, abs=1e-6), name


COMMON = ["trainer.accelerator=cpu", "trainer.progress=none", "trainer.log_every_n_steps=2", "optimizer=sgd"]
TWO = ["parallel=ddp", "trainer.devices=2"]


def test_images_under_m_with_one_folder_a_job(tmp_path: Path) -> None:
    settings = [
        *COMMON,
        "dataset.batch_size=64",
        "trainer.max_steps=8",
        "trainer.val_every_n_steps=4",
        "optimizer.lr=0.1",
    ]
    train(tmp_path / "one", *settings)
    out = train(tmp_path / "two", *settings, *TWO, "seed=0,1", sweep=True)
    assert_equal_rows(tmp_path / "one", tmp_path / "two" / "0")
    assert sorted(path.name for path in (tmp_path / "two").iterdir() if path.is_dir()) == ["0", "1"]
    assert out.splitlines()[-1] == str(tmp_path / "two")
    summaries = [json.loads((tmp_path / "two" / job / "summary.json").read_text()) for job in "01"]
    assert [summary["status"] for summary in summaries] == ["finished", "finished"]
    assert [summary["job"] for summary in summaries] == [0, 1]
    one = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summaries[0]["metrics"]["test/loss"] == pytest.approx(one["metrics"]["test/loss"], rel=1e-5)
    assert summaries[0]["tables"] == one["tables"]


def test_ragged_texts_accumulated_and_clipped(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "ragged-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "ragged_plugin.py").write_text(RAGGED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ragged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[torchloom.plugins]\nragged = ragged_plugin\n")
    settings = [
        *COMMON,
        "dataset=ragged",
        "architecture=lstm",
        "objective=clm",
        "trainer.max_steps=6",
        "trainer.gradient_clip=0.5",
        "optimizer.lr=1.0",
    ]
    train(tmp_path / "whole", *settings, "dataset.batch_size=16", path=site)
    train(
        tmp_path / "parts",
        *settings,
        *TWO,
        "dataset.batch_size=4",
        "trainer.accumulate_grad_batches=4",
        "dataset.eval_batch_size=16",
        path=site,
    )
    assert_equal_rows(tmp_path / "whole", tmp_path / "parts")
