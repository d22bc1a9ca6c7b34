"""Tasks as job arrays of a Slurm cluster."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor

from torchloom.errors import UnsupportedError
from torchloom_corpus.contracts import CorpusEngine, Pass
from torchloom_corpus.engines.configs import SlurmConfig
from torchloom_corpus.engines.tasks import TaskRunner, completed, failure_of, progress
from torchloom_corpus.shards import write_whole

_JOBS = "jobs.json"


class SlurmEngine(CorpusEngine):
    """datatrove's Slurm executor: one job array a pass, each waiting for the one before; stays until all have ended.

    Stopped, it cancels its jobs; killed, its jobs go on, and the next build in that folder cancels them first.
    """

    config: SlurmConfig

    def run(self, passes: list[Pass], logs: Path) -> None:
        """Run pipelines one behind the other; a task that is complete is not run again.

        Raises:
            DataError: A task failed or its job ended; names the pass, the task, its cause and its log.
            UnsupportedError: This machine has no Slurm.
        """
        if shutil.which("sbatch") is None:
            raise UnsupportedError(
                "engine 'slurm' needs Slurm's sbatch, which is not on this machine's path\n"
                "    run the command on a login node of the cluster, or set engine=local"
            )
        _cancel(logs)
        try:
            jobs = self._submit(passes, logs)
            with progress(passes, logs):
                self._wait(passes, logs, jobs)
        finally:
            _cancel(logs)

    def _submit(self, passes: list[Pass], logs: Path) -> list[str]:
        jobs: list[str] = []
        before = None
        for one in passes:
            executor = self._executor(one, logs, before)
            executor.launch_job()
            if executor.job_id != -1:  # -1 says that all tasks are complete
                jobs.append(str(executor.job_id))
                write_whole(logs / _JOBS, json.dumps(jobs).encode())
            before = executor
        return jobs

    def _executor(self, one: Pass, logs: Path, before: SlurmPipelineExecutor | None) -> SlurmPipelineExecutor:
        config = self.config
        return _Executor(
            one.pipeline,
            tasks=one.tasks,
            time=config.time,
            partition=config.partition,
            workers=config.workers,
            cpus_per_task=config.cpus_per_task,
            mem_per_cpu_gb=config.mem_per_cpu_gb,
            tasks_per_job=config.tasks_per_job,
            max_array_size=config.max_array_size,
            qos=config.qos,
            env_command=config.setup or f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
            sbatch_args=dict(config.sbatch),
            job_name=f"corpus_{one.name}",
            logging_dir=str(logs / one.name),
            depends=before,
        )

    def _wait(self, passes: list[Pass], logs: Path, jobs: list[str]) -> None:
        ended_before = False
        for one in passes:
            while completed(one, logs) < one.tasks:
                # A file system that machines share shows a mark late, so jobs must be seen to have ended twice.
                ended = not _running(jobs)
                failure = failure_of(one, logs, _ENDED if ended and ended_before else "")
                if failure is not None:
                    raise failure
                ended_before = ended
                time.sleep(self.config.poll_seconds)


class _Executor(TaskRunner, SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's Slurm executor, without its job that adds up statistics."""

    def launch_merge_stats(self) -> None:
        """Do nothing: the last pass adds them up."""


_ENDED = "its jobs have ended before their tasks were complete; Slurm's own logs are in slurm_logs beside this"


def _running(jobs: list[str]) -> bool:
    found = subprocess.run(["squeue", "--noheader", "--jobs", ",".join(jobs)], capture_output=True, text=True)
    return found.returncode == 0 and bool(found.stdout.strip())  # jobs long gone are an error to squeue


def _cancel(logs: Path) -> None:
    """Cancel the jobs of a build that was stopped or killed; those that have ended are left alone by Slurm."""
    file = logs / _JOBS
    if file.exists():
        jobs = json.loads(file.read_bytes())
        subprocess.run(["scancel", *jobs], capture_output=True)
        file.unlink()
