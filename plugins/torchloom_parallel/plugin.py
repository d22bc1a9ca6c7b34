"""Parallel strategies."""

from __future__ import annotations

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the strategies."""
    return [
        Component(
            kind="parallel",
            name="single",
            target="torchloom_parallel.single:Single",
            config="torchloom_parallel.configs:SingleConfig",
            summary="One process on one device.",
        ),
        Component(
            kind="parallel",
            name="ddp",
            target="torchloom_parallel.ddp:DDP",
            config="torchloom_parallel.configs:DDPConfig",
            summary="Data parallel: each of trainer.devices processes takes its share of every batch.",
            source="Li et al. 2020, PyTorch Distributed, https://arxiv.org/abs/2006.15704",
        ),
    ]
