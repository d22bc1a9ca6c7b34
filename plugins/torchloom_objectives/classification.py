"""One class an example."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import ImageSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, Problem
from torchloom_objectives.configs import ClassificationConfig


class Classification(Objective):
    """Cross-entropy over the classes of the dataset's spec.

    Takes images, and text of a spec that has ``num_classes`` and ``classes`` as `ImageSpec` has, with ``label`` in its
    batches. The loss is a sum over samples.
    """

    accepts = (ImageSpec, TokenSpec)
    protocol = "features"
    config: ClassificationConfig
    monitor = ("val/accuracy", True)

    def __init__(self, config: ClassificationConfig, spec: Spec) -> None:
        """Take the classes from the spec.

        Raises:
            ConfigError: The dataset has fewer than two classes.
        """
        super().__init__(config, spec)
        self.num_classes: int = getattr(spec, "num_classes", 0)
        if self.num_classes < 2:
            have = "a single class" if self.num_classes == 1 else "no classes"
            raise ConfigError(
                [
                    Problem(
                        "objective=classification",
                        f"needs at least 2 classes, but the dataset gives {spec.name} of {have}",
                        "choose a dataset with labels, or another objective",
                    )
                ]
            )

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer with bias, ``(batch, width)`` to ``(batch, classes)``."""
        return nn.Linear(architecture.width, self.num_classes)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the images, or the tokens with their lengths."""
        if "image" in batch:
            return {"inputs": batch["image"]}
        return {"inputs": batch["tokens"], "lengths": batch.get("length")}

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the cross-entropy summed over samples.

        Args:
            outputs: Logits ``(batch, classes)``.
            batch: Holds ``label``, int64 ``(batch,)``.
        """
        label = batch["label"]
        total = F.cross_entropy(outputs, label, reduction="sum", label_smoothing=self.config.label_smoothing)
        return LossSum(total, float(len(label)))

    def metrics(self) -> dict[str, Metric]:
        """Return accuracy (of all samples), F1 (mean over classes) and the confusion matrix (rows are true classes)."""
        return {
            "accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False),
            "f1": MulticlassF1Score(self.num_classes, average="macro", validate_args=False),
            "confusion_matrix": MulticlassConfusionMatrix(self.num_classes, validate_args=False),
        }

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add the most likely class of each sample."""
        predicted = outputs.argmax(dim=-1)
        for metric in metrics.values():
            metric.update(predicted, batch["label"])

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return the most likely class of each example and its probability."""
        probability, index = outputs.float().softmax(dim=-1).max(dim=-1)
        classes = getattr(self.spec, "classes", ()) or [str(number) for number in range(self.num_classes)]
        return [
            {"prediction": classes[number], "probability": value}
            for number, value in zip(index.tolist(), probability.tolist(), strict=True)
        ]
