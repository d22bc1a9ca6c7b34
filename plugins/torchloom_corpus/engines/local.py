"""Tasks as processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import dill
from datatrove.executor.local import LocalPipelineExecutor

from torchloom.errors import DataError
from torchloom_corpus.contracts import CorpusEngine, Pass
from torchloom_corpus.engines.configs import LocalConfig
from torchloom_corpus.engines.tasks import TaskRunner, failure_of, progress


class LocalEngine(CorpusEngine):
    """datatrove's local executor, its tasks handed out to processes that stay for all passes.

    datatrove's own pool waits for ever when a process is killed, and starts afresh, imports and all, for each pass.
    """

    config: LocalConfig

    def run(self, passes: list[Pass], logs: Path) -> None:
        """Run pipelines one behind the other; a task that is complete is not run again.

        Raises:
            DataError: A task failed or its process was killed; names the pass, the task, its cause and its log.
        """
        cores = len(os.sched_getaffinity(0))
        workers = min(self.config.workers or cores, max((one.tasks for one in passes), default=1))
        pool = None if workers == 1 else _make_pool(workers, max(1, cores // workers))
        try:
            with progress(passes, logs):
                for one in passes:
                    _run_pass(one, logs, pool, spare_cores=min(workers, one.tasks) < cores)
        except BaseException:
            if pool is not None:
                _kill(pool)
            raise
        if pool is not None:
            pool.shutdown()


class _Executor(TaskRunner, LocalPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's local executor, of which the tasks are run one by one."""


def _run_pass(one: Pass, logs: Path, pool: ProcessPoolExecutor | None, spare_cores: bool) -> None:
    executor = _Executor(one.pipeline, tasks=one.tasks, logging_dir=str(logs / one.name))
    ranks = executor.get_incomplete_ranks()
    payload = dill.dumps(executor)  # each task gets a fresh pipeline, wherever it runs
    try:
        if pool is None:
            for rank in ranks:
                _run_task(payload, rank, spare_cores)
            return
        for future in as_completed([pool.submit(_run_task, payload, rank, spare_cores) for rank in ranks]):
            future.result()
    except BrokenProcessPool as error:
        raise failure_of(one, logs, _KILLED) or DataError(_KILLED) from error
    except Exception as error:
        failure = failure_of(one, logs)
        if failure is None:  # not of a task
            raise
        raise failure from error


_KILLED = (
    "a process was killed, as the system does when memory runs out, or could not start; finished tasks are kept: run "
    "the same command again, with a smaller engine.workers"
)


def _run_task(payload: bytes, rank: int, spare_cores: bool) -> None:
    with _tokenizers_in_parallel(spare_cores):
        dill.loads(payload)._run_for_rank(rank)


def _make_pool(workers: int, threads: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("forkserver"), initializer=_begin_worker, initargs=(threads,)
    )


def _begin_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the workers
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process when the build is killed: it must not write beside the build that goes on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _tokenizers_in_parallel(wanted: bool) -> Iterator[None]:
    """Let Hugging Face tokenizers use all cores in a task only where other tasks do not; what the user set stands."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(wanted).lower()
    try:
        yield
    finally:
        del os.environ[name]


def _kill(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())  # Python 3.14 has kill_workers for it
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
