"""The Lightning callback behind `callbacks.checkpoint`."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from torchloom import checkpoint
from torchloom.configs import CheckpointConfig
from torchloom.contracts.training import Callback
from torchloom.errors import Interrupted

_SECONDS_BETWEEN_EPOCHS = 10.0


class CheckpointCallback(Callback):
    """Component ``callbacks=checkpoint``."""

    def build(self, folder: Path, monitor: tuple[str, bool]) -> Checkpointing:
        """Return the callback."""
        return Checkpointing(self.config, folder, monitor)


class Checkpointing(Checkpoint):
    """Writes a checkpoint after each validation, every so many steps, and where the run is interrupted.

    One that falls due on a step that is validated is written after the validation, for otherwise a run that is continued
    from it would lack that validation's metrics.

    Attributes:
        interrupted: Set from a signal handler; the run then stops behind the current step, with a checkpoint.
        best_path: The best checkpoint by the monitored metric, of equal ones the newest, or None while there is none.
    """

    def __init__(self, config: CheckpointConfig, folder: Path, monitor: tuple[str, bool]) -> None:
        self.config = config
        self.folder = folder
        self.metric, self.larger_is_better = monitor
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.interrupted = False
        self._saved_step = -1
        self._saved_at = time.monotonic()

    @property
    def best_path(self) -> Path | None:
        """The best checkpoint so far."""
        path = self.folder / checkpoint.FOLDER / checkpoint.BEST
        return path if self.best_step is not None and path.is_file() else None

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far."""
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the best score."""
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A continued run does not write the checkpoint it starts from again."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every so many steps, and stop here if that was asked for."""
        if self.interrupted:
            if trainer.global_step != self._saved_step:
                self.save(trainer)
            raise Interrupted
        every = self.config.every_n_steps
        if every is None or trainer.global_step % every or trainer.global_step == self._saved_step:
            return
        if not validation_is_due(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save behind each validation in training, and keep the best."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.metric)
        score = float(value) if isinstance(value, Tensor) else None
        # Of equal ones the newest: accuracies on few examples are often equal, and longer training then tells.
        is_best = score is not None and (
            self.best_score is None or (score >= self.best_score if self.larger_is_better else score <= self.best_score)
        )
        if is_best:
            self.best_score, self.best_step = score, trainer.global_step
        self.save(trainer, best=is_best and self.config.save_best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch that was not validated, unless short epochs would then do little else."""
        ended = trainer.global_step >= trainer.max_steps
        if trainer.global_step != self._saved_step and (
            ended or time.monotonic() - self._saved_at > _SECONDS_BETWEEN_EPOCHS
        ):
            self.save(trainer)

    def save(self, trainer: pl.Trainer, *, best: bool = False) -> None:
        """Write the current step's checkpoint and remove those beyond the number kept."""
        path = checkpoint.path_of(self.folder, trainer.global_step)
        checkpoint.write(trainer, path)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if not trainer.is_global_zero:
            return
        if best:
            link = path.with_name(checkpoint.BEST + ".partial")
            link.unlink(missing_ok=True)
            try:
                os.link(path, link)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, link)
            link.replace(path.with_name(checkpoint.BEST))
        for old in checkpoint.saved(self.folder)[self.config.keep :]:
            old.unlink(missing_ok=True)


def validation_is_due(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Tell whether Lightning will validate behind this training batch."""
    if not trainer.enable_validation or not trainer.val_dataloaders:
        return False
    loop = trainer.fit_loop.epoch_loop
    if trainer.check_val_every_n_epoch is None:
        return bool((loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0)
    return bool(
        loop.batch_progress.is_last_batch and (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0
    )
