"""What this room supplies, by name. Light."""

from torchloom import Component

_ROOM = "torchloom_corpus.engines"

COMPONENTS: list[Component] = [
    Component(
        kind="corpus_engine",
        name="local",
        target=f"{_ROOM}.local:LocalEngine",
        config=f"{_ROOM}.configs:LocalConfig",
        summary="Processes on this machine",
        source="datatrove LocalPipelineExecutor",
        needs=("datatrove", "dill", "loguru"),
        extra="torchloom[corpus]",
    ),
    Component(
        kind="corpus_engine",
        name="slurm",
        target=f"{_ROOM}.slurm:SlurmEngine",
        config=f"{_ROOM}.configs:SlurmConfig",
        summary="Job arrays of a Slurm cluster",
        source="datatrove SlurmPipelineExecutor",
        needs=("datatrove", "dill", "loguru"),
        extra="torchloom[corpus]",
    ),
    Component(
        kind="corpus_engine",
        name="ray",
        target=f"{_ROOM}.ray:RayEngine",
        config=f"{_ROOM}.configs:RayConfig",
        summary="Actors of a Ray cluster",
        source="datatrove RayPipelineExecutor",
        needs=("datatrove", "dill", "loguru", "ray"),
        extra="torchloom[ray]",
    ),
]
