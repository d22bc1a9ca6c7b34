"""One class an example."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import ImageSpec, LabelledTextSpec, SeriesSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, Problem
from torchloom_objectives.configs import ClassificationConfig, EntailmentConfig
from torchloom_objectives.heads import ComparingHead, class_head
from torchloom_objectives.mlm import text_inputs


class Classification(Objective):
    """Cross-entropy over the classes of the dataset's spec.

    Takes images, series, and text of a spec that has ``num_classes`` and ``classes`` as `ImageSpec` has, with ``label``
    in its batches. The loss is a sum over samples.
    """

    accepts: ClassVar[tuple[type[Spec], ...]] = (ImageSpec, TokenSpec, SeriesSpec)
    protocol = "features"
    config: ClassificationConfig
    name: ClassVar[str] = "classification"
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
                        f"objective={self.name}",
                        f"needs at least 2 classes, but the dataset gives {spec.name} of {have}",
                        "choose a dataset with labels, or another objective",
                    )
                ]
            )

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer with bias, ``(batch, width)`` to ``(batch, classes)``, and what is asked for before it."""
        config = self.config
        return class_head(architecture.width, self.num_classes, hidden=config.hidden, dropout=config.dropout)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the images, or the series or tokens with their lengths and, of pairs, which text each token is of."""
        if "image" in batch:
            return {"inputs": batch["image"]}
        given = {"inputs": batch["series" if "series" in batch else "tokens"], "lengths": batch.get("length")}
        return {**given, "segments": batch["segments"]} if "segments" in batch else given

    def targets(self, batch: Batch) -> Tensor:
        """Return the true classes, int64 ``(batch,)``."""
        return batch["label"]

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


class Sentiment(Classification):
    """Name the mood of a text, with the head that BERT is fine-tuned with."""

    accepts = (LabelledTextSpec,)
    name = "sentiment"


class Entailment(Classification):
    """Say whether the second of two texts follows from the first, with the head that BERT is fine-tuned with.

    With ``compare`` the head reads a vector of each text and how they differ, which a small network learns sooner than to
    compare words by attention.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 4.1; Conneau et al. 2017, arXiv:1705.02364, section 3.2.
    """

    accepts = (LabelledTextSpec,)
    name = "entailment"
    config: EntailmentConfig

    def __init__(self, config: EntailmentConfig, spec: Spec) -> None:
        """Take the classes from the spec.

        Raises:
            ConfigError: The dataset has fewer than two classes, or its examples are not pairs.
        """
        super().__init__(config, spec)
        if not cast(LabelledTextSpec, spec).pairs:
            message = "compares two texts, but the dataset gives one an example"
            raise ConfigError(
                [Problem("objective=entailment", message, "choose dataset=entailment, or another objective")]
            )
        if config.compare:
            self.protocol = "sequence"

    def head(self, architecture: Architecture) -> nn.Module:
        """Return BERT's head of one vector, or with ``compare`` that of two texts' vectors."""
        config = self.config
        if not config.compare:
            return super().head(architecture)
        return ComparingHead(architecture.width, self.num_classes, hidden=config.hidden, dropout=config.dropout)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the tokens with their lengths and which text each is of; with ``compare`` also each text's positions."""
        if not self.config.compare:
            return super().inputs(batch)
        segments = batch["segments"]
        real = torch.arange(segments.shape[1], device=segments.device) < batch["length"][:, None]
        return {**text_inputs(batch), "places": torch.stack([real & (segments == text) for text in (0, 1)])}
