"""Where builds run: on clusters as on this machine, and without a word on the terminal."""

from __future__ import annotations

import logging
import os
import re
import stat
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from corpus_build_parts import contents, make, write_lines

from torchloom.errors import DataError, UnsupportedError

SLURM: dict[str, Any] = {"name": "slurm", "partition": "cpu", "poll_seconds": 0.05}

# A Slurm of one machine that runs the tasks of an array one behind the other when the job is submitted, and writes down
# what it was asked for. It tells of jobs as ended.
STAND_INS = {
    "sbatch": """
        import os, re, shutil, subprocess, sys
        here = os.path.dirname(os.path.abspath(sys.argv[0]))
        script = open(sys.argv[-1]).read()
        jobs = os.path.join(here, "jobs")
        os.makedirs(jobs, exist_ok=True)
        number = str(101 + len(os.listdir(jobs)))
        with open(os.path.join(jobs, number), "w") as file:
            file.write(" ".join(sys.argv[1:-1]) + "\\n" + script)
        exports = dict(one.split("=") for word in sys.argv[1:] if word.startswith("--export=ALL,")
                       for one in [word.removeprefix("--export=ALL,")])
        last = int(re.search(r"--array=0-(\\d+)", script)[1])
        for task in range(last + 1):
            environment = {**os.environ, **exports, "SLURM_ARRAY_TASK_ID": str(task)}
            subprocess.run(["bash", sys.argv[-1]], env=environment, capture_output=True)
        print("Submitted batch job", number)
    """,
    "srun": """
        import os, sys
        words = [word for word in sys.argv[1:] if word != "-l"]
        os.execvp(words[2], words[2:])  # behind -n 1
    """,
    "squeue": "",
    "scancel": """
        import os, sys
        with open(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "cancelled"), "w") as file:
            file.write(" ".join(sys.argv[1:]))
    """,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "source")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm's programs."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, code in STAND_INS.items():
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return folder


@pytest.mark.slow
def test_slurm_gives_the_bytes_of_this_machine(source: Path, tmp_path: Path, slurm: Path) -> None:
    engine = {
        **SLURM,
        "time": "01:30:00",
        "mem_per_cpu_gb": 3,
        "sbatch": {"account": "lab"},
        "workers": 2,
        "tasks_per_job": 2,
    }
    out = make(source, tmp_path / "corpus", ["long"], engine=engine, tasks=2)
    assert contents(out) == contents(make(source, tmp_path / "local", ["long"], tasks=2))
    jobs = [path.read_text() for path in sorted((slurm / "jobs").iterdir())]
    names = [re.search(r"--job-name=(\w+)", job)[1] for job in jobs]  # type: ignore[index]
    assert names == [
        f"corpus_{name}" for name in ("00_prepare", "01_documents", "02_tokenizer", "03_tokens", "04_finish")
    ]
    assert [re.findall(r"--dependency=(\S+)", job) for job in jobs] == [[], *[[f"afterok:{101 + n}"] for n in range(4)]]
    for line in ("partition=cpu", "time=01:30:00", "mem-per-cpu=3G", "account=lab", "array=0-0%2", "cpus-per-task=1"):
        assert f"#SBATCH --{line}\n" in jobs[1]
    assert f"export PATH={Path(sys.executable).parent}:$PATH\n" in jobs[1]


def test_slurm_tells_of_the_task_that_failed_and_cancels_the_others(source: Path, tmp_path: Path, slurm: Path) -> None:
    (source / "1.txt").write_text("this one goes boom\n" * 50)
    with pytest.raises(DataError, match=r"pass '01_documents': task 1 of 2 failed: step 'shout' failed at 11 of 11"):
        make(source, tmp_path / "corpus", ["shout"], engine={**SLURM, "tasks_per_job": 2}, tasks=2)
    assert (slurm / "cancelled").read_text() == "101 102 103 104 105"


def test_slurm_tells_of_jobs_that_end_without_a_word(source: Path, tmp_path: Path, slurm: Path) -> None:
    with pytest.raises(DataError, match=r"pass '00_prepare': its jobs have ended before their tasks were complete"):
        make(source, tmp_path / "corpus", engine={**SLURM, "setup": "exit 1"})


def test_slurm_where_there_is_none_says_what_to_do(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"needs Slurm's sbatch(.|\n)*set engine=local"):
        make(source, tmp_path / "corpus", engine=SLURM)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_this_machine(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs torchloom[ray]")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    engine = {"name": "ray", "mem_per_cpu_gb": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files open
        out = make(source, tmp_path / "corpus", ["long", "unique"], engine=engine, tasks=2)
        (source / "1.txt").write_text("this one goes boom\n" * 50)
        with pytest.raises(DataError, match=r"pass '01_documents': task 1 of 2 failed: step 'shout' failed at 11 of"):
            make(source, tmp_path / "broken", ["shout"], engine=engine, tasks=2)
    write_lines(source)
    assert contents(out / "tokens") == contents(
        make(source, tmp_path / "local", ["long", "unique"], tasks=2) / "tokens"
    )


def test_logs_go_to_files_and_not_to_the_terminal(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (source / "0.txt").write_text("this one goes boom\n" * 50)
    for workers in (1, 2):
        with pytest.raises(DataError):
            make(source, tmp_path / f"{workers}", ["shout"], engine={"name": "local", "workers": workers})
        log = tmp_path / f"{workers}" / "work" / "logs" / "01_documents" / "logs" / "task_00000.log"
        assert f"reading {source}/0.txt" in log.read_text()
        assert "step 'shout' failed at document '0.txt/3'" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_logging_is_given_back(source: Path, tmp_path: Path) -> None:
    handlers, showwarning = list(logging.getLogger().handlers), warnings.showwarning
    make(source, tmp_path / "corpus")
    assert logging.getLogger().handlers == handlers
    assert warnings.showwarning is showwarning


def test_tasks_share_the_cores_with_tokenizers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    make(source, tmp_path / "corpus")
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_terminal_shows_the_passes(source: Path, tmp_path: Path) -> None:
    """Build on a pseudo-terminal, as a person does."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import corpus_build_parts as p; from pathlib import Path;"
        "p.make(Path(sys.argv[2]), Path(sys.argv[3]), ['long'])"
    )
    master, slave = os.openpty()
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(source), str(tmp_path / "corpus")]
    process = subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "100"})
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    for name in ("00_prepare", "01_documents", "04_finish"):
        assert re.search(rf"{name} .*", text)
    assert re.search(r"01_documents\s+\S+\s+3/3", text)
