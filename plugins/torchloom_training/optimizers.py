"""Torch's optimisers over the groups that the core makes: matrices with weight decay, vectors without."""

from __future__ import annotations

from typing import Any

import torch

from torchloom.contracts.training import Optimizer
from torchloom.errors import ConfigError, Problem
from torchloom_training.configs import AdamConfig, AdamWConfig, SGDConfig


class AdamW(Optimizer):
    """Adam with weight decay apart from the gradient.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101, algorithm 2.
    """

    config: AdamWConfig

    def __init__(self, config: AdamWConfig) -> None:
        super().__init__(config)
        self._betas = _betas(config.betas)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return `torch.optim.AdamW` over the groups."""
        config = self.config
        return torch.optim.AdamW(groups, lr=config.lr, betas=self._betas, eps=config.eps, fused=_fused(groups))


class Adam(Optimizer):
    """Adam; weight decay is an L2 penalty, added to the gradient before the running means.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, algorithm 1.
    """

    config: AdamConfig

    def __init__(self, config: AdamConfig) -> None:
        super().__init__(config)
        self._betas = _betas(config.betas)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return `torch.optim.Adam` over the groups."""
        config = self.config
        return torch.optim.Adam(groups, lr=config.lr, betas=self._betas, eps=config.eps, fused=_fused(groups))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; weight decay is an L2 penalty, added to the gradient."""

    config: SGDConfig

    def __init__(self, config: SGDConfig) -> None:
        super().__init__(config)
        if config.nesterov and not config.momentum:
            raise ConfigError(
                [Problem("optimizer.nesterov", "Nesterov's step needs momentum, but it is 0", "set optimizer.momentum")]
            )

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return `torch.optim.SGD` over the groups."""
        config = self.config
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=_fused(groups)
        )


def _betas(values: list[float]) -> tuple[float, float]:
    if len(values) != 2 or not all(0 <= value < 1 for value in values):
        problem = Problem(
            "optimizer.betas",
            f"{values} are not two numbers in [0, 1)",
            "give two, such as optimizer.betas=[0.9,0.999]",
        )
        raise ConfigError([problem])
    return values[0], values[1]


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """Return True on a CPU, where one kernel a step is several times faster; elsewhere torch chooses.

    On a GPU torch's own choice is nearly as fast, and Lightning refuses to clip gradients under ``16-mixed`` with it.
    """
    parameters = (parameter for group in groups for parameter in group["params"])
    on_cpu = all(parameter.device.type == "cpu" and parameter.is_floating_point() for parameter in parameters)
    return True if on_cpu else None
