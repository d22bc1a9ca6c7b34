"""Tasks as actors of a Ray cluster."""

from __future__ import annotations

import logging
from pathlib import Path

import ray
from datatrove.executor.ray import RayPipelineExecutor

from torchloom_corpus.contracts import CorpusEngine, Pass
from torchloom_corpus.engines.configs import RayConfig
from torchloom_corpus.engines.tasks import TaskRunner, failure_of, progress


class RayEngine(CorpusEngine):
    """datatrove's Ray executor, pass by pass."""

    config: RayConfig

    def run(self, passes: list[Pass], logs: Path) -> None:
        """Run pipelines one behind the other; a task that is complete is not run again.

        Raises:
            DataError: A task failed; names the pass, the task, its cause and its log.
        """
        config = self.config
        ray.init(config.address, ignore_reinit_error=True, logging_level=logging.ERROR, log_to_driver=False)
        try:
            with progress(passes, logs):
                for one in passes:
                    _Executor(
                        one.pipeline,
                        tasks=one.tasks,
                        workers=config.workers,
                        cpus_per_task=config.cpus_per_task,
                        mem_per_cpu_gb=config.mem_per_cpu_gb,
                        logging_dir=str(logs / one.name),
                    ).run()
                    failure = failure_of(one, logs, "tasks were lost; see Ray's dashboard and logs")
                    if failure is not None:
                        raise failure
        finally:
            ray.shutdown()


class _Executor(TaskRunner, RayPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's Ray executor with our way of running a task."""
