"""Callbacks: stop when nothing improves, and show what the model makes up as it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from torchloom.contracts.objective import GenerateRequest, Objective
from torchloom.contracts.objective import Samples as Made
from torchloom.contracts.training import Callback
from torchloom.errors import ConfigError, Problem, UnsupportedError
from torchloom_training.configs import EarlyStoppingConfig, SamplesConfig

RULE = "\n" + "-" * 72 + "\n"
"""Stands between two texts of one file of samples."""


class EarlyStopping(Callback):
    """Ends training after ``patience`` validations without improvement."""

    config: EarlyStoppingConfig

    def build(self, folder: Path, monitor: tuple[str, bool]) -> lightning.EarlyStopping:
        """Return Lightning's callback, whose state is part of the checkpoint."""
        config = self.config
        name = config.monitor or monitor[0]
        more_is_better = config.mode == "max" or (config.mode == "auto" and monitor == (name, True))
        return EarlyStopper(
            monitor=name,
            mode="max" if more_is_better else "min",
            patience=config.patience,
            min_delta=config.min_delta,
            check_on_train_epoch_end=False,
        )


class EarlyStopper(lightning.EarlyStopping):
    """Lightning's callback, with an error that says what to do about a metric that is not there."""

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.monitor not in logs:
            message = f"there is no metric {self.monitor!r}"
            mend = f"choose one of {', '.join(sorted(logs))}" if logs else "no validation has given any metric yet"
            raise ConfigError([Problem("callbacks.early_stopping.monitor", message, mend)])
        return True


class Samples(Callback):
    """Writes ``samples/step-00000500.txt`` or ``.png`` into the run's folder."""

    config: SamplesConfig

    def build(self, folder: Path, monitor: tuple[str, bool]) -> SampleWriter:
        """Return the callback."""
        return SampleWriter(self.config, folder / "samples")


class SampleWriter(lightning.Callback):
    """Has the objective generate, now and then, without a trace in the training.

    The samples of a step depend on the run's seed and the step alone. The module is a Lightning module with the
    attributes ``objective``, ``model``, ``tokenizer`` and ``seed``.
    """

    def __init__(self, config: SamplesConfig, folder: Path) -> None:
        super().__init__()
        self.config = config
        self.folder = folder
        self._validations = 0
        self._last_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the count of validations, so that a resumed run samples at the same ones."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._validations = state_dict["validations"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse an objective that generates nothing, before training.

        Raises:
            UnsupportedError: The objective generates nothing.
        """
        objective: Any = pl_module.objective
        if stage == "fit" and type(objective).generate is Objective.generate:
            raise UnsupportedError(
                f"callbacks=samples: objective {type(objective).__name__} generates nothing; "
                "leave 'samples' out of callbacks"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the step that training starts from as done."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample if it is time by steps; with accumulated gradients a step ends more than one batch."""
        every, step = self.config.every_n_steps, trainer.global_step
        if every is not None and step % every == 0 and step != self._last_step:
            self._last_step = step
            self._sample(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sample if it is time by validations."""
        if self.config.every_n_steps is not None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._validations += 1
        if self._validations % self.config.every_n_validations == 0:
            self._sample(trainer, pl_module)

    def _sample(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        # Any 64-bit number will do; the odd factor keeps the seeds of neighbouring steps and runs apart.
        generator = torch.Generator().manual_seed((module.seed * 0x9E3779B97F4A7C15 + trainer.global_step) % 2**64)
        config = self.config
        request = GenerateRequest(
            num_samples=config.num_samples,
            prompts=tuple(config.prompts),
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            generator=generator,
        )
        with _undisturbed(module.model):
            made = module.objective.generate(module.model, request, module.tokenizer)
        write_samples(made, self.folder / f"step-{trainer.global_step:08d}")


def write_samples(samples: Made, stem: Path) -> list[Path]:
    """Write samples beside each other, each file in one move.

    Args:
        samples: What was generated.
        stem: Path without an ending; texts get ``.txt``, images ``.png``, one grid of them all.

    Returns:
        The files written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if samples.texts:
        written.append(stem.with_suffix(".txt"))
        temporary = stem.with_name(f".{stem.name}.txt.tmp")
        temporary.write_text(RULE.join(samples.texts) + "\n", encoding="utf-8", newline="")
        temporary.replace(written[-1])
    if samples.images is not None:
        written.append(stem.with_suffix(".png"))
        temporary = stem.with_name(f".{stem.name}.png.tmp")
        grid = make_grid(samples.images.float().cpu(), nrow=math.ceil(math.sqrt(len(samples.images))))
        save_image(grid, temporary, format="png")
        temporary.replace(written[-1])
    return written


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation and back into its own mode, and leave torch's random state as it was."""
    modes = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
