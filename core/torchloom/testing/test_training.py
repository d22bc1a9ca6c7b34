"""What optimizers, schedulers, callbacks, loggers and parallel strategies do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger as LightningLogger
from pytorch_lightning.strategies import Strategy
from torch import nn

from torchloom.component import Component
from torchloom.configs import TrainerConfig
from torchloom.contracts.parallel import Parallel
from torchloom.contracts.training import Optimizer, Scheduler
from torchloom.errors import Problem
from torchloom.testing.support import build, default_config, each, load


def descend(optimizer: torch.optim.Optimizer, point: nn.Parameter, steps: int) -> float:
    """Take steps on ``|point|**2 / 2`` and return where that leads."""
    for _ in range(steps):
        optimizer.zero_grad()
        (point.square().sum() / 2).backward()
        optimizer.step()
    return float(point.detach().square().sum() / 2)


def optimizer_of(component: Component, point: nn.Parameter, lr: float = 0.05) -> torch.optim.Optimizer:
    made: Optimizer = load(component)(default_config(component, lr=lr))
    return made.build([{"params": [point], "weight_decay": 0.0}])


@each("optimizer")
class TestOptimizer:
    """Steps, groups and state."""

    def test_descends(self, component: Component) -> None:
        point = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        start = float(point.detach().square().sum() / 2)
        assert descend(optimizer_of(component, point), point, 200) < 0.05 * start

    def test_keeps_groups_apart(self, component: Component) -> None:
        matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
        made: Optimizer = load(component)(default_config(component, lr=0.1))
        groups = [{"params": [matrix], "weight_decay": 0.5}, {"params": [vector], "weight_decay": 0.0}]
        optimizer = made.build(groups)
        for parameter in (matrix, vector):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert torch.equal(vector, torch.ones(2)), "a vector must not decay"
        assert matrix.abs().max() < 1, "a matrix must decay"
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]

    def test_state_dict_goes_on_exactly(self, component: Component) -> None:
        points = [nn.Parameter(torch.tensor([1.0, -2.0, 0.5])) for _ in range(2)]
        optimizers = [optimizer_of(component, point) for point in points]
        descend(optimizers[0], points[0], 5)
        points[1].data.copy_(points[0].data)
        optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
        for optimizer, point in zip(optimizers, points, strict=True):
            descend(optimizer, point, 5)
        assert torch.equal(points[0], points[1])


@each("scheduler")
class TestScheduler:
    """A factor that hangs on nothing but the step."""

    @pytest.mark.parametrize("total", [1, 7, 1000])
    def test_factor_is_between_0_and_1(self, component: Component, total: int) -> None:
        scheduler: Scheduler = build(component)
        factors = [scheduler.factor(step, total) for step in range(total + 1)]
        assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
        assert factors[0] > 0, "the first step must learn"

    def test_is_a_pure_function_of_the_step(self, component: Component) -> None:
        one: Scheduler = build(component)
        other: Scheduler = build(component)
        forward = [one.factor(step, 50) for step in range(50)]
        backward = [other.factor(step, 50) for step in reversed(range(50))]
        assert forward == backward[::-1]


@each("callback")
def test_callback_builds(component: Component, tmp_path: Path) -> None:
    made = build(component).build(tmp_path, ("val/loss", False))
    assert isinstance(made, pl.Callback)
    assert list(tmp_path.iterdir()) == [], "nothing is written before there is something to write"


@each("logger")
def test_logger_writes_into_the_run(component: Component, tmp_path: Path) -> None:
    logger: LightningLogger = build(component).build(tmp_path)
    assert isinstance(logger, LightningLogger)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    logger.log_metrics({"train/loss": 0.25, "val/loss": 0.75}, step=2)
    logger.save()
    logger.finalize("success")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert all(file.stat().st_size > 0 for file in files)


@each("parallel")
class TestParallel:
    """What a strategy says about the processes of a run."""

    def test_says_what_stands_in_the_way(self, component: Component) -> None:
        parallel: Parallel = build(component)
        for devices in (1, 2):
            problems = parallel.check(TrainerConfig(accelerator="cpu", devices=devices))
            assert all(isinstance(one, Problem) and one.message and (one.mend or one.place) for one in problems)

    def test_gives_lightning_a_strategy(self, component: Component) -> None:
        parallel: Parallel = build(component)
        fitting = [
            trainer
            for trainer in (TrainerConfig(accelerator="cpu", devices=devices) for devices in (1, 2))
            if not parallel.check(trainer)
        ]
        if not fitting:
            pytest.skip("; ".join(map(str, parallel.check(TrainerConfig(accelerator="cpu")))))
        assert isinstance(parallel.strategy(fitting[0]), Strategy | str)

    def test_divides_batches_among_no_more_than_all_processes(self, component: Component) -> None:
        parallel: Parallel = build(component)
        assert 1 <= parallel.data_parallel(TrainerConfig(devices=2, num_nodes=3)) <= 6
