"""Multiruns: every job checked before any starts, none lost to another's failure, and an interrupted one gone on with.

Hydra's sweeper stops behind the first failed batch, counts from nought each time and cannot go on, so this module takes
the combinations of values from it, leaves launching to Hydra's launchers, and does the rest itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from torchloom import composing, plugins
from torchloom.app import INTERRUPTED, App, Outcome, Task, report
from torchloom.checking import HYDRA_ERRORS
from torchloom.commands import WIDTH
from torchloom.errors import ConfigError, Problem, TorchloomError
from torchloom.plan import Overrides, Plan, quote
from torchloom.run import SUMMARY, write_json

ASKED = "multirun.yaml"
"""File of a sweep's folder, under Hydra's own name for it, that holds what was asked for."""

FINISHED, FAILED, RUNNING, STOPPED, WAITING = "finished", "failed", "running", "interrupted", "not run"

MODE = "hydra.mode=MULTIRUN"
"""Tells each job that it is one of a sweep."""

TRIES = 2
"""Times that a job is begun whose process dies, before it counts as failed."""


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: Its number, from 0.
        overrides: All its overrides.
        folder: Its folder.
        outcome: How it ended, if it ran in this process's time.
    """

    number: int
    overrides: list[str]
    folder: Path
    outcome: Outcome | None = None


def run(app: App, command: str, wanted: Plan) -> int:
    """Run a command once for each combination of values.

    Args:
        app: The Hydra application.
        command: Name of the command.
        wanted: What to compose. If a run comes of each job, the sweep has a folder with a ``summary.json``; with
            ``resume``, an earlier sweep's folder is gone on with.

    Returns:
        0; 1 if a job failed, 130 after Ctrl-C.

    Raises:
        ConfigError: Whatever is wrong with any job; none has been started, and nothing written.
    """
    asked, combinations = ([*wanted.overrides, MODE], None) if wanted.resume is None else _asked_before(wanted)
    config = _compose(app, wanted, asked)
    if combinations is None:
        combinations = _combinations(app, config)
    # Asked for once, before any job is composed: it holds the time, which Hydra then hands on to every job.
    folder = Path(config.hydra.sweep.dir)
    jobs = _checked_jobs(app, config, combinations, wanted, folder)
    if wanted.writes:
        _open_folder(folder, config, jobs, anew=wanted.resume is None)
    todo = [job for job in jobs if _summary(job).get("status") != FINISHED] if wanted.writes else jobs

    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=wanted.config_name)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=app.config_loader, callbacks=callbacks),
        task_function=Task(command, composed=wanted.root is not None, resume=wanted.writes),
        config=config,
    )
    interrupted = False
    try:
        _launch(launcher, todo)
    except KeyboardInterrupt:
        interrupted = True
    callbacks.on_multirun_end(config=config, config_name=wanted.config_name)

    entries = [_entry(job, folder) for job in jobs]
    _print_table(entries)
    if wanted.writes:
        _close_folder(folder, entries, command, interrupted=interrupted)
    if interrupted:
        return INTERRUPTED
    return 0 if all(entry["status"] == FINISHED for entry in entries) else 1


def _asked_before(wanted: Plan) -> tuple[list[str], list[list[str]] | None]:
    """Return what an earlier sweep was asked for, and its jobs' overrides if they were written down.

    Raises:
        ConfigError: There is no such sweep, or it was asked for something else.
    """
    assert wanted.resume is not None
    folder = wanted.resume
    try:
        saved = OmegaConf.load(folder / ASKED).hydra.overrides
        task, hydra = list(map(str, saved.task)), list(map(str, saved.hydra))
    except Exception as error:
        what = f"is not a sweep's folder: it has no {ASKED} that can be read" if folder.is_dir() else "does not exist"
        mend = "Name the folder that the sweep printed as its last line."
        raise ConfigError([Problem("sweep.resume", f"{folder} {what}", mend)]) from error
    others = [line for line in wanted.overrides if line not in (*task, *hydra, MODE)]
    launching = [line for line in others if line.startswith(("hydra/launcher=", "hydra.launcher.", "hydra.verbose="))]
    mend = f"Leave it out, or start a new sweep; this one was asked for: {' '.join(task)}"
    strange = [Problem(line, "is not what the sweep was asked for", mend) for line in others if line not in launching]
    if strange:
        raise ConfigError(strange)
    kept = [line for line in hydra if not line.startswith("hydra.sweep.dir=")]
    asked = [*kept, *launching, f"hydra.sweep.dir={quote(str(folder))}", *task]
    jobs = _read_json(folder / SUMMARY).get("jobs")
    return asked, [list(job["overrides"]) for job in jobs] if jobs else None


def _compose(app: App, wanted: Plan, asked: list[str]) -> DictConfig:
    """Compose the sweep's own configuration.

    Raises:
        ConfigError: Something that all jobs share is wrong; it names what is wrong with swept values too.
    """
    try:
        return app.compose_config(wanted.config_name, asked, RunMode.MULTIRUN, with_log_configuration=True)
    except ConfigError as error:
        parsed = Overrides(asked, app.config_loader).parsed
        if any(override is None for _, override in parsed):
            raise
        shared = [line for line, override in parsed if override and override.is_hydra_override()]
        swept = [override for _, override in parsed if override and not override.is_hydra_override()]
        found = []
        for overrides in BasicSweeper.split_arguments(swept, None)[0]:
            try:
                found.append(wanted.check(app.compose_config(wanted.config_name, shared + overrides, RunMode.RUN)))
            except ConfigError as one:
                found.append(one.problems)
        raise ConfigError(_merged(found) or error.problems) from error


def _combinations(app: App, config: DictConfig) -> list[list[str]]:
    """Return each job's overrides, by Hydra's basic sweeper.

    Raises:
        ConfigError: Another sweeper is asked for, or an interval is given, which has no list of values.
    """
    sweeper = config.hydra.sweeper
    if sweeper.get("_target_") != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        raise ConfigError([Problem("hydra/sweeper", "only Hydra's basic sweeper can be used", "Leave it out.")])
    lines = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(config.hydra.overrides.task)
    try:
        overrides = OverridesParser.create(config_loader=app.config_loader).parse_overrides(lines)
    except HydraException as error:
        raise composing.diagnose(lines, error, root=app.root) from error
    endless = [str(one.input_line) for one in overrides if one.is_sweep_override() and not one.is_discrete_sweep()]
    if endless:
        mend = "Write KEY=A,B,C or KEY=range(A,B)."
        raise ConfigError([Problem(line, "has no list of values to try", mend) for line in endless])
    return BasicSweeper.split_arguments(overrides, None)[0]


def _checked_jobs(app: App, config: DictConfig, combinations: list[list[str]], wanted: Plan, folder: Path) -> list[Job]:
    """Compose and check every job.

    Raises:
        ConfigError: Everything that is wrong with any.
    """
    jobs: list[Job] = []
    found: list[Sequence[Problem]] = []
    for number, overrides in enumerate(combinations):
        try:
            composed = app.config_loader.load_sweep_config(config, list(overrides))
        except ConfigError as error:
            found.append(error.problems)
            continue
        except HYDRA_ERRORS as error:
            found.append(composing.diagnose(overrides, error, wanted.config_name, app.root).problems)
            continue
        found.append(wanted.check(composed))
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(composed)
        jobs.append(Job(number, overrides, folder / str(composed.hydra.sweep.subdir)))
    problems = _merged(found)
    if not problems and wanted.writes and len({job.folder for job in jobs}) < len(jobs):
        problems = [Problem("hydra.sweep.subdir", "gives several jobs one folder", "Put ${hydra.job.num} into it.")]
    if problems:
        raise ConfigError(problems)
    return jobs


def _merged(found: Sequence[Sequence[Problem]]) -> list[Problem]:
    """Return the problems of all jobs, each once, with the jobs that have it unless all do."""
    numbers: dict[Problem, list[int]] = {}
    for number, problems in enumerate(found):
        for problem in problems:
            numbers.setdefault(problem, []).append(number)
    merged = []
    for problem, jobs in numbers.items():
        some = f" (job{'s' if len(jobs) > 1 else ''} {', '.join(map(str, jobs))} of {len(found)})"
        merged.append(Problem(problem.place, problem.message + (some if len(jobs) < len(found) else ""), problem.mend))
    return merged


def _open_folder(folder: Path, config: DictConfig, jobs: list[Job], *, anew: bool) -> None:
    """Write down what the sweep is to do.

    Raises:
        ConfigError: The folder holds a sweep already, or cannot be written to.
    """
    if anew and (folder / ASKED).exists():
        mend = f"Go on with it by sweep.resume={folder}, or name another folder."
        raise ConfigError([Problem("hydra.sweep.dir", f"{folder} holds a sweep already", mend)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if anew:
            partial = folder / f"{ASKED}.partial"
            OmegaConf.save(config, partial)
            partial.replace(folder / ASKED)
        write_json(folder / SUMMARY, {"status": RUNNING, "jobs": [_entry(job, folder) for job in jobs]})
    except OSError as error:
        mend = "Choose another with hydra.sweep.dir=FOLDER"
        raise ConfigError(
            [Problem(str(folder), f"the sweep's folder cannot be written to: {error.strerror}", mend)]
        ) from error


def _launch(launcher: Launcher, jobs: list[Job]) -> None:
    """Run jobs, each under its own number; when a launcher's process dies, what it had not done is begun again.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    started = time.time()
    tries: Counter[int] = Counter()
    while waiting := [job for job in jobs if job.outcome is None and not _ended_since(job, started)]:
        batch = [job for place, job in enumerate(waiting) if job.number == waiting[0].number + place]
        try:
            returned = launcher.launch([job.overrides for job in batch], initial_job_idx=batch[0].number)
        except Exception as error:
            print(f"torchloom: a process of the sweep died: {error}", file=sys.stderr)
            touched = [job for job in batch if _written_since(job, started)] or batch
            for job in touched:
                tries[job.number] += 1
                if tries[job.number] == TRIES:
                    job.outcome = Outcome(1, f"its process died: {error}")
            continue
        for job, one in zip(batch, returned, strict=True):
            job.outcome = one.return_value


def _written_since(job: Job, moment: float) -> bool:
    file = job.folder / SUMMARY
    return file.exists() and file.stat().st_mtime >= moment


def _ended_since(job: Job, moment: float) -> bool:
    return _written_since(job, moment) and _summary(job).get("status") in (FINISHED, FAILED)


def _entry(job: Job, sweep: Path) -> dict[str, Any]:
    """Return how a job stands now, for the sweep's summary."""
    summary = _summary(job)
    status = summary.get("status", STOPPED if job.folder.exists() else WAITING)
    error = summary.get("error")
    if job.outcome is None:
        status = STOPPED if status == RUNNING else status
    elif job.outcome.code or status not in (FINISHED, FAILED):
        status = FAILED if job.outcome.code else FINISHED
        error = error or job.outcome.error
    return {
        "number": job.number,
        "folder": str(job.folder.relative_to(sweep) if job.folder.is_relative_to(sweep) else job.folder),
        "overrides": job.overrides,
        "name": summary.get("name"),
        "status": status,
        "error": (error or "it ended without a word") if status == FAILED else error,
        "metrics": summary.get("metrics") or {},
        "seconds": summary.get("seconds"),
        "notes": summary.get("notes") or {},
    }


def _close_folder(folder: Path, entries: list[dict[str, Any]], command: str, *, interrupted: bool) -> None:
    """Write the summary, tell the plugins, and print the folder last."""
    statuses = {entry["status"] for entry in entries}
    status = STOPPED if interrupted or statuses & {STOPPED, WAITING} else FAILED if FAILED in statuses else FINISHED
    summary = {"status": status, "jobs": entries}
    write_json(folder / SUMMARY, summary)
    try:
        plugins.manager().run_finished(folder, summary)
    except TorchloomError as error:
        report(error)
    if status != FINISHED:
        print(f"torchloom: {status}; go on with\n    torchloom {command} sweep.resume={folder}", file=sys.stderr)
    sys.stderr.flush()
    print(folder.absolute(), flush=True)


def _print_table(entries: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shared = set.intersection(*(set(entry["overrides"]) for entry in entries)) if len(entries) > 1 else set()
    table = Table("job", "overrides", "status", "results", "seconds", box=box.SIMPLE_HEAD, pad_edge=False)
    for entry in entries:
        own = " ".join(line for line in entry["overrides"] if line not in shared)
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        table.add_row(*map(Text, (str(entry["number"]), own, entry["status"], _results(entry), seconds)))
    console = Console(width=WIDTH, highlight=False)
    console.print(table)
    for entry in entries:
        if entry["error"]:
            console.print(Text(f"job {entry['number']} {entry['status']}: {entry['error']}"))


def _results(entry: dict[str, Any]) -> str:
    """Return the metrics that count, those of the test if there was one, and what must be known along with them."""
    metrics = entry["metrics"]
    split = next((name for name in ("test/", "val/", "") if any(key.startswith(name) for key in metrics)), "")
    values = [f"{key} {value:.4g}" for key, value in metrics.items() if key.startswith(split)]
    return ", ".join([*values[:3], *(f"{key}: {value}" for key, value in entry["notes"].items())])


def _summary(job: Job) -> dict[str, Any]:
    return _read_json(job.folder / SUMMARY)


def _read_json(file: Path) -> dict[str, Any]:
    """Return a JSON file's contents; nothing if it is missing or was cut short."""
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return contents if isinstance(contents, dict) else {}
