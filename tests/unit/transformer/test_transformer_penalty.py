"""What experts and pondering cost reaches the gradient of training, weighted as the loss is, and no evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from transformer_made import SPEC, make, tokens

from torchloom.checkpoint import Record
from torchloom.configs import DatasetConfig, OptimizerConfig, TrainerConfig
from torchloom.contracts.dataset import Batch, Dataset, Split, TensorSplit
from torchloom.contracts.objective import LossSum, Model, Objective
from torchloom.contracts.spec import TokenSpec
from torchloom.contracts.training import Optimizer, Scheduler
from torchloom.data import DataModule
from torchloom.module import TorchloomModule
from torchloom.progress import Progress

IDS = tokens(8, 6)
WEIGHTS = torch.tensor([1.0, 9.0, 2.0, 2.0, 30.0, 1.0, 5.0, 4.0])


class Texts(Dataset):
    """Eight rows that count differently."""

    spec = SPEC

    def split(self, name: str) -> Split:
        return TensorSplit(tokens=IDS, weight=WEIGHTS)


class Squares(Objective):
    """The weighted mean over rows of the squares of all vectors; whatever, as long as it has a gradient."""

    accepts = (TokenSpec,)
    protocol = "sequence"

    def inputs(self, batch: Batch) -> dict[str, Any]:
        return {"tokens": batch["tokens"]}

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        rows = (outputs[..., 0] ** 2).mean(1)
        return LossSum((rows * batch["weight"]).sum(), batch["weight"].sum())


class SGD(Optimizer):
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=1.0, weight_decay=0.0)


class Constant(Scheduler):
    def factor(self, step: int, total_steps: int) -> float:
        return 1.0


OPTIONS = {
    "experts": {"experts": 3, "expert_balance": 2.0},
    "pondering": {"recurrence": "learned", "recurrent_steps": 3, "ponder_cost": 2.0},
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_takes_the_gradient_of_loss_and_penalty(
    options: dict[str, Any], accumulate: int, tmp_path: Path
) -> None:
    from torchloom.run import _quiet

    network, reference = make("decoder", **options), make("decoder", **options)
    before = [p.detach().clone() for p in network.parameters()]
    objective = Squares(None, SPEC)
    module = TorchloomModule(
        Model(network, None, "sequence"),
        objective,
        Record("0", {}, SPEC.to_dict(), None, {}, False),
        SPEC,
        None,
        {"model": (SGD(OptimizerConfig(lr=1.0)), list(network.parameters()))},
        Constant(None),
        seed=0,
        accumulate=accumulate,
        nominal_weight=7.0,
    )
    data = DataModule(Texts(DatasetConfig(batch_size=8 // accumulate)), TrainerConfig(), seed=0)
    taken: list[Tensor] = []  # the order of the rows, as the loader has drawn it
    inputs = objective.inputs
    objective.inputs = lambda batch: taken.append(batch["tokens"]) or inputs(batch)  # type: ignore[method-assign, func-returns-value]
    with _quiet():
        pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=1,
            limit_val_batches=0,
            logger=False,
            callbacks=[Progress("none")],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accumulate_grad_batches=accumulate,
            default_root_dir=tmp_path,
        ).fit(module, datamodule=data)
    assert [len(batch) for batch in taken] == [8 // accumulate] * accumulate

    reference.train()
    total: Any = 0.0
    for batch in taken:
        weight = torch.stack([WEIGHTS[(row == IDS).all(1)][0] for row in batch])
        rows = (reference.sequence(batch)[..., 0] ** 2).mean(1)
        total = total + (rows * weight).sum() + reference.penalty() * weight.sum()
    (total / WEIGHTS.sum()).backward()
    for old, new, parameter in zip(before, network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(old - new, parameter.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_penalty_has_a_gradient_of_its_own(options: dict[str, Any]) -> None:
    """Guards the test above: it could not fail if the penalty changed nothing."""
    network = make("decoder", **options)
    network.sequence(IDS)
    network.penalty().backward()
    part: nn.Module = network.stack.halt or network.stack.layers[0].feed_forward.router
    assert part.weight.grad.abs().max() > 1e-3
