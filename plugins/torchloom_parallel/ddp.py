"""Data-parallel training by torch's DistributedDataParallel."""

from __future__ import annotations

import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy

from torchloom.configs import TrainerConfig
from torchloom.contracts.parallel import Parallel
from torchloom.errors import Problem


class DDP(Parallel):
    """Component ``parallel=ddp``.

    A batch of ``dataset.batch_size`` is divided among the processes, so a run takes the same steps on any number of them.
    Batch norms take their statistics over each process's own share.

    Source: Li et al. 2020, PyTorch Distributed: Experiences on Accelerating Data Parallel Training.
    """

    def check(self, trainer: TrainerConfig) -> list[Problem]:
        """Refuse more GPUs than there are."""
        if trainer.accelerator == "gpu" and torch.cuda.device_count() < trainer.devices:
            return [
                Problem(
                    "trainer.devices",
                    f"asks for {trainer.devices} GPUs, but this machine has {torch.cuda.device_count()}",
                    "ask for fewer, or train on processors with trainer.accelerator=cpu",
                )
            ]
        return []

    def strategy(self, trainer: TrainerConfig) -> Strategy:
        """Return the strategy of this process."""
        on_gpu = trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and torch.cuda.is_available())
        backend = ("nccl" if on_gpu else "gloo") if self.config.backend == "auto" else self.config.backend
        return _Strategy(
            process_group_backend=backend,
            find_unused_parameters=self.config.find_unused_parameters,
            bucket_cap_mb=self.config.bucket_cap_mb,
        )


class _Strategy(DDPStrategy):
    def configure_ddp(self) -> None:
        """Wrap the module; where several players take turns, a loss reaches the parameters of one of them alone."""
        assert self.lightning_module is not None
        if not self.lightning_module.automatic_optimization:
            self._ddp_kwargs["find_unused_parameters"] = True
        super().configure_ddp()
