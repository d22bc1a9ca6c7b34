"""Causal language modelling: predict the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import GenerateRequest, LossSum, Model, Objective, Samples
from torchloom.contracts.spec import Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import Problem, UnsupportedError
from torchloom_objectives.configs import ChatConfig, CLMConfig
from torchloom_objectives.generation import generate, needed
from torchloom_objectives.heads import tie_problems, vocabulary_layer
from torchloom_objectives.masking import IGNORED


class CLM(Objective):
    """Cross-entropy of the next token, summed over the counted tokens.

    With ``positions="all"`` every position predicts its successor; padding behind ``length`` is not counted, nor can a
    causal network see it. Where the batch tells ``documents`` apart, a position sees its own document alone, and the
    first token of a document is not predicted, but for an end-of-text token that ends the one before too. With
    ``positions="last"`` the window as a whole predicts the token behind it, and rows of fewer than two tokens are not
    counted.
    """

    accepts = (TokenSpec,)
    inherits: ClassVar[frozenset[str]] = frozenset({"clm", "chat"})
    spec: TokenSpec
    config: CLMConfig | ChatConfig

    def __init__(self, config: CLMConfig | ChatConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        self.last = isinstance(config, CLMConfig) and config.positions == "last"
        self.protocol = "features" if self.last else "sequence"
        self.needs_causal = not self.last

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse an embedding that is to be tied but has another shape than the output layer."""
        return tie_problems(architecture, self.spec.vocab_size)

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer ``(..., width)`` to ``(..., vocab)``; the embedding's matrix where tied."""
        return vocabulary_layer(architecture, self.spec.vocab_size, bias=self.config.bias)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return all tokens but the last, with what they may see; for ``positions="last"`` with the lengths that this leaves.

        Raises:
            UnsupportedError: ``positions="last"`` with documents, which a window as a whole does not tell apart.
        """
        tokens, length, documents = batch["tokens"], batch.get("length"), batch.get("documents")
        if not self.last:
            mask = None if documents is None else AttentionMask(documents=documents[:, :-1])
            return {"tokens": tokens[:, :-1], **({} if mask is None else {"mask": mask})}
        if documents is not None:
            raise UnsupportedError(
                "objective clm with positions=last predicts from a whole window, whose documents it cannot tell apart; "
                "set objective.positions=all or dataset.packing=stream"
            )
        if length is None:
            return {"inputs": tokens[:, :-1]}
        return {"inputs": tokens[:, :-1], "lengths": (length - 1).clamp(min=1)}

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the cross-entropy summed over the counted tokens.

        Args:
            outputs: Logits ``(batch, seq, vocab)``, or ``(batch, vocab)`` for ``positions="last"``.
            batch: Holds ``tokens`` and perhaps ``length`` and ``documents``.
        """
        targets = self.targets(batch)
        total = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="sum", ignore_index=IGNORED)
        partial = "length" in batch or "documents" in batch
        weight = (targets != IGNORED).sum() if partial else float(targets.numel())
        return LossSum(total, weight)

    def targets(self, batch: Batch) -> Tensor:
        """Return the token that each output predicts, `IGNORED` where there is none.

        Returns:
            int64 ``(batch, seq)``, or ``(batch,)`` for ``positions="last"``.
        """
        tokens, length = batch["tokens"], batch.get("length")
        if self.last:
            if length is None:
                return tokens[:, -1]
            final = tokens.gather(1, (length - 1).clamp(min=0)[:, None]).squeeze(1)
            return final.masked_fill(length < 2, IGNORED)
        targets, documents = tokens[:, 1:], batch.get("documents")
        if documents is not None:
            crossing = documents[:, 1:] != documents[:, :-1]
            if self.spec.eos_id is not None:
                crossing &= targets != self.spec.eos_id
            targets = targets.masked_fill(crossing, IGNORED)
        if length is None:
            return targets
        position = torch.arange(1, tokens.shape[1], device=tokens.device)
        return targets.masked_fill(position >= length[:, None], IGNORED)

    def metrics(self) -> dict[str, Metric]:
        """Return the share of tokens that were the most likely one, and the perplexity."""
        accuracy = MulticlassAccuracy(self.spec.vocab_size, average="micro", ignore_index=IGNORED, validate_args=False)
        return {"accuracy": accuracy, "perplexity": Perplexity()}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add the counts of one batch; no logits are kept."""
        metrics["accuracy"].update(outputs.argmax(dim=-1).flatten(), self.targets(batch).flatten())
        metrics["perplexity"].update(self.loss(outputs, batch))

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return, for each row, how well it was predicted and what was thought likeliest in place of its last token.

        Returns:
            Records of ``loss`` (mean over the row's tokens; None if none is counted), ``perplexity``, and the
            ``prediction`` for the row's last token with its ``probability``.
        """
        targets = self.targets(batch)
        logits = outputs.float()
        if self.last:
            logits, targets = logits[:, None], targets[:, None]
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED).sum(dim=1)
        counted = (targets != IGNORED).sum(dim=1)
        final = logits[torch.arange(len(logits), device=logits.device), (counted - 1).clamp(min=0)]
        probability, token = final.softmax(dim=-1).max(dim=-1)
        records = []
        for total, count, likeliest, value in zip(
            losses.tolist(), counted.tolist(), token.tolist(), probability.tolist(), strict=True
        ):
            mean = total / count if count else None
            records.append(
                {
                    "loss": mean,
                    "perplexity": None if mean is None else math.exp(mean),
                    "prediction": likeliest if tokenizer is None else tokenizer.decode([likeliest]),
                    "probability": value,
                }
            )
        return records

    def generate(self, model: Model, request: GenerateRequest, tokenizer: Tokenizer | None = None) -> Samples:
        """Continue the prompts; see `torchloom_objectives.generation.generate`."""
        tokenizer = needed(tokenizer, "CLM")
        return Samples(texts=generate(model, request, tokenizer, self.spec))


class Perplexity(Metric):
    """exp of the mean loss, from sums alone; torchmetrics' own would compute the softmax again in its own layout."""

    higher_is_better = False
    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: LossSum) -> None:
        """Add a batch's loss."""
        self.total += loss.total.detach()
        self.weight += loss.weight

    def compute(self) -> Tensor:
        """Return the perplexity; NaN before anything was counted."""
        return (self.total / self.weight).exp()
