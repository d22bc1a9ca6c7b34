"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

from torchloom.contracts.training import Scheduler
from torchloom_training.configs import ConstantConfig, CosineConfig, StepConfig


class Constant(Scheduler):
    """The peak rate, reached after a linear warm-up if there is one."""

    config: ConstantConfig

    def factor(self, step: int, total_steps: int) -> float:
        """Return ``(step + 1) / (warmup_steps + 1)`` up to 1; never 0, so that the first step already learns."""
        return _warmup(step, self.config.warmup_steps)


class Cosine(Scheduler):
    """Linear warm-up, then half a cosine wave down to ``min_factor`` at the last step.

    Source: Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation 5 without restarts; warm-up as in nanoGPT.
    """

    config: CosineConfig

    def factor(self, step: int, total_steps: int) -> float:
        """Return the warm-up's factor, then a value that falls from 1 to ``min_factor`` and stays there."""
        warmup_steps, low = self.config.warmup_steps, self.config.min_factor
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        if step >= total_steps:
            return low
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


class Step(Scheduler):
    """The rate is multiplied by ``gamma`` every ``step_size`` steps."""

    config: StepConfig

    def factor(self, step: int, total_steps: int) -> float:
        """Return ``gamma ** (step // step_size)``."""
        return float(self.config.gamma ** (step // self.config.step_size))


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))
