"""Progress on the terminal: a Rich bar where there is one, a line now and then where the output goes to a file."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from torchloom.module import TorchloomModule

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0


class Progress(pl.Callback):
    """Shows steps, the newest metrics and the time left, on standard error, and sees to it that metrics are written.

    It is one callback because Lightning asks every callback at every hook, which costs a small step dear.

    Attributes:
        seconds: Time spent on training batches so far, validations and start-up left out.
    """

    def __init__(self, style: str) -> None:
        self.console = Console(stderr=True)
        self.style = style if style == "none" or self.console.is_terminal else "lines"
        self.seconds = 0.0
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._next = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the bar."""
        if self.style == "rich" and trainer.is_global_zero:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeRemainingColumn(),
                console=self.console,
                auto_refresh=False,
            )
            total = int(trainer.estimated_stepping_batches)
            self._task = self._bar.add_task("training", total=total, completed=trainer.global_step, metrics="")
            self._bar.start()
        self._since = time.perf_counter()
        self._next = self._since + (_REFRESH_SECONDS if self._bar else _LINE_SECONDS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have a row of metrics written and the bar refreshed, each if it is time."""
        if isinstance(pl_module, TorchloomModule):
            pl_module.write_training_row()
        now = time.perf_counter()
        if now >= self._next:
            self._show(trainer, pl_module, now)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of training."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new metrics and go on."""
        if trainer.state.fn == "fit":
            self._since = time.perf_counter()
            self._show(trainer, pl_module, self._since)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None
        if self._bar is not None:
            self._show(trainer, pl_module, time.perf_counter())
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._close()

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule, now: float) -> None:
        self._next = now + (_REFRESH_SECONDS if self._bar else _LINE_SECONDS)
        if self.style == "none" or not trainer.is_global_zero or not isinstance(pl_module, TorchloomModule):
            return
        text = "  ".join(
            f"{name} {value:.4g}" for name, value in pl_module.results.items() if name in _shown(pl_module)
        )
        step, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=f"epoch {trainer.current_epoch}", completed=step, metrics=text, refresh=True
            )
        else:
            self.console.print(
                f"epoch {trainer.current_epoch}  step {step}/{total}  {text}", highlight=False, soft_wrap=True
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _shown(module: TorchloomModule) -> tuple[str, ...]:
    names = [name for name in module.results if name.startswith("train/")][:2]
    return (*names, "val/loss", module.objective.monitor[0])
