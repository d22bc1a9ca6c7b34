"""Ways to call the program: in this process, which is quick, and as the program itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import PROGRAM, Result, environment

from torchloom.cli import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the program's entry point here, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("TORCHLOOM_TRACEBACK", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Result]:
    """Start the program itself in an empty folder."""

    def run(*words: str) -> Result:
        done = subprocess.run(
            [PROGRAM, *words], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
