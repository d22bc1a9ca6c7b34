"""One process on one device."""

from __future__ import annotations

from pytorch_lightning.strategies import Strategy

from torchloom.configs import TrainerConfig
from torchloom.contracts.parallel import Parallel
from torchloom.errors import Problem


class Single(Parallel):
    """Component ``parallel=single``."""

    def check(self, trainer: TrainerConfig) -> list[Problem]:
        """Refuse more than one device."""
        processes = trainer.devices * trainer.num_nodes
        if processes == 1:
            return []
        return [
            Problem(
                "parallel=single", f"trains in one process, but the trainer asks for {processes}", "choose parallel=ddp"
            )
        ]

    def strategy(self, trainer: TrainerConfig) -> Strategy | str:
        """Return Lightning's choice for one device."""
        return "auto"

    def data_parallel(self, trainer: TrainerConfig) -> int:
        """Return 1."""
        return 1
