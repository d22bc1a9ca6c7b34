"""The page about a run or a sweep: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import base64
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from torchloom.errors import ConfigError, Problem
from torchloom_report.figures import Drawing, heat_map, learning_curves
from torchloom_report.reading import Run, Sweep, read

MAX_METRIC_COLUMNS = 6
MAX_NAMES = 8
MAX_TABLE_CLASSES = 30
MAX_CONFUSIONS = 20


@dataclass(frozen=True, slots=True)
class Cell:
    """A field of the confusion matrix: how many, and how strongly to shade it, from 0 to 1."""

    count: int
    shade: float


@dataclass(frozen=True, slots=True)
class Section:
    """A run with its figures.

    Attributes:
        anchor: Id of the section on the page.
        matrix: The confusion matrix as table rows; empty if it has too many classes for one.
        heat: The confusion matrix as a picture, if it has.
        confusions: Most frequent mistakes of that large matrix: true class, predicted class, count.
    """

    run: Run
    anchor: str
    drawings: list[Drawing]
    matrix: list[list[Cell]]
    heat: Markup | None
    confusions: list[tuple[str, str, int]]


def write_report(folder: Path, out: Path | None = None, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the page about a run or a sweep, whole or not at all.

    Args:
        folder: The run's or the sweep's folder.
        out: File to write; report.html in that folder unless given.
        summary: Its summary where the caller has it; its summary.json otherwise.

    Returns:
        The file written.

    Raises:
        ConfigError: There is no such folder, it is neither, or the file cannot be written.
    """
    html = render(read(folder, summary))
    path = folder / "report.html" if out is None else out
    if path.is_dir():
        raise ConfigError([Problem("out", f"{str(path)!r} is a folder", f"name a file: out={path / 'report.html'}")])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names and texts may hold halves of surrogate pairs, which UTF-8 cannot write.
        _replace(path, html.encode("utf-8", "replace"))
    except OSError as error:
        message = f"cannot write {str(path)!r}: {error.strerror}"
        raise ConfigError([Problem("out", message, "name a file that you may write: out=PATH")]) from error
    return path


def render(subject: Run | Sweep) -> str:
    """Return the page's HTML."""
    sweep = subject if isinstance(subject, Sweep) else None
    runs = [subject] if isinstance(subject, Run) else subject.jobs
    environment = Environment(
        loader=PackageLoader("torchloom_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": _short, "base64": _base64}
    metrics = _metric_columns(runs)
    return environment.get_template("report.html").render(
        title=f"Sweep: {_names(runs)}" if sweep else f"Run: {runs[0].name}",
        sweep=sweep,
        folder=str(subject.folder.resolve()),
        sections=[_section(run, index) for index, run in enumerate(runs)],
        metrics=metrics[:MAX_METRIC_COLUMNS],
        metrics_left_out=max(0, len(metrics) - MAX_METRIC_COLUMNS),
        counts=_counts(runs),
        started=min((run.started for run in runs if run.started), default=""),
        machines=sorted({run.machine for run in runs if run.machine}),
        versions=_versions(runs),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        maker=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    )


def _section(run: Run, index: int) -> Section:
    anchor = f"job-{index if run.number is None else run.number}"
    small = len(run.confusion) <= MAX_TABLE_CLASSES
    return Section(
        run=run,
        anchor=anchor,
        drawings=learning_curves(run.curves, anchor),
        matrix=[_row(counts) for counts in run.confusion] if small else [],
        heat=None if small else heat_map(run.confusion, f"{anchor}-heat-"),
        confusions=[] if small else _confusions(run)[:MAX_CONFUSIONS],
    )


def _row(counts: list[int]) -> list[Cell]:
    # The square root makes the few mistakes of a good model visible beside its many right answers.
    total = max(1, sum(counts))
    return [Cell(count, round(math.sqrt(count / total), 3)) for count in counts]


def _confusions(run: Run) -> list[tuple[str, str, int]]:
    mistakes = [
        (run.classes[true], run.classes[predicted], count)
        for true, counts in enumerate(run.confusion)
        for predicted, count in enumerate(counts)
        if true != predicted and count
    ]
    return sorted(mistakes, key=lambda mistake: -mistake[2])


def _metric_columns(runs: list[Run]) -> list[str]:
    """The metrics that the table compares: test first, then those that most runs have."""
    columns = [name for run in runs for name in run.key_metrics]
    return sorted(dict.fromkeys(columns), key=lambda name: (not name.startswith("test/"), -columns.count(name), name))


def _names(runs: list[Run]) -> str:
    names = list(dict.fromkeys(run.name for run in runs))
    return f"{', '.join(names[:MAX_NAMES])}{' ...' if len(names) > MAX_NAMES else ''}" or "no jobs yet"


def _counts(runs: list[Run]) -> str:
    statuses = [run.status for run in runs]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def _versions(runs: list[Run]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for run in runs:
        for name, version in run.versions.items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: " / ".join(versions) for name, versions in found.items()}


def _short(value: float | None) -> str:
    """A number for people: four significant digits, thousands apart, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 10_000):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _replace(path: Path, data: bytes) -> None:
    """Write beside the file and move over it, so that no reader meets half a page."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
