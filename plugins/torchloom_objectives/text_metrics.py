"""How close written texts are to the true ones: BLEU and ROUGE, as sums that add up over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class TextMetric(Metric):
    """Base of the metrics that compare texts.

    Attributes:
        seen: Texts added here.
    """

    higher_is_better = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def update(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        """Add texts with the true ones."""
        self.seen += len(texts)
        self.add(texts, truths)

    @abstractmethod
    def add(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        """Add to the sums."""


class BLEU(TextMetric):
    """Corpus BLEU of sacreBLEU with its defaults, in ``[0, 100]``.

    Source: Post 2018, arXiv:1804.08771.
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(10, dtype=torch.long), dist_reduce_fx="sum")

    def add(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        """Add the counts of matching and of all n-grams, and the lengths."""
        from sacrebleu.metrics import bleu

        score = bleu.BLEU().corpus_score(list(texts), [list(truths)])
        sums = [*score.counts, *score.totals, score.sys_len, score.ref_len]
        self.sums += torch.tensor(sums, device=self.sums.device)

    def compute(self) -> Tensor:
        """Return the score of all texts; NaN before any was added."""
        from sacrebleu.metrics import bleu

        sums = self.sums.tolist()
        if not sums[9]:
            return torch.tensor(torch.nan, device=self.sums.device)
        score = bleu.BLEU.compute_bleu(sums[:4], sums[4:8], sums[8], sums[9], smooth_method="exp")
        return torch.tensor(score.score, device=self.sums.device)


class ROUGE(TextMetric):
    """Mean F1 of ROUGE, without stemming, in ``[0, 1]``.

    Source: Lin 2004, https://aclanthology.org/W04-1013.
    """

    total: Tensor
    count: Tensor

    def __init__(self, kind: str) -> None:
        """Choose what is compared: ``"rouge1"``, ``"rouge2"`` or ``"rougeL"``."""
        super().__init__()
        from rouge_score.rouge_scorer import RougeScorer

        self.kind = kind
        self.scorer = RougeScorer([kind])
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def add(self, texts: Sequence[str], truths: Sequence[str]) -> None:
        """Add each text's F1."""
        for text, truth in zip(texts, truths, strict=True):
            self.total += self.scorer.score(truth, text)[self.kind].fmeasure
            self.count += 1

    def compute(self) -> Tensor:
        """Return the mean; NaN before any text was added."""
        return self.total / self.count
