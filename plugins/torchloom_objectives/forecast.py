"""Forecasting: the next values of a series."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import SeriesSpec, Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, Problem
from torchloom_objectives.configs import ForecastConfig


class Forecast(Objective):
    """Squared or absolute difference from the true next values: each example's mean, summed over examples."""

    accepts = (SeriesSpec,)
    protocol = "features"
    monitor = ("val/mae", False)
    spec: SeriesSpec
    config: ForecastConfig

    def __init__(self, config: ForecastConfig, spec: Spec) -> None:
        """Take the horizon from the spec.

        Raises:
            ConfigError: The dataset has none.
        """
        super().__init__(config, spec)
        if not self.spec.horizon:
            message = "predicts what comes next, but the dataset's examples have no horizon"
            raise ConfigError([Problem("objective=forecast", message, "choose dataset=timeseries")])

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer, ``(batch, width)`` to ``(batch, horizon, channels)``."""
        shape = (self.spec.horizon, self.spec.channels)
        return nn.Sequential(nn.Linear(architecture.width, shape[0] * shape[1]), nn.Unflatten(1, shape))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the series with their lengths."""
        return {"inputs": batch["series"], "lengths": batch.get("length")}

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the loss summed over examples.

        Args:
            outputs: ``(batch, horizon, channels)``.
            batch: Holds ``future`` of that shape.
        """
        difference = F.mse_loss if self.config.loss == "mse" else F.l1_loss
        losses = difference(outputs, batch["future"], reduction="none").mean(dim=(1, 2))
        return LossSum(losses.sum(), float(len(losses)))

    def metrics(self) -> dict[str, Metric]:
        """Return the mean absolute error, and that of the last value repeated."""
        return {"mae": MeanAbsoluteError(), "naive_mae": MeanAbsoluteError()}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add one batch."""
        series, future, length = batch["series"], batch["future"], batch.get("length")
        rows = torch.arange(len(series), device=series.device)
        last = series[:, -1] if length is None else series[rows, length - 1]
        metrics["mae"].update(outputs.flatten(), future.flatten())
        metrics["naive_mae"].update(last[:, None].expand_as(future).flatten(), future.flatten())

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return each example's next values, a list of ``horizon`` lists of ``channels`` numbers."""
        return [{"prediction": values} for values in outputs.tolist()]
