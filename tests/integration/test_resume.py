"""A run that was stopped anywhere goes on as if it had not been: the same rows, bit for bit."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from torchloom import checkpoint, composing, run
from torchloom.errors import CheckpointError, ConfigError

STEPS = 24
SETTINGS = [
    "architecture.dropout=0.2",
    "dataset.augment=true",
    "dataset.batch_size=64",
    "optimizer=adamw",
    "scheduler=cosine",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=8",
    "trainer.log_every_n_steps=3",
    "trainer.progress=none",
    "callbacks.checkpoint.every_n_steps=1",
    "callbacks.checkpoint.keep=100",
]


def rows(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs of eight steps, with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run.train(composing.compose(SETTINGS), folder)
    return folder


def cut_back(whole: Path, folder: Path, step: int) -> Path:
    """Copy a run as it was when the checkpoint of a step was the newest; later rows stand there already."""
    shutil.copytree(whole, folder)
    for path in checkpoint.saved(folder):
        if path > checkpoint.path_of(folder, step):
            path.unlink()
    return checkpoint.path_of(folder, step)


def go_on(path: Path, folder: Path, *overrides: str) -> None:
    run.train(run.continued(path, overrides), folder)


# 3 and 15: on a row; 5: between two; 8 and 16: behind an epoch's validation; 9 and 17: the first step of an epoch.
@pytest.mark.parametrize("step", [3, 5, 8, 9, 15, 16, 17])
def test_a_continued_run_has_the_rows_of_an_uninterrupted_one(whole: Path, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "cut"
    go_on(cut_back(whole, folder, step), folder)
    assert rows(folder) == rows(whole)
    weights = [torch.load(checkpoint.path_of(one, STEPS), weights_only=True)["state_dict"] for one in (folder, whole)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_validation_within_an_epoch_is_not_lost_when_it_falls_on_a_checkpoint(tmp_path: Path) -> None:
    settings = [*SETTINGS, "trainer.max_steps=18", "trainer.val_every_n_steps=5"]
    run.train(composing.compose(settings), tmp_path / "whole")
    for step in (5, 10, 15):
        folder = tmp_path / f"cut{step}"
        go_on(cut_back(tmp_path / "whole", folder, step), folder)
        assert rows(folder) == rows(tmp_path / "whole")


def test_accumulated_steps_and_a_longer_limit(tmp_path: Path) -> None:
    settings = [
        *SETTINGS,
        "trainer.accumulate_grad_batches=4",
        "trainer.max_epochs=20",
        "trainer.max_steps=8",
        "scheduler=constant",
    ]
    run.train(composing.compose(settings), tmp_path / "long")
    run.train(composing.compose([*settings, "trainer.max_steps=5"]), tmp_path / "short")
    go_on(checkpoint.newest(tmp_path / "short"), tmp_path / "short", "trainer.max_steps=8")
    assert rows(tmp_path / "short") == rows(tmp_path / "long")


@pytest.mark.slow
def test_a_compiled_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = [*SETTINGS, "compile=true"]
    run.train(composing.compose(settings), tmp_path / "whole")
    folder = tmp_path / "cut"
    go_on(cut_back(tmp_path / "whole", folder, 10), folder)
    assert rows(folder) == rows(tmp_path / "whole")
    state = torch.load(checkpoint.path_of(folder, STEPS), weights_only=True)["state_dict"]
    assert not [key for key in state if "_orig_mod" in key]


def test_a_killed_run_passes_over_a_checkpoint_cut_short_and_ends_like_an_unkilled_one(
    whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "torchloom", "train", f"hydra.run.dir={folder}", *SETTINGS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(checkpoint.saved(folder)) < 5:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    newest = checkpoint.saved(folder)[0]
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    before = checkpoint.newest(folder)
    assert before < newest
    with pytest.raises(CheckpointError, match=f"cut short; the newest whole one of that run is {before}"):
        checkpoint.read(newest)
    done = subprocess.run(
        [sys.executable, "-m", "torchloom", "train", "ckpt=last", f"hydra.run.dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder)
    assert rows(folder) == rows(whole)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_and_leaves_a_run_that_goes_on(sent: int, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    settings = [*SETTINGS, "callbacks.checkpoint.every_n_steps=null"]
    command = [sys.executable, "-m", "torchloom", "train", f"hydra.run.dir={folder}", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").is_file() or len(rows(folder)) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    out, errors = process.communicate()
    assert process.returncode == 130
    assert out.splitlines()[-1] == str(folder)
    assert f"torchloom: stopped; go on with\n    torchloom train ckpt=last hydra.run.dir={folder}\n" in errors
    assert run.read_summary(folder)["status"] == "interrupted"
    go_on(checkpoint.newest(folder), folder)
    assert rows(folder) == rows(whole)
    assert run.read_summary(folder)["status"] == "finished"


def test_what_must_stay_is_refused_by_name_all_at_once(whole: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run.continued(
            checkpoint.newest(whole), ["optimizer.lr=0.5", "seed=3", "trainer.max_steps=50", "architecture.dropout=0.0"]
        )
    assert [problem.place for problem in caught.value.problems] == ["architecture.dropout", "optimizer.lr", "seed"]
    assert "cannot change in a run that is continued; it was 0.2" in str(caught.value)
