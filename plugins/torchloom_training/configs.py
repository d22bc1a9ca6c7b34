"""Settings of optimizers, schedulers, callbacks and loggers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom import option
from torchloom.configs import OptimizerConfig


@dataclass
class AdamWConfig(OptimizerConfig):
    """Settings of `adamw`."""

    weight_decay: float = option(0.01, "Decay of weight matrices, apart from the gradient.", ge=0, source="torch")
    betas: list[float] = option(lambda: [0.9, 0.999], "Decay rates of the two running means, each in [0, 1).")
    eps: float = option(1e-8, "Added to the denominator.", gt=0)


@dataclass
class AdamConfig(OptimizerConfig):
    """Settings of `adam`; its ``weight_decay`` is an L2 penalty, added to the gradient."""

    betas: list[float] = option(lambda: [0.9, 0.999], "Decay rates of the two running means, each in [0, 1).")
    eps: float = option(1e-8, "Added to the denominator.", gt=0)


@dataclass
class SGDConfig(OptimizerConfig):
    """Settings of `sgd`; its ``weight_decay`` is an L2 penalty, added to the gradient."""

    lr: float = option(0.01, "Peak learning rate.", ge=0)
    momentum: float = option(0.9, "Share of the last step that is kept; 0 is plain gradient descent.", ge=0, lt=1)
    nesterov: bool = option(False, "Look ahead along the momentum; needs momentum above 0.")


@dataclass
class ConstantConfig:
    """Settings of `constant`."""

    warmup_steps: int = option(0, "Steps in which the rate rises to its peak in a straight line.", ge=0, unit="steps")


@dataclass
class CosineConfig:
    """Settings of `cosine`."""

    warmup_steps: int = option(0, "Steps in which the rate rises to its peak in a straight line.", ge=0, unit="steps")
    min_factor: float = option(0.1, "What is left of the peak rate at the end.", ge=0, le=1, source="nanoGPT")


@dataclass
class StepConfig:
    """Settings of `step`."""

    step_size: int = option(1000, "Steps between two drops.", ge=1, unit="steps")
    gamma: float = option(0.1, "What each drop leaves of the rate.", gt=0, le=1)


@dataclass
class EarlyStoppingConfig:
    """Settings of `early_stopping`."""

    patience: int = option(3, "Validations without improvement that are put up with.", ge=1, unit="validations")
    min_delta: float = option(0.0, "Smaller changes are no improvement.", ge=0)
    monitor: str | None = option(None, "Metric to watch, such as 'val/loss'; the objective's own unless given.")
    mode: Literal["auto", "min", "max"] = option(
        "auto", "Whether less or more is better; auto knows the objective's metric, and elsewhere takes less."
    )


@dataclass
class SamplesConfig:
    """Settings of `samples`."""

    num_samples: int = option(16, "Samples in each file.", ge=1)
    prompts: list[str] = option(list, "Texts to continue, repeated to fill num_samples; from nothing if empty.")
    max_new_tokens: int = option(100, "Tokens after each prompt; of no account for images.", ge=1, unit="tokens")
    temperature: float = option(1.0, "Divides the logits; 0 takes the most likely token always.", ge=0)
    top_k: int | None = option(None, "Draw among the k most likely tokens only.", ge=1)
    top_p: float | None = option(None, "Draw among the fewest tokens whose probabilities add up to p.", gt=0, le=1)
    every_n_validations: int = option(1, "Validations from one file to the next.", ge=1, unit="validations")
    every_n_steps: int | None = option(None, "Optimiser steps from one file to the next, instead.", ge=1, unit="steps")


@dataclass
class CSVConfig:
    """`csv` has no settings."""


@dataclass
class TensorBoardConfig:
    """`tensorboard` has no settings."""
