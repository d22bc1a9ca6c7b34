"""Choices made while a run is put together: compiling, recomputing, limits, and what other words change."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchloom
from torchloom import assembly, checkpoint
from torchloom.configs import TrainerConfig

TEXT = [
    "debug=fast",
    "trainer.accelerator=cpu",
    "dataset=python_docs",
    "dataset.batch_size=4",
    "dataset.context_length=16",
    "architecture=decoder",
    "architecture.d_model=32",
    "architecture.num_layers=2",
    "objective=clm",
]


def decide(*overrides: str, manual: bool = False, batches: int = 100) -> bool:
    config = torchloom.compose(["trainer.accelerator=cpu", *overrides])
    return assembly.decide_compile(config, assembly.trainer_settings(config), batches, manual=manual)


def test_a_processor_compiles_by_itself_only_where_a_long_run_repays_it() -> None:
    assert not decide()
    assert not decide("trainer.max_steps=2000")
    assert decide("trainer.max_steps=60000")
    assert not decide("trainer.max_steps=60000", "trainer.max_epochs=3")
    assert decide("compile=true")
    assert not decide("compile=false", "trainer.max_steps=60000")


def test_a_manual_objective_runs_uncompiled_and_says_so() -> None:
    assert not decide("trainer.max_steps=60000", manual=True)
    with pytest.warns(RuntimeWarning, match="objective 'classification' takes its own steps and runs uncompiled"):
        assert not decide("compile=true", manual=True)


def test_epochs_and_steps_limit_a_run_together() -> None:
    assert assembly.planned_steps(TrainerConfig(max_epochs=3), 10) == 30
    assert assembly.planned_steps(TrainerConfig(max_epochs=3, accumulate_grad_batches=4), 10) == 9
    assert assembly.planned_steps(TrainerConfig(max_epochs=3, max_steps=7), 10) == 7
    assert assembly.planned_steps(TrainerConfig(max_steps=7), 1) == 7
    assert assembly.trainer_settings(torchloom.compose([])).max_epochs == assembly.DEFAULT_EPOCHS


def test_words_that_must_not_change_the_numbers(tmp_path: Path) -> None:
    """Kernels and recomputed activations: the same losses and the same checkpoint keys."""
    variants = {"plain": [], "math": ["attention=math"], "recomputed": ["trainer.activation_checkpointing=true"]}
    losses, keys = {}, {}
    for name, overrides in variants.items():
        folder = tmp_path / name
        losses[name] = torchloom.train(torchloom.compose([*TEXT, *overrides]), folder)["metrics"]["val/loss"]
        keys[name] = list(checkpoint.read(checkpoint.newest(folder))["state_dict"])
    assert losses["math"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["recomputed"] == losses["plain"]
    assert keys["plain"] == keys["math"] == keys["recomputed"]


def test_dropout_is_recomputed_as_it_was(tmp_path: Path) -> None:
    noisy = [*TEXT, "architecture.dropout=0.3"]
    plain = torchloom.train(torchloom.compose(noisy), tmp_path / "plain")
    again = torchloom.train(torchloom.compose([*noisy, "trainer.activation_checkpointing=true"]), tmp_path / "again")
    assert plain["metrics"] == again["metrics"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_train(precision: str, tmp_path: Path) -> None:
    summary = torchloom.train(torchloom.compose([*TEXT, f"trainer.precision={precision}"]), tmp_path)
    assert summary["status"] == "finished"
    assert 3.0 < summary["metrics"]["val/loss"] < 6.0


def test_a_model_that_cannot_be_compiled_runs_as_it_is_with_one_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "torchloom", "train", *TEXT, "compile=true", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the model runs uncompiled: torch.compile failed:") == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["compile"] is False


def test_generation_needs_the_checkpoint_alone(tmp_path: Path) -> None:
    torchloom.train(torchloom.compose(TEXT), tmp_path / "run")
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(checkpoint.newest(tmp_path / "run").read_bytes())
    loaded = torchloom.load(alone)
    first, again = (loaded.generate("import ", seed=3, max_new_tokens=30).texts[0] for _ in range(2))
    assert first == again
    assert first.startswith("import ")
    assert len(first) == len("import ") + 30
    uncached = loaded.generate("import ", seed=3, max_new_tokens=30, use_cache=False).texts[0]
    assert uncached == first
    assert torch.is_grad_enabled()
