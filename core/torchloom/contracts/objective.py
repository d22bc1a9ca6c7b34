"""Objectives: what is asked of an architecture, how wrong the answer is, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch, Split
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(slots=True)
class LossSum:
    """A loss before division, so that batches of unequal weight can be added exactly.

    Attributes:
        total: Scalar tensor, the sum of the losses of all counted items (tokens, samples).
        weight: How many items are counted: scalar tensor or number.
        metrics: Further sums over the same items, logged beside the loss after division: name to scalar tensor.
    """

    total: Tensor
    weight: Tensor | float
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Samples:
    """What a model made up.

    Attributes:
        texts: Generated texts, with the prompts where they go on with these.
        images: float32 ``(num, channels, height, width)`` in ``[0, 1]``, or None.
    """

    texts: Sequence[str] = ()
    images: Tensor | None = None


@dataclass(slots=True)
class GenerateRequest:
    """How to generate.

    Attributes:
        num_samples: Samples wanted.
        prompts: Beginnings to continue, text only; repeated to fill ``num_samples``; empty starts from nothing.
        max_new_tokens: Tokens after the prompt.
        temperature: Divides the logits; 0 takes the most likely token always.
        top_k: Sample among the k most likely tokens only.
        top_p: Sample among the fewest tokens whose probabilities add up to p.
        repetition_penalty: Divides the positive logits of tokens that stand in the text already, and multiplies the
            negative ones; 1 is none.
        num_beams: Candidates kept in a beam search for the likeliest text; 1 searches not. Nothing is then drawn, so that
            ``temperature``, ``top_k`` and ``top_p`` rest, and several samples of a prompt are the best ones in order.
        length_penalty: In a beam search, a candidate's log-probability is divided by its length to this power: above 0
            favours long ones.
        stop: Texts before which a sample ends; they are not part of it.
        use_cache: Whether the architecture's state carries earlier tokens; the result is the same without.
        generator: Source of randomness, on the CPU.
        on_token: Called with the text of each new token of the first sample, for streaming.
    """

    num_samples: int = 1
    prompts: Sequence[str] = ()
    max_new_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    stop: Sequence[str] = ()
    use_cache: bool = True
    generator: torch.Generator | None = None
    on_token: Callable[[str], None] | None = None


class Model(nn.Module):
    """An architecture and the objective's head, which is all that is trained, saved and generated from."""

    def __init__(self, architecture: Architecture, head: nn.Module | None, protocol: str) -> None:
        super().__init__()
        self.architecture = architecture
        self.head = head
        self.protocol = protocol

    def forward(self, **inputs: Any) -> Any:
        """Call the architecture's protocol with the objective's inputs, then the head, and return what that gives.

        ``places`` among the inputs, bool ``(batch, seq)``, is for the head: the positions that it need read at all. A head
        that tells groups of positions apart, such as two texts, takes ``(groups, batch, seq)``.
        """
        if not self.architecture.takes_segments:
            inputs.pop("segments", None)
        read = {"places": inputs.pop("places")} if "places" in inputs else {}
        vectors: Tensor = getattr(self.architecture, self.protocol)(**inputs)
        return self.head(vectors, **read) if self.head is not None else vectors


class Objective(ABC):
    """Base of all objectives.

    Attributes:
        accepts: Kinds of examples it needs; any of them.
        protocol: The protocol it needs of the architecture.
        monitor: The metric by which checkpoints are compared, such as ``"val/accuracy"``, and whether more is better.
        manual: Whether it takes its own optimiser steps (see `ManualObjective`).
        inherits: Names of objectives with the same head, an output layer over the vocabulary: a run that starts from one on
            any of these takes that head too.
        continues: Whether texts that it generates begin with their prompts.
        tokenizer: The data's tokenizer, trained, or None if it has none; set before `check`, `head` and `examples`.
        config: Its config dataclass; what an objective fills in of it when it is built goes into checkpoints.
    """

    accepts: ClassVar[tuple[type[Spec], ...]] = ()
    protocol: str = "features"
    needs_causal: bool = False
    monitor: tuple[str, bool] = ("val/loss", False)
    manual: ClassVar[bool] = False
    inherits: ClassVar[frozenset[str]] = frozenset()
    continues: ClassVar[bool] = True
    tokenizer: Tokenizer | None = None

    def __init__(self, config: Any, spec: Spec) -> None:
        self.config = config
        self.spec = spec

    @classmethod
    def released(cls, settings: dict[str, Any], weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return how a trained model is used: usually as it was trained.

        An objective that needs more for training than the model does afterwards, such as a teacher, names another here.

        Args:
            settings: The objective's node: its name, and its config as it stood when training began.
            weights: The model's, keys as in `Model`.

        Returns:
            Node and weights of the objective that the model is evaluated with, predicts and generates.
        """
        return settings, weights

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Return what stands in the way of training this architecture, beyond protocol and spec; usually nothing."""
        return ()

    def head(self, architecture: Architecture) -> nn.Module | None:
        """Return a new head for vectors of ``architecture.width``; None if the architecture's output is used as it is."""
        return None

    def examples(self, split: Split) -> Split:
        """Return a split whose batches are what this objective trains on, made of the dataset's; usually the same.

        Such as one that hides tokens: its batches are a function of ``(indices, key)`` like any split's, and random
        numbers come from `torchloom.data.uniform`, so that they are the same after a resume and in any number of
        processes, and fixed in evaluation.
        """
        return split

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments for the architecture's protocol method; ``places`` goes to the head instead."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> LossSum:
        """Return the undivided loss of a batch.

        Args:
            outputs: What the head gave: usually logits ``(batch, ..., classes)``.
            batch: The batch that `inputs` was taken from.
        """

    def metrics(self) -> dict[str, Metric]:
        """Return fresh torchmetrics for one evaluation, by name without the split (``"accuracy"``).

        Scalar results are logged as ``val/accuracy``; others (a confusion matrix) go to the summary's tables.
        """
        return {}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Any, batch: Batch) -> None:  # noqa: B027
        """Add one evaluation batch to the metrics."""

    def predictions(self, outputs: Any, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return one plain record an example, for ``predict``: ``{"prediction": "7", "probability": 0.98}``.

        Raises:
            UnsupportedError: This objective makes no predictions.
        """
        raise UnsupportedError(f"objective {type(self).__name__} makes no predictions")

    def generate(self, model: Model, request: GenerateRequest, tokenizer: Tokenizer | None = None) -> Samples:
        """Make samples with a trained model; the model is in evaluation mode and gradients are off.

        Raises:
            UnsupportedError: This objective generates nothing.
        """
        raise UnsupportedError(f"objective {type(self).__name__} generates nothing; use predict")


class ManualObjective(Objective):
    """An objective that takes its own optimiser steps, with one optimiser a role.

    Gradient accumulation and clipping are not available to it. The first role's steps are the run's global steps.

    Attributes:
        roles: Names of the players, in the order of their steps.
    """

    manual: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parameters(self, model: Model, role: str) -> Iterator[nn.Parameter]:
        """Yield the parameters that a role's optimiser changes."""

    def optimizer_overrides(self, role: str) -> dict[str, Any]:
        """Return fields of the optimizer's config that differ for this role, such as ``{"lr": 4e-4}``."""
        return {}

    @abstractmethod
    def step(
        self,
        model: Model,
        batch: Batch,
        backward: Callable[[Tensor], None],
        optimizer_step: Callable[[str], None],
    ) -> dict[str, Tensor]:
        """Take one training step.

        Args:
            model: Its ``architecture`` follows `protocol`.
            batch: A training batch on the model's device.
            backward: Call it with a scalar loss in place of ``loss.backward()``.
            optimizer_step: Call it with a role to step its optimiser and clear that role's gradients.

        Returns:
            Detached scalars to log, by name without ``train/``.
        """

    def loss(self, outputs: Any, batch: Batch) -> LossSum:
        """Not used: a manual objective has no single loss.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(f"{type(self).__name__} takes its own steps")

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Not used: a manual objective calls the architecture's modules itself.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(f"{type(self).__name__} takes its own steps")

    def evaluate(self, model: Model, batch: Batch) -> LossSum:
        """Return a loss to watch on a validation batch; randomness must come from a generator of its own.

        Raises:
            UnsupportedError: It has none.
        """
        raise UnsupportedError(f"{type(self).__name__} has no evaluation")
