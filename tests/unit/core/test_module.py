"""The module divides losses exactly, whatever the batches a step is made of."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from torchloom.checkpoint import Record
from torchloom.configs import DatasetConfig, OptimizerConfig, TrainerConfig
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Dataset, Split, TensorSplit
from torchloom.contracts.objective import LossSum, ManualObjective, Model, Objective
from torchloom.contracts.spec import ImageSpec
from torchloom.contracts.training import Optimizer, Scheduler
from torchloom.data import DataModule
from torchloom.module import Meter, TorchloomModule, parameter_groups
from torchloom.progress import Progress

SPEC = ImageSpec(1, 2, 2)


class Points(Dataset):
    """Twelve examples whose weights differ widely, as token counts of ragged texts do."""

    spec = SPEC

    def split(self, name: str) -> Split:
        generator = torch.Generator().manual_seed(len(name))
        return TensorSplit(
            image=torch.randn(24, 1, 2, 2, generator=generator),
            target=torch.randn(24, generator=generator),
            weight=torch.randint(0, 50, (24,), generator=generator).float() ** 2,
        )


class Linear(Architecture):
    protocols = frozenset({"features"})
    accepts = (ImageSpec,)
    width = 1

    def __init__(self) -> None:
        super().__init__(None, SPEC)
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def features(self, inputs: Tensor, **_: Any) -> Tensor:
        return self.layer(inputs.flatten(1))


class Regression(Objective):
    accepts = (ImageSpec,)

    def inputs(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        return {"inputs": batch["image"]}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> LossSum:
        errors = (outputs.squeeze(1) - batch["target"]) ** 2 * batch["weight"]
        return LossSum(errors.sum(), batch["weight"].sum(), {"double": 2 * errors.sum()})


class SGD(Optimizer):
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=self.config.lr)


class Constant(Scheduler):
    def factor(self, step: int, total_steps: int) -> float:
        return 1.0


class Halving(Scheduler):
    def factor(self, step: int, total_steps: int) -> float:
        return 0.5**step


RECORD = Record("0", {}, SPEC.to_dict(), None, {}, False)


def module(objective: Objective | None = None, scheduler: Scheduler | None = None, **keywords: Any) -> TorchloomModule:
    objective = objective or Regression(None, SPEC)
    model = Model(Linear(), None, "features")
    optimizer = SGD(OptimizerConfig(lr=0.01))
    roles = getattr(objective, "roles", ()) or ("model",)
    optimizers = {role: (optimizer, list(model.parameters())) for role in roles}
    return TorchloomModule(
        model, objective, RECORD, SPEC, None, optimizers, scheduler or Constant(None), seed=0, **keywords
    )


class Rows(pl.loggers.logger.Logger):
    """Keeps what it is told."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))


def fit(
    part: TorchloomModule, folder: Path, batch_size: int, *, accumulate: int = 1, epochs: int = 1, **keywords: Any
) -> Rows:
    rows = Rows()
    keywords = {} if part.objective.manual else {"accumulate_grad_batches": accumulate, **keywords}
    data = DataModule(Points(DatasetConfig(batch_size=batch_size)), TrainerConfig(), seed=0)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=rows,
        callbacks=[Progress("none")],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **keywords,
    )
    trainer.fit(part, datamodule=data)
    return rows


@pytest.fixture(autouse=True)
def _lightning_is_quiet() -> Any:
    from torchloom.run import _quiet

    with _quiet():
        yield


def test_accumulated_ragged_batches_take_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    whole, pieces = module(), module(accumulate=4, nominal_weight=6.0)
    fit(whole, tmp_path, 24)
    fit(pieces, tmp_path, 6, accumulate=4)
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_dividing_each_micro_batch_alone_would_be_wrong(tmp_path: Path) -> None:
    """Guards the test above: with these weights, the mean of means is another step."""
    data = Points(DatasetConfig()).split("train").batch(torch.arange(24))
    model = Linear()

    def gradient(pieces: int) -> Tensor:
        total = torch.zeros(1, 4)
        for part in torch.arange(24).chunk(pieces):
            batch = {key: value[part] for key, value in data.items()}
            loss = Regression(None, SPEC).loss(model.features(batch["image"]), batch)
            total += torch.autograd.grad(loss.total / loss.weight / pieces, model.layer.weight)[0]
        return total

    assert not torch.allclose(gradient(1), gradient(4), rtol=1e-2)


def test_clipping_sees_the_exact_gradient(tmp_path: Path) -> None:
    whole, pieces = module(), module(accumulate=4, nominal_weight=6.0)
    fit(whole, tmp_path, 24, gradient_clip_val=0.05)
    fit(pieces, tmp_path, 6, accumulate=4, gradient_clip_val=0.05)
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_training_rows_are_weighted_means_over_their_steps(tmp_path: Path) -> None:
    part = module(log_every_n_steps=2)
    rows = fit(part, tmp_path, 6, epochs=2)
    train = [(step, row) for step, row in rows.rows if "train/loss" in row]
    assert [step for step, _ in train] == [2, 4, 6, 8]
    assert all(row["train/double"] == pytest.approx(2 * row["train/loss"]) for _, row in train)
    assert [row["epoch"] for _, row in train] == [0, 0, 1, 1]


def test_validation_is_the_weighted_mean_over_the_whole_split_whatever_the_batches(tmp_path: Path) -> None:
    results = []
    for batch_size in (24, 5, 1):
        part = module()
        with torch.no_grad():
            part.model.architecture.layer.weight.fill_(0.5)
        part.roles = {"model": (SGD(OptimizerConfig(lr=0.0)), list(part.parameters()))}
        fit(part, tmp_path, batch_size)
        results.append(part.results["val/loss"])
    assert results == pytest.approx([results[0]] * 3, rel=1e-6)


def test_the_schedule_sets_the_rate_of_each_step(tmp_path: Path) -> None:
    part = module(scheduler=Halving(None), log_every_n_steps=1)
    rows = fit(part, tmp_path, 6)
    assert [row["lr"] for _, row in rows.rows if "lr" in row] == pytest.approx([0.01 / 2**step for step in range(4)])
    assert part.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 8)


class Duel(ManualObjective):
    """Two players on the same parameters; the second moves twice."""

    roles = ("first", "second")
    accepts = (ImageSpec,)

    def parameters(self, model: Model, role: str) -> Any:
        return model.parameters()

    def step(self, model: Model, batch: Any, backward: Any, optimizer_step: Any) -> dict[str, Tensor]:
        for role in ("first", "second", "second"):
            backward(model(inputs=batch["image"]).mean())
            optimizer_step(role)
        return {"level": model(inputs=batch["image"]).mean().detach()}

    def evaluate(self, model: Model, batch: Any) -> LossSum:
        return LossSum(model(inputs=batch["image"]).sum(), float(len(batch["image"])))


def test_a_run_counts_batches_not_the_moves_of_every_player(tmp_path: Path) -> None:
    part = module(Duel(None, SPEC), log_every_n_steps=2)
    before = part.model.architecture.layer.bias.item()
    rows = fit(part, tmp_path, 6)
    assert part.trainer.global_step == 4
    assert [step for step, row in rows.rows if "train/level" in row] == [2, 4]
    assert "train/loss" not in rows.rows[0][1]
    # Each of the 12 moves lowers the output's mean: the bias has gradient 1 in every one.
    assert part.model.architecture.layer.bias.item() == pytest.approx(before - 12 * 0.01, rel=1e-5)


def test_matrices_decay_and_vectors_do_not() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    net[0].weight.requires_grad_(False)
    groups = parameter_groups(net.parameters(), SGD(OptimizerConfig(weight_decay=0.1)))
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(5, 4)], [(4,), (4,), (4,)]]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_a_meter_goes_on_from_its_state() -> None:
    one, other = Meter(), Meter()
    one.add_loss(LossSum(torch.tensor(3.0), 2.0, {"x": torch.tensor(1.0)}))
    other.load_state(one.state())
    for meter in (one, other):
        meter.add_loss(LossSum(torch.tensor(5.0), torch.tensor(2.0), {"x": torch.tensor(3.0)}))
    assert one.means("train", reduce=False) == other.means("train", reduce=False) == {"train/loss": 2.0, "train/x": 1.0}
    one.reset()
    assert one.means("train", reduce=False) == {}
