"""What a run's folder and a sweep's folder hold, read as far as it is there.

Runs fail, are killed and are looked at while they go on, so every file may be missing or cut short. Nothing here raises
for that: what is missing is said in `Run.gaps`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

from torchloom.errors import ConfigError, Problem

RUN_FILES = ("summary.json", "metrics.csv", "config.yaml")
MAX_VALUE = 1e100  # beyond it the arithmetic of an axis overflows
MAX_CAUSE = 300
MAX_TEXT = 4_000
MAX_IMAGE_BYTES = 4_000_000
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
SPLITS = ("test", "val", "train")


@dataclass(frozen=True, slots=True)
class Text:
    """A generated text: its file's name and its beginning, with the number of characters left out."""

    name: str
    text: str
    left_out: int


@dataclass(frozen=True, slots=True)
class Image:
    """A whole PNG file and its size in pixels."""

    name: str
    data: bytes
    width: int
    height: int


@dataclass(slots=True)
class Run:
    """One run as far as its folder tells.

    Attributes:
        number: Its number in a sweep.
        metrics: Final metrics, those on the test split first.
        rate: Examples or tokens a second, with the unit; empty if unknown.
        curves: Each column of metrics.csv as step to value, NaN and infinity left out, in order of steps.
        confusion: Counts, ``confusion[true][predicted]``.
        texts: First and last generated text; one if there is but one.
        images: First and last generated image, likewise.
        gaps: What is missing or cannot be read, a sentence each.
    """

    folder: Path
    number: int | None
    name: str
    status: str
    error: str = ""
    overrides: list[str] = field(default_factory=list)
    started: str = ""
    machine: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    rate: str = ""
    parameters: str = ""
    seed: str = ""
    compiled: str = ""
    checkpoint: str = ""
    components: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    curves: dict[str, dict[float, float]] = field(default_factory=dict)
    texts: list[Text] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    config: str = ""
    gaps: list[str] = field(default_factory=list)

    @property
    def key_metrics(self) -> dict[str, float]:
        """The metrics of the best split there is: test, else validation, else training, else all of them."""
        for split in SPLITS:
            found = {name: value for name, value in self.metrics.items() if name.startswith(f"{split}/")}
            if found:
                return found
        return self.metrics

    @property
    def cause(self) -> str:
        """The error in one line: the last line of a traceback, else as much of the text as a table can bear."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip()]
        text = " ".join(lines[-1:] if lines and lines[0].startswith("Traceback") else lines)
        return text if len(text) <= MAX_CAUSE else f"{text[:MAX_CAUSE]} ..."


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's jobs in order of their numbers."""

    folder: Path
    status: str
    jobs: list[Run]
    gaps: list[str]


def read(folder: Path, summary: Mapping[str, Any] | None = None) -> Run | Sweep:
    """Read a run or a sweep.

    Args:
        folder: Its folder.
        summary: Its summary where the caller has it; its summary.json otherwise.

    Raises:
        ConfigError: There is no such folder, or it is neither.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        mend = "name a run's or a sweep's folder; `torchloom train` prints it as its last line"
        raise ConfigError([Problem("folder", f"{str(folder)!r} {what}", mend)])
    gaps: list[str] = []
    record = _read_summary(folder, gaps) if summary is None else dict(summary)
    numbered = _job_folders(folder)
    is_run = bool(record) or any((folder / name).exists() for name in RUN_FILES[1:])
    if "jobs" in record or (numbered and not is_run):
        return _read_sweep(folder, record, numbered, gaps)
    if is_run or (folder / RUN_FILES[0]).exists():
        return _read_run(folder, record, gaps)
    raise ConfigError(
        [
            Problem(
                "folder",
                f"{str(folder)!r} holds neither a run ({', '.join(RUN_FILES)}) nor a sweep (job folders 0, 1, 2 ...)",
                "name the folder that `torchloom train` printed as its last line",
            )
        ]
    )


def natural(name: str) -> tuple[list[int], str]:
    """Sort key by which ``step-20`` comes before ``step-100``."""
    return [int(digits) for digits in re.findall(r"[0-9]+", name)], name


def _read_sweep(folder: Path, record: dict[str, Any], numbered: dict[int, Path], gaps: list[str]) -> Sweep:
    listed = record.get("jobs")
    entries: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(listed if isinstance(listed, list) else []):
        known = _mapping(entry)
        number = known.get("number")
        entries[number if isinstance(number, int) else position] = known
    if numbered.keys() - entries.keys() and entries:
        gaps.append(
            "The sweep's summary does not list every job folder: the sweep was still going when it was written."
        )
    jobs = []
    for number in sorted(entries.keys() | numbered.keys()):
        entry = entries.get(number, {})
        jobs.append(_read_job(_job_folder(folder, number, entry), number, entry))
    return Sweep(folder, _text(record.get("status")) or "unknown", jobs, gaps)


def _read_job(folder: Path, number: int, entry: dict[str, Any]) -> Run:
    if not folder.is_dir():
        return _build(folder, entry | {"job": number}, ["It has no folder: the job did not get as far as making one."])
    gaps: list[str] = []
    record = entry | _read_summary(folder, gaps) | {"job": number}
    if record.get("status") == "running" and entry.get("status"):
        # A job that was killed could not say so itself, but the sweep saw it end.
        record |= {key: entry[key] for key in ("status", "error") if key in entry}
    return _read_run(folder, record, gaps)


def _job_folder(sweep: Path, number: int, entry: dict[str, Any]) -> Path:
    """The job's folder inside the sweep's, also after the sweep's folder was moved."""
    named = sweep / (_text(entry.get("folder")) or str(number))
    inside = named.resolve().is_relative_to(sweep.resolve())
    return named if inside and named.is_dir() else sweep / str(number)


def _job_folders(folder: Path) -> dict[int, Path]:
    return {
        int(path.name): path
        for path in folder.iterdir()
        if re.fullmatch("[0-9]+", path.name) and any((path / name).exists() for name in RUN_FILES)
    }


def _read_summary(folder: Path, gaps: list[str]) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        gaps.append("There is no summary.json: the run has not ended, or was killed before it could write one.")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        gaps.append(f"summary.json cannot be read ({error}); results are missing.")
        return {}
    if not isinstance(record, dict):
        gaps.append("summary.json does not hold a summary; results are missing.")
        return {}
    return record


def _read_run(folder: Path, record: dict[str, Any], gaps: list[str]) -> Run:
    run = _build(folder, record, gaps)
    if run.status == "running":
        gaps.append("The summary says that it is running: it still goes on, or it was killed.")
    run.curves = _read_metrics(folder / "metrics.csv", gaps)
    _read_samples(folder / "samples", run)
    try:
        run.config = (folder / "config.yaml").read_text("utf-8", "replace")
    except OSError as error:
        gaps.append(f"config.yaml cannot be read ({error.strerror}).")
    absent = [
        what for what, there in (("samples", run.texts or run.images), ("confusion matrix", run.confusion)) if not there
    ]
    if absent:
        gaps.append(f"This run has no {' and no '.join(absent)}.")
    return run


def _build(folder: Path, record: dict[str, Any], gaps: list[str]) -> Run:
    """Take the summary's values over, whatever is missing or of another type."""
    number = record.get("job")
    tables, parameters = _mapping(record.get("tables")), _mapping(record.get("parameters"))
    throughput = _mapping(record.get("throughput"))
    metrics = {name: value for name, value in _mapping(record.get("metrics")).items() if _is_number(value)}
    total, trainable = parameters.get("total"), parameters.get("trainable")
    rate = next(
        (
            f"{value:,.0f} {unit}/s" if value >= 10 else f"{value:.2g} {unit}/s"
            for unit in ("tokens", "samples")
            if _is_number(value := throughput.get(f"{unit}_per_second"))
        ),
        "",
    )
    size = f"{total:,}" if _is_number(total) else ""
    if size and _is_number(trainable) and trainable != total:
        size += f" ({trainable:,} trainable)"
    overrides = record.get("overrides")
    components = {
        kind: ", ".join(map(_chosen, choice)) if isinstance(choice, list) else _chosen(choice)
        for kind, choice in _mapping(record.get("components")).items()
    }
    run = Run(
        folder=folder,
        number=number if isinstance(number, int) else None,
        name=_text(record.get("name")) or folder.resolve().name,
        status=_text(record.get("status")) or "unknown",
        error=_text(record.get("error")),
        overrides=[_text(item) for item in (overrides if isinstance(overrides, list) else [overrides]) if item],
        started=_moment(record.get("started")),
        machine=_text(record.get("machine")),
        metrics=dict(sorted(metrics.items(), key=lambda item: (_split_order(item[0]), item[0]))),
        steps=_number(record.get("steps")),
        epochs=_number(record.get("epochs")),
        seconds=_number(record.get("seconds")),
        rate=rate,
        parameters=size,
        seed=_text(record.get("seed")),
        compiled=_text(record.get("compile")),
        checkpoint=_text(record.get("checkpoint")),
        components=components,
        versions={name: _text(value) for name, value in (_mapping(record.get("versions"))).items()}
        | {name: _text(value) for name, value in _mapping(record.get("plugins")).items()},
        notes={name: _text(value) for name, value in _mapping(record.get("notes")).items()},
        gaps=gaps,
    )
    matrix = tables.get("test/confusion_matrix")
    if matrix is not None and not _is_square(matrix):
        gaps.append("The confusion matrix in summary.json is not a square table of counts.")
    elif matrix:
        run.confusion = [[int(count) for count in row] for row in matrix]
        named = record.get("classes")
        if not isinstance(named, list) or len(named) != len(matrix):
            named = list(range(len(matrix)))
        run.classes = [_text(name) for name in named]
    return run


def _read_metrics(path: Path, gaps: list[str]) -> dict[str, dict[float, float]]:
    """Read columns as step to value. Where a step stands twice, as after a resume, the later row counts."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        gaps.append("There is no metrics.csv: nothing was logged.")
        return {}
    except OSError as error:
        gaps.append(f"metrics.csv cannot be read ({error.strerror}).")
        return {}
    if text and not text.endswith("\n"):
        gaps.append("The last line of metrics.csv is cut short and left out.")
        text = text[: text.rfind("\n") + 1]
    try:
        header, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except csv.Error as error:
        gaps.append(f"metrics.csv cannot be read ({error}).")
        return {}
    if "step" not in header:
        gaps.append("metrics.csv has no rows yet." if not header else "metrics.csv has no column 'step'.")
        return {}
    curves: dict[str, dict[float, float]] = {name: {} for name in header if name not in ("epoch", "step")}
    lost: dict[str, str] = {}
    unreadable = 0
    for line in lines:
        row = dict(zip(header, line, strict=False))
        if not row.get("step"):
            continue  # a row without a step is no point of a curve
        try:
            step = float(row.pop("step"))
            values = {name: float(value) for name, value in row.items() if value and name != "epoch"}
            if not math.isfinite(step):
                raise ValueError(step)
        except ValueError:
            unreadable += 1
            continue
        for name, value in values.items():
            if abs(value) <= MAX_VALUE:
                curves[name][step] = value
            else:
                lost.setdefault(name, f"{name} was {value:g} at step {step:g}; such values are left out.")
    if unreadable:
        gaps.append(f"Lines of metrics.csv that are no numbers and are left out: {unreadable}.")
    gaps += lost.values()
    if not any(curves.values()):
        gaps.append("metrics.csv has no rows yet.")
    return {name: dict(sorted(curve.items())) for name, curve in curves.items() if curve}


def _read_samples(folder: Path, run: Run) -> None:
    for path in _first_and_last(folder, ".txt"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError as error:
            run.gaps.append(f"samples/{path.name} cannot be read ({error.strerror}).")
            continue
        run.texts.append(Text(path.name, text[:MAX_TEXT], max(0, len(text) - MAX_TEXT)))
    for path in _first_and_last(folder, ".png"):
        try:
            data = path.read_bytes()
        except OSError as error:
            run.gaps.append(f"samples/{path.name} cannot be read ({error.strerror}).")
            continue
        if not (data.startswith(PNG_START) and data.endswith(PNG_END)):
            run.gaps.append(f"samples/{path.name} is not a whole PNG image and is left out.")
        elif len(data) > MAX_IMAGE_BYTES:
            run.gaps.append(
                f"samples/{path.name} is too large for this page ({len(data) / 1e6:.0f} MB); see the folder."
            )
        else:
            run.images.append(Image(path.name, data, *struct.unpack(">II", data[16:24])))


def _first_and_last(folder: Path, suffix: str) -> list[Path]:
    paths = sorted(folder.glob(f"*{suffix}"), key=lambda path: natural(path.name))
    return paths if len(paths) < 2 else [paths[0], paths[-1]]


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    return value if _is_number(value) else None


def _is_square(table: Any) -> bool:
    return isinstance(table, list) and all(
        isinstance(row, list) and len(row) == len(table) and all(_is_count(count) for count in row) for row in table
    )


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and float(value).is_integer()


def _split_order(name: str) -> int:
    split = name.partition("/")[0]
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _moment(value: Any) -> str:
    """A time for people: seconds since 1970 and ISO 8601 as ``2026-01-31 12:00 UTC``, any other text as it is."""
    try:
        moment = datetime.fromtimestamp(value, UTC) if _is_number(value) else datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return _text(value)
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def _chosen(choice: Any) -> str:
    """Return a chosen component's name."""
    return _text(_mapping(choice).get("name", choice))
