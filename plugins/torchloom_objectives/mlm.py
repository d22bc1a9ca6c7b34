"""Masked language modelling: guess hidden tokens from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.dataset import Batch, Split
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, Problem
from torchloom_objectives.clm import Perplexity
from torchloom_objectives.configs import MaskingConfig, MLMConfig
from torchloom_objectives.heads import MaskedHead, tie_problems
from torchloom_objectives.masking import IGNORED, MaskedSplit, Masking, ordinary_tokens, word_tables


class MLM(Objective):
    """Cross-entropy of the hidden tokens, summed over them.

    Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1; Liu et al. 2019 (RoBERTa), arXiv:1907.11692, hides anew
    in every epoch.
    """

    accepts = (TokenSpec,)
    protocol = "sequence"
    inherits: ClassVar[frozenset[str]] = frozenset({"mlm"})
    spec: TokenSpec
    config: MLMConfig

    def __init__(self, config: MLMConfig, spec: Spec) -> None:
        """Take the special tokens from the spec.

        Raises:
            ConfigError: The tokenizer has no mask token.
        """
        super().__init__(config, spec)
        check_masking(config, self.spec, "mlm")

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse an embedding that is to be tied but has another shape than the output layer."""
        return tie_problems(architecture, self.spec.vocab_size)

    def head(self, architecture: Architecture) -> nn.Module:
        """Return BERT's head, ``(batch, seq, width)`` to ``(hidden tokens, vocab)``."""
        return MaskedHead(architecture, self.spec.vocab_size)

    def examples(self, split: Split) -> Split:
        """Return the split with tokens hidden, and ``targets`` in its batches."""
        return masked(split, self.config, self.spec, self.tokenizer)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the tokens, with what they may see and which text they belong to, and where the head shall read."""
        return {**text_inputs(batch), "places": batch["targets"] != IGNORED}

    def targets(self, batch: Batch) -> Tensor:
        """Return the hidden tokens, int64 ``(batch, seq)``, `IGNORED` elsewhere."""
        return batch["targets"]

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the cross-entropy summed over the hidden tokens.

        Args:
            outputs: Logits ``(hidden tokens, vocab)``, row by row.
            batch: Holds ``targets``.
        """
        targets = hidden_tokens(batch)
        return LossSum(F.cross_entropy(outputs, targets, reduction="sum"), float(len(targets)))

    def metrics(self) -> dict[str, Metric]:
        """Return the share of hidden tokens that were guessed, and the perplexity."""
        accuracy = MulticlassAccuracy(self.spec.vocab_size, average="micro", validate_args=False)
        return {"accuracy": accuracy, "perplexity": Perplexity()}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add the counts of one batch."""
        metrics["accuracy"].update(outputs.argmax(dim=-1), hidden_tokens(batch))
        metrics["perplexity"].update(self.loss(outputs, batch))

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return, for each row, what was hidden and what was guessed in its place."""
        counts = (batch["targets"] != IGNORED).sum(dim=1).tolist()
        records = []
        for pair in zip(hidden_tokens(batch).split(counts), outputs.argmax(dim=-1).split(counts), strict=True):
            words = [
                ids.tolist() if tokenizer is None else [tokenizer.decode([one]) for one in ids.tolist()] for ids in pair
            ]
            records.append({"hidden": words[0], "prediction": words[1]})
        return records


def hidden_tokens(batch: Batch) -> Tensor:
    """Return what was hidden in all rows, one row after another, int64 ``(hidden tokens,)``."""
    return batch["targets"][batch["targets"] != IGNORED]


def check_masking(config: MaskingConfig, spec: TokenSpec, name: str) -> None:
    """Refuse settings that cannot be followed.

    Raises:
        ConfigError: No mask token, or shares that add up to more than 1.
    """
    problems = []
    if spec.mask_id is None:
        message = f"objective={name} hides tokens behind the special token mask, which the tokenizer does not have"
        problems.append(Problem("tokenizer.special_tokens", message, "add mask to it"))
    if config.masked + config.random > 1:
        message = f"{config.masked} and objective.random={config.random} are more than all hidden tokens"
        problems.append(Problem("objective.masked", message, "lower one of them: together at most 1"))
    if problems:
        raise ConfigError(problems)


def masked(split: Split, config: MaskingConfig, spec: TokenSpec, tokenizer: Tokenizer | None) -> MaskedSplit:
    """Return a split with tokens hidden.

    Raises:
        ConfigError: Whole words are asked for, and there is no tokenizer that knows them.
    """
    ordinary = ordinary_tokens(spec, tokenizer)
    joins = None
    if config.whole_word:
        if tokenizer is None:
            message = "needs the tokenizer, to know which tokens make up a word; this data has none"
            raise ConfigError([Problem("objective.whole_word", message, "leave it out")])
        joins = word_tables(tokenizer, ordinary)
    assert spec.mask_id is not None
    masking = Masking(config.share, config.masked, config.random, spec.mask_id, ordinary, joins)
    return MaskedSplit(split, masking, spec.context_length)


def text_inputs(batch: Batch) -> dict[str, Any]:
    """Return the inputs of the protocol ``sequence``: tokens, with lengths, documents and segments where there are."""
    given: dict[str, Any] = {"tokens": batch["tokens"]}
    if "length" in batch or "documents" in batch:
        given["mask"] = AttentionMask(key_lengths=batch.get("length"), documents=batch.get("documents"))
    if "segments" in batch:
        given["segments"] = batch["segments"]
    return given
