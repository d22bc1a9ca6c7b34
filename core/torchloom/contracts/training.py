"""Optimizers, schedulers, callbacks and loggers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchloom.configs import OptimizerConfig

if TYPE_CHECKING:
    from pytorch_lightning import Callback as LightningCallback
    from pytorch_lightning.loggers import Logger as LightningLogger


class Optimizer(ABC):
    """Makes a torch optimiser over parameter groups."""

    def __init__(self, config: OptimizerConfig) -> None:
        self.config = config

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimiser.

        Args:
            groups: torch parameter groups, each with ``params`` and ``weight_decay`` (matrices carry the config's, vectors
                0), in the model's order.
        """


class Scheduler(ABC):
    """A learning-rate schedule as a pure function of the step."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor on the peak learning rate.

        Args:
            step: Optimiser steps taken, from 0.
            total_steps: Steps of the whole run, at least 1.
        """


class Callback(ABC):
    """Makes a Lightning callback."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self, folder: Path, monitor: tuple[str, bool]) -> LightningCallback:
        """Return the callback.

        Args:
            folder: The run's folder, which exists.
            monitor: The objective's metric and whether more of it is better.
        """


class Logger(ABC):
    """Makes a Lightning logger."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self, folder: Path) -> LightningLogger:
        """Return the logger, which writes into the run's folder."""
