"""Next-sentence prediction: does the second piece of text follow the first? Alone, or with masked tokens as in BERT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch, Split
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import SentencePairSpec, Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import Problem
from torchloom_objectives.clm import Perplexity
from torchloom_objectives.configs import NSPConfig
from torchloom_objectives.heads import MaskedHead, class_head, tie_problems
from torchloom_objectives.masking import IGNORED
from torchloom_objectives.mlm import check_masking, hidden_tokens, masked, text_inputs


class NSP(Objective):
    """Cross-entropy of follows or not, summed over the pairs; with ``mlm``, each pair's mean over its hidden tokens too.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1 and appendix A.2.
    """

    accepts = (SentencePairSpec,)
    protocol = "sequence"
    monitor = ("val/accuracy", True)
    spec: SentencePairSpec
    config: NSPConfig

    def __init__(self, config: NSPConfig, spec: Spec) -> None:
        """Take the special tokens from the spec.

        Raises:
            ConfigError: With ``mlm``, the tokenizer has no mask token.
        """
        super().__init__(config, spec)
        if config.mlm:
            self.monitor = ("val/loss", False)
            check_masking(config, self.spec, "nsp")

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse a causal network, whose first vector has seen one token, and an embedding that cannot be tied."""
        problems = list(tie_problems(architecture, self.spec.vocab_size)) if self.config.mlm else []
        if architecture.causal:
            message = "reads the answer from the first position, where a causal architecture has seen nothing yet"
            problems.append(Problem("objective=nsp", message, "choose one that looks both ways: architecture=encoder"))
        return problems

    def head(self, architecture: Architecture) -> nn.Module:
        """Return BERT's head of the first position, ``follows`` ``(batch, 2)``, and with ``mlm`` that of the hidden tokens.

        The latter gives ``tokens`` ``(hidden tokens, vocab)``.
        """
        follows = class_head(architecture.width, 2, hidden=True, dropout=0.0)
        return _Heads(follows, MaskedHead(architecture, self.spec.vocab_size) if self.config.mlm else None)

    def examples(self, split: Split) -> Split:
        """Return the split, with tokens hidden if they are to be guessed."""
        return masked(split, self.config, self.spec, self.tokenizer) if self.config.mlm else split

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the tokens, with their lengths and which piece they belong to, and where tokens are hidden."""
        places = {"places": batch["targets"] != IGNORED} if self.config.mlm else {}
        return {**text_inputs(batch), **places}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> LossSum:
        """Return the loss summed over the pairs.

        Args:
            outputs: What the head gave.
            batch: Holds ``label``, and with ``mlm`` ``targets``.
        """
        total = F.cross_entropy(outputs["follows"], batch["label"], reduction="sum")
        count = float(len(batch["label"]))
        if "tokens" not in outputs:
            return LossSum(total, count)
        losses, hidden = _token_losses(outputs["tokens"], batch)
        # A pair of nothing but special tokens hides none.
        guessed = (losses / hidden.clamp(min=1)).sum()
        return LossSum(total + guessed, count, {"mlm_loss": guessed.detach(), "nsp_loss": total.detach()})

    def metrics(self) -> dict[str, Metric]:
        """Return the share of pairs told right; with ``mlm`` also of hidden tokens, and their perplexity."""
        found: dict[str, Metric] = {"accuracy": MulticlassAccuracy(2, average="micro", validate_args=False)}
        if self.config.mlm:
            found["mlm_accuracy"] = MulticlassAccuracy(self.spec.vocab_size, average="micro", validate_args=False)
            found["mlm_perplexity"] = Perplexity()
        return found

    def update_metrics(self, metrics: dict[str, Metric], outputs: dict[str, Tensor], batch: Batch) -> None:
        """Add one batch."""
        metrics["accuracy"].update(outputs["follows"].argmax(dim=-1), batch["label"])
        if self.config.mlm:
            metrics["mlm_accuracy"].update(outputs["tokens"].argmax(dim=-1), hidden_tokens(batch))
            losses, hidden = _token_losses(outputs["tokens"], batch)
            metrics["mlm_perplexity"].update(LossSum(losses.sum(), hidden.sum()))

    def predictions(
        self, outputs: dict[str, Tensor], batch: Batch, tokenizer: Tokenizer | None = None
    ) -> list[dict[str, Any]]:
        """Return whether each second piece is thought to follow the first, and with what probability it does."""
        probability = outputs["follows"].float().softmax(dim=-1)[:, 1].tolist()
        return [{"prediction": value > 0.5, "probability": value} for value in probability]


class _Heads(nn.Module):
    def __init__(self, follows: nn.Module, tokens: nn.Module | None) -> None:
        super().__init__()
        self.follows, self.tokens = follows, tokens

    def forward(self, vectors: Tensor, places: Tensor | None = None) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = {"follows": self.follows(vectors[:, 0])}
        if self.tokens is not None:
            outputs["tokens"] = self.tokens(vectors, places)
        return outputs


def _token_losses(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return each row's loss summed over its hidden tokens, and how many these are, ``(batch,)`` each."""
    hidden = batch["targets"] != IGNORED
    losses = F.cross_entropy(logits, hidden_tokens(batch), reduction="none")
    return losses.new_zeros(len(hidden)).index_add(0, hidden.nonzero()[:, 0], losses), hidden.sum(dim=1)
