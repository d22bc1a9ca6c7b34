"""What the engines share: how a task is run, how its failure is told, and how far the tasks are."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from datatrove.executor.base import PipelineExecutor
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from torchloom.errors import DataError, TorchloomError
from torchloom_corpus.contracts import Pass

_LOOK_SECONDS = 0.3


class TaskRunner(PipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """Put before one of datatrove's executors, it runs tasks without a word on the terminal and records failures.

    Logs of the task, Python's own included, go to ``logs/task_<rank>.log``; what a failure says, to
    ``failures/<rank>``, since a task may run on another machine.
    """

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        if self.is_rank_completed(rank):
            return PipelineStats()
        folder = Path(self.logging_dir.path)
        failure = folder / "failures" / f"{rank:05d}"
        failure.unlink(missing_ok=True)
        with _logging_to(_log(folder, rank)):
            try:
                documents = None
                for block in self.pipeline:
                    documents = block(documents, rank, self.world_size)
                deque(documents or (), maxlen=0)
            except Exception as error:
                logger.opt(exception=error).error(f"task {rank} failed")
                text = str(error) if isinstance(error, TorchloomError) else f"{type(error).__name__}: {error}"
                failure.parent.mkdir(exist_ok=True)
                failure.write_text(text, encoding="utf-8")
                raise
            stats = PipelineStats(self.pipeline)
            with self.logging_dir.open(f"stats/{rank:05d}.json", "w") as file:
                stats.save_to_disk(file)
        self.mark_rank_as_completed(rank)
        return stats


def failure_of(one: Pass, logs: Path, otherwise: str = "") -> DataError | None:
    """Return what to say of a pass in which a task failed.

    Args:
        one: The pass.
        logs: Folder of the logs of all passes.
        otherwise: What to say if a task is incomplete though none has failed; nothing is wrong then if it is empty.
    """
    folder = logs / one.name
    failed = sorted((folder / "failures").glob("*"))
    if failed:
        rank = int(failed[0].name)
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return DataError(
            f"pass '{one.name}': task {rank} of {one.tasks}{others} failed: {failed[0].read_text(encoding='utf-8')}\n"
            f"    log: {_log(folder, rank)}\n"
            "    finished tasks are kept; the same command goes on with the others"
        )
    if otherwise and completed(one, logs) < one.tasks:
        return DataError(f"pass '{one.name}': {otherwise}\n    logs: {folder}")
    return None


def completed(one: Pass, logs: Path) -> int:
    """Return how many tasks of a pass are complete."""
    try:
        return sum(1 for _ in (logs / one.name / "completions").iterdir())
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def progress(passes: Sequence[Pass], logs: Path) -> Iterator[None]:
    """Show on a terminal, on standard error, how many tasks of each pass are complete."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    ids = [bars.add_task(one.name, total=one.tasks, start=False) for one in passes]
    ended = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = ended.wait(_LOOK_SECONDS)
            begun = True
            for bar, one in zip(ids, passes, strict=True):
                done = completed(one, logs)
                if begun and not bars.tasks[bar].started:
                    bars.start_task(bar)
                bars.update(bar, completed=done)
                begun = begun and done == one.tasks

    watcher = threading.Thread(target=look, daemon=True)
    with bars:
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def _log(folder: Path, rank: int) -> Path:
    return folder / "logs" / f"task_{rank:05d}.log"


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send what is logged, by datatrove's loguru and by Python's logging and warnings, to one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.remove()  # datatrove writes to standard error unless told otherwise
    sink = logger.add(file, level="DEBUG", format="{message}", diagnose=False)
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [file]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers = handlers
        logger.remove(sink)
        file.close()
