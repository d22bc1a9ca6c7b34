"""The LightningModule: thin, closed, and the one place where a loss is divided by its weight.

It knows no component by name. An objective hands it sums; it divides them, over micro-batches and processes together, so
that accumulation over ragged batches and data-parallel training give exactly the gradient of the whole batch.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torchmetrics import Metric

from torchloom.checkpoint import KEY, Record
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import LossSum, ManualObjective, Model, Objective
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.contracts.training import Optimizer, Scheduler
from torchloom.data import ENCODED, Loader, mix


class Meter:
    """Sums of losses and weights since the last reset, kept on the device so that adding never waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight: Tensor | float = 0.0

    def add(self, values: Mapping[str, Tensor], weight: Tensor | float) -> None:
        """Add one batch: sums over its items, and how many they are."""
        for name, value in values.items():
            value = value.detach().double() if value.device.type == "cpu" else value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.weight = self.weight + (weight.detach() if isinstance(weight, Tensor) else weight)

    def add_loss(self, loss: LossSum) -> None:
        """Add one batch's loss and what is reported beside it."""
        self.add({"loss": loss.total, **loss.metrics}, loss.weight)

    def means(self, prefix: str, *, reduce: bool) -> dict[str, float]:
        """Return the weighted means; summed over all processes first if ``reduce``."""
        if not self.sums:
            return {}
        names = list(self.sums)
        device = self.sums[names[0]].device
        weight = torch.as_tensor(self.weight, device=device, dtype=self.sums[names[0]].dtype)
        values = torch.stack([*(self.sums[name] for name in names), weight])
        if reduce and _distributed():
            dist.all_reduce(values)
        *totals, count = values.tolist()
        return {f"{prefix}/{name}": total / count for name, total in zip(names, totals, strict=True)} if count else {}

    def reset(self) -> None:
        """Begin anew."""
        self.sums, self.weight = {}, 0.0

    def state(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"sums": dict(self.sums), "weight": self.weight}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.sums, self.weight = dict(state["sums"]), state["weight"]


class TorchloomModule(pl.LightningModule):
    """Trains a `Model` on an `Objective`.

    Attributes:
        model: Architecture and head.
        results: The newest value of each metric of an evaluation, by name such as ``val/loss``.
        tables: The newest value of each metric that is not a scalar, as nested lists.
        examples_seen_here: Training examples this process has taken since it started.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        record: Record,
        spec: Spec,
        tokenizer: Tokenizer | None,
        optimizers: dict[str, tuple[Optimizer, list[nn.Parameter]]],
        scheduler: Scheduler,
        *,
        seed: int,
        compile: bool = False,
        log_every_n_steps: int = 50,
        accumulate: int = 1,
        nominal_weight: float = 1.0,
    ) -> None:
        """Put the parts together.

        Args:
            model: What is trained.
            objective: What it is trained on.
            record: What checkpoints say of it.
            spec: The dataset's spec.
            tokenizer: The dataset's tokenizer, if it has one.
            optimizers: For each role its optimizer and the parameters it changes; one role, ``"model"``, unless the
                objective is manual.
            scheduler: The learning-rate schedule of all roles.
            seed: Seed of dropout, noise and sampling in each step.
            compile: Whether to compile the model.
            log_every_n_steps: Optimiser steps between rows of training metrics.
            accumulate: Batches a step.
            nominal_weight: Constant that losses are divided by while the true weight is still unknown.
        """
        super().__init__()
        self.model = model
        self.objective = objective
        self.record = record
        self.spec = spec
        self.tokenizer = tokenizer
        self.roles = optimizers
        self.scheduler = scheduler
        self.seed = seed
        self.compile_model = compile
        self.log_every_n_steps = log_every_n_steps
        self.accumulate = accumulate
        self.nominal_weight = nominal_weight
        self.automatic_optimization = not objective.manual
        self.results: dict[str, float] = {}
        self.tables: dict[str, Any] = {}
        self.examples_seen_here = 0
        self._meter = Meter()
        self._evaluation = Meter()
        self._metrics: dict[str, Metric] = {}
        self._step_weight: Tensor | float = 0.0
        self._logged_step = -1
        self._peak_lrs: list[list[float]] = []
        self._total_steps = 1
        self._deferred = False

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of each running hook here, 45 times a step; torch's way of setting an attribute of a
        # module, which looks for parameters, took a tenth of a millisecond a step for it.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply_batch_transfer_handler(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        # A loader's batches are on the CPU already; Lightning's hooks around the transfer cost more than a small step's loss.
        if self.device.type == "cpu":
            return batch
        return super()._apply_batch_transfer_handler(batch, device, dataloader_idx)

    # Training

    def on_fit_start(self) -> None:
        """Fix what stays the same over all steps."""
        self._total_steps = max(1, int(self.trainer.estimated_stepping_batches))
        self._deferred = self.accumulate > 1 or self.trainer.world_size > 1
        self._logged_step = self.trainer.global_step

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Make one optimiser a role, in the order of the roles."""
        depths = block_depths(self.model.architecture)
        made = [
            optimizer.build(parameter_groups(parameters, optimizer, depths))
            for optimizer, parameters in self.roles.values()
        ]
        self._peak_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in made]
        return made

    def on_train_start(self) -> None:
        """Compile, once everything is on its device."""
        if self.compile_model:
            self._compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Take one batch; the loss returned has its exact weight, or is corrected before the optimiser's step."""
        # Whatever is random in a step depends on the step alone, so that a continued run draws what the first would have.
        self._seed_step(batch_idx)
        self._set_lr()
        self.examples_seen_here += len(next(iter(batch.values())))
        if isinstance(self.objective, ManualObjective):
            self._manual_step(self.objective, batch)
            return None
        loss = self.objective.loss(self.model(**self._inputs(batch)), batch)
        self._meter.add_loss(loss)
        penalty = self.model.architecture.penalty()
        if penalty is not None:
            loss.total = loss.total + penalty * loss.weight
        if not self._deferred:
            return loss.total / loss.weight
        weight = loss.weight.detach() if isinstance(loss.weight, Tensor) else loss.weight
        self._step_weight = self._step_weight + weight
        # Lightning divides by the number of accumulated batches; that is not the weight, so it is undone here.
        return loss.total * (self.accumulate / self.nominal_weight)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradient by the weight of everything it was summed over."""
        if not self._deferred or self.objective.manual:
            return
        weight = torch.as_tensor(self._step_weight, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        weight = weight.to(self.device)
        if _distributed():
            dist.all_reduce(weight)
        self._step_weight = 0.0
        # Data-parallel training averages over processes; the factor turns that average into a sum first.
        factor = float(self.nominal_weight * self.trainer.world_size / weight)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, factor)

    def write_training_row(self) -> None:
        """Write a row of training metrics if it is time.

        A callback calls it, so that the row is there before a checkpoint of the same step is written, which Lightning leaves
        to the last of the callbacks; in the module's own hook, which comes behind, a kill between the two would lose it.
        """
        step = self.trainer.global_step
        if step % self.log_every_n_steps == 0 and step != self._logged_step:
            self._logged_step = step
            means = self._meter.means("train", reduce=True)
            self._meter.reset()
            self._write({**means, "lr": self._peak_lrs[0][0] * self.scheduler.factor(step - 1, self._total_steps)})

    def _manual_step(self, objective: ManualObjective, batch: Batch) -> None:
        optimizers = dict(zip(self.roles, cast("list[LightningOptimizer]", _listed(self.optimizers())), strict=True))
        first = next(iter(self.roles))
        stepped = False

        def step(role: str) -> None:
            nonlocal stepped
            optimizer = optimizers[role]
            if role == first and not stepped:
                optimizer.step()
                stepped = True
            else:
                # Through the strategy, past Lightning's counter: a run counts batches, not every player's moves.
                self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None, self)
            optimizer.zero_grad()

        metrics = objective.step(self.model, batch, self.manual_backward, step)
        count = len(next(iter(batch.values())))
        self._meter.add({name: value.detach() * count for name, value in metrics.items()}, count)

    def _seed_step(self, batch_idx: int) -> None:
        value = mix(self.seed, self.trainer.current_epoch, batch_idx, self.trainer.global_rank)
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(value)
        else:
            torch.manual_seed(value)

    def _set_lr(self) -> None:
        factor = self.scheduler.factor(self.trainer.global_step, self._total_steps)
        for optimizer, peaks in zip(self.trainer.optimizers, self._peak_lrs, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        if ENCODED in batch:
            return {"inputs": batch[ENCODED], "encoded": batch[ENCODED]}
        return self.objective.inputs(batch)

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Begin a validation with fresh metrics."""
        self._begin_evaluation()

    def on_test_epoch_start(self) -> None:
        """Begin a test with fresh metrics."""
        self._begin_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the validation's metrics."""
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the test's metrics."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Publish the validation's metrics."""
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Publish the test's metrics."""
        self._end_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """Return the objective's records of a batch."""
        outputs = self.model.forward(**self._inputs(batch))
        return self.objective.predictions(outputs, batch, self.tokenizer)

    def _begin_evaluation(self) -> None:
        self._evaluation.reset()
        self._metrics = {name: metric.to(self.device) for name, metric in self.objective.metrics().items()}

    def _evaluate(self, batch: Batch) -> None:
        if isinstance(self.objective, ManualObjective):
            self._evaluation.add_loss(self.objective.evaluate(self.model, batch))
            return
        # Past the compiled call: evaluation's odd shapes would each compile anew.
        outputs = self.model.forward(**self._inputs(batch))
        self._evaluation.add_loss(self.objective.loss(outputs, batch))
        self.objective.update_metrics(self._metrics, outputs, batch)

    def _end_evaluation(self, prefix: str) -> None:
        values = self._evaluation.means(prefix, reduce=True)
        for name, metric in self._metrics.items():
            result = metric.compute()
            if result.ndim == 0:
                values[f"{prefix}/{name}"] = float(result)
            else:
                self.tables[f"{prefix}/{name}"] = result.tolist()
        self._metrics = {}
        self.results.update(values)
        self.log_dict(values, logger=False)
        if prefix == "val":
            self._write(values)

    # Shared

    def _write(self, values: dict[str, float]) -> None:
        if not self.trainer.is_global_zero:
            return
        self.results.update(values)
        row = {"epoch": self.trainer.current_epoch, **values}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.trainer.global_step)

    def _compile(self) -> None:
        """Compile the model in place, trying it on one batch: what cannot be compiled runs as it is, with one warning."""
        loader = cast("Loader", self.trainer.datamodule.loader("train"))  # type: ignore[attr-defined]
        batch = loader.split.batch(torch.arange(loader.batch_size // loader.world))
        batch = {name: value.to(self.device) for name, value in batch.items()}
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self.model.compile()
        try:
            with torch.random.fork_rng(enabled=True), self.trainer.precision_plugin.forward_context():
                loss = self.objective.loss(self.model(**self._inputs(batch)), batch).total
                torch.autograd.grad(loss, [p for p in self.model.parameters() if p.requires_grad], allow_unused=True)
        except Exception as error:
            self.model._compiled_call_impl = None
            # Written down, so that a continued run does the same even where compiling works.
            self.compile_model, self.record = False, dataclasses.replace(self.record, compile=False)
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"the model runs uncompiled: torch.compile failed: {cause}", RuntimeWarning, stacklevel=2)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model, and the running sums of the row in progress."""
        checkpoint[KEY] = {
            **self.record.to_dict(),
            "meter": self._meter.state(),
            "results": dict(self.results),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back the running sums."""
        saved = checkpoint[KEY]
        self._meter.load_state(saved["meter"])
        self.results = dict(saved["results"])


def parameter_groups(
    parameters: Iterable[nn.Parameter], optimizer: Optimizer, depths: Mapping[nn.Parameter, int] | None = None
) -> list[dict[str, Any]]:
    """Split parameters into matrices, which decay, and vectors (biases, norms), which do not.

    With the optimizer's ``layer_decay`` below 1, parameters further from the output also learn more slowly.

    Args:
        parameters: Those that do not learn are left out.
        optimizer: Gives learning rate, weight decay and layer decay.
        depths: Of parameters inside the backbone, the number of blocks between them and the output.

    Source: Radford et al. 2018 (GPT), section 4.1.
    """
    config = optimizer.config
    layer_decay = getattr(config, "layer_decay", 1.0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            depth = (depths or {}).get(parameter, 0) if layer_decay < 1 else 0
            groups.setdefault((depth, parameter.ndim < 2), []).append(parameter)
    made = []
    for (depth, is_vector), members in sorted(groups.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": members, "weight_decay": 0.0 if is_vector else config.weight_decay}
        if depth:
            group["lr"] = config.lr * layer_decay**depth
        made.append(group)
    return made


def block_depths(architecture: Architecture) -> dict[nn.Parameter, int]:
    """Return how many blocks lie between a parameter and the output: 1 for the last block's, 0 for what is behind it."""
    blocks = architecture.blocks()
    depths = {one: len(blocks) + 1 for part in architecture.input_stage() for one in part.parameters()}
    for index, block in enumerate(blocks):
        depths |= {one: len(blocks) - index for one in block.parameters()}
    return depths


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
