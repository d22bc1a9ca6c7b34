"""Settings of the engines. Light."""

from __future__ import annotations

from dataclasses import dataclass

from torchloom.options import option


@dataclass
class LocalConfig:
    """Settings of `local`."""

    workers: int | None = option(
        None, "Tasks run at once, each in a process of its own; one a core unless given. 1 starts no process.", ge=1
    )


@dataclass
class SlurmConfig:
    """Settings of `slurm`. The folder of the corpus must be on a file system that all machines share."""

    partition: str = option("???", "Partition that the jobs are put into.")
    time: str = option("24:00:00", "Longest time of a job, as Slurm writes it.")
    workers: int = option(-1, "Tasks run at once; -1 sets no limit.", ge=-1)
    cpus_per_task: int = option(1, "Cores of a task.", ge=1)
    mem_per_cpu_gb: int = option(4, "Memory of a core.", ge=1, unit="GB")
    tasks_per_job: int = option(1, "Tasks that one job of the array runs, one behind the other.", ge=1)
    max_array_size: int = option(1001, "Largest job array that the cluster takes; -1 sets no limit.", ge=-1)
    qos: str = option("", "Quality of service; the cluster's own unless given.")
    setup: str = option(
        "", "Shell command run first in each job; puts this Python's programs on the path unless given."
    )
    sbatch: dict[str, str] = option(dict, "Further options of sbatch, such as {account: lab}.")
    poll_seconds: float = option(10.0, "Time between two looks at the jobs.", gt=0, unit="seconds")


@dataclass
class RayConfig:
    """Settings of `ray`. The folder of the corpus must be on a file system that all machines share."""

    address: str | None = option(None, "Address of the cluster; one is started on this machine unless given.")
    workers: int = option(-1, "Tasks run at once; -1 sets no limit.", ge=-1)
    cpus_per_task: int = option(1, "Cores of a task.", ge=1)
    mem_per_cpu_gb: float = option(2.0, "Memory of a core.", gt=0, unit="GB")
