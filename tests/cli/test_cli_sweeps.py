"""Sweeps of the real program: failures, Ctrl-C, going on."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_calls import PROGRAM, Result, environment

Call = Callable[..., Result]

TINY = ["debug=fast", "trainer.progress=none", "trainer.limit_test_batches=1"]


def read(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return contents


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the contents and times of all files of a folder."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in found}


@pytest.mark.slow
def test_sweep_is_interrupted_and_gone_on_with(tmp_path: Path, program: Call) -> None:
    """Job 1 is stopped by Ctrl-C; going on keeps job 0 as it is, finishes job 1, and loses nothing to jobs 2 and 3."""
    sweep = tmp_path / "sweep"
    asked = [*TINY, "trainer.max_epochs=30", "architecture.kernel_size=3,29", "seed=1,2"]
    words = [PROGRAM, "train", "-m", *asked, "hydra.sweep.dir=sweep"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        deadline = time.monotonic() + 240
        while not list(sweep.glob("1/checkpoints/step-*.ckpt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == str(sweep)
    assert "torchloom train sweep.resume=sweep" in err
    assert "Traceback" not in err
    summary = read(sweep)
    assert summary["status"] == "interrupted"
    assert [job["status"] for job in summary["jobs"]] == ["finished", "interrupted", "not run", "not run"]
    assert [job["number"] for job in summary["jobs"]] == [0, 1, 2, 3]
    assert [job["folder"] for job in summary["jobs"]] == ["0", "1", "2", "3"]
    assert summary["jobs"][1]["overrides"][-2:] == ["architecture.kernel_size=3", "seed=2"]
    assert "test/accuracy" in summary["jobs"][0]["metrics"]
    before = files(sweep / "0")
    steps = read(sweep / "1")["steps"]
    asked_before = (sweep / "multirun.yaml").read_bytes()

    refused = program("train", "sweep.resume=sweep", "seed=1,2", "optimizer.lr=0.5")
    assert refused.code == 2
    assert refused.err == (
        "torchloom: error: optimizer.lr=0.5: is not what the sweep was asked for\n"
        f"    Leave it out, or start a new sweep; this one was asked for: {' '.join(asked)}\n"
    )

    result = program("train", "sweep.resume=sweep")
    assert result.code == 1
    assert result.last == str(sweep)
    assert files(sweep / "0") == before
    assert (sweep / "multirun.yaml").read_bytes() == asked_before
    summary = read(sweep)
    assert summary["status"] == "failed"
    assert [job["status"] for job in summary["jobs"]] == ["finished", "finished", "failed", "failed"]
    assert read(sweep / "1")["epochs"] == 30
    assert read(sweep / "1")["steps"] == 60 > steps
    rows = list(csv.DictReader((sweep / "1" / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows[:2]] == [1, 2]  # the rows from before the stop are still there
    assert rows[-1]["epoch"] == "29"
    for job in summary["jobs"][2:]:
        assert "3 convolutions leave nothing" in job["error"]
        assert f"job {job['number']} failed: {job['error'].splitlines()[0][:40]}" in result.out
    table = [line.split() for line in result.out.splitlines()]
    assert [row[:4] for row in table if row[:1] == ["0"]] == [["0", "architecture.kernel_size=3", "seed=1", "finished"]]


@pytest.mark.slow
def test_joblib_sweep(tmp_path: Path, program: Call) -> None:
    """Two workers; a failed job does not lose the other; a sweep's folder is not written over by another sweep."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["train", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *TINY, "hydra.sweep.dir=sweep"]
    result = program(*words, "architecture.kernel_size=29,3")
    assert result.code == 1, result.err
    assert result.last == str(tmp_path / "sweep")
    summary = read(tmp_path / "sweep")
    assert [job["status"] for job in summary["jobs"]] == ["failed", "finished"]
    assert read(tmp_path / "sweep" / "1")["job"] == 1
    before = files(tmp_path / "sweep")
    again = program(*words, "seed=1,2")
    assert again.code == 2
    assert again.err == (
        "torchloom: error: hydra.sweep.dir: sweep holds a sweep already\n"
        "    Go on with it by sweep.resume=sweep, or name another folder.\n"
    )
    assert files(tmp_path / "sweep") == before
