"""Parallel strategies: how the work of one run is spread over processes and devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torchloom.configs import TrainerConfig
from torchloom.errors import Problem

if TYPE_CHECKING:
    from pytorch_lightning.strategies import Strategy


class Parallel(ABC):
    """Base of all parallel strategies."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, trainer: TrainerConfig) -> list[Problem]:
        """Return what stands in the way: a number of devices that does not fit, hardware that is missing."""
        return []

    @abstractmethod
    def strategy(self, trainer: TrainerConfig) -> Strategy | str:
        """Return the Lightning strategy, or its name, for this process."""

    def data_parallel(self, trainer: TrainerConfig) -> int:
        """Return how many processes see different examples; a batch is divided among them."""
        return trainer.devices * trainer.num_nodes
