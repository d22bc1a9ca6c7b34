"""Extractive question answering: where in a context the answer stands."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import QuestionSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom_objectives.configs import QAConfig
from torchloom_objectives.mlm import text_inputs


class QA(Objective):
    """Cross-entropy of the answer's first and of its last token, the mean of both, summed over windows.

    The first position stands for "not in this window". Neither padding nor the question can be the answer.

    Source: Devlin et al. 2019, arXiv:1810.04805, sections 4.2 and 4.3.
    """

    accepts = (QuestionSpec,)
    protocol = "sequence"
    monitor = ("val/f1", True)
    spec: QuestionSpec
    config: QAConfig

    def head(self, architecture: Architecture) -> nn.Module:
        """Return a linear layer, ``(batch, seq, width)`` to ``(batch, seq, 2)``: logits of start and end."""
        return nn.Linear(architecture.width, 2)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the tokens, with their lengths and which of question and context they belong to."""
        return text_inputs(batch)

    def loss(self, outputs: Tensor, batch: Batch) -> LossSum:
        """Return the loss summed over windows.

        Args:
            outputs: ``(batch, seq, 2)``.
            batch: As `QuestionSpec` has it.
        """
        start, end = _logits(outputs, batch)
        total = sum(
            F.cross_entropy(one, batch[name], reduction="sum") for one, name in ((start, "start"), (end, "end"))
        )
        return LossSum(torch.as_tensor(total) / 2, float(len(start)))

    def metrics(self) -> dict[str, Metric]:
        """Return SQuAD's exact match and F1, each a mean over questions in ``[0, 1]``."""
        threshold = self.config.null_threshold
        return {"em": QuestionScore(threshold), "f1": QuestionScore(threshold)}

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add the windows of one batch."""
        spans = self.spans(outputs, batch)
        truths = [_texts(row) for row in batch["answers"].cpu()]
        for name, measure in (("em", exact_match), ("f1", f1)):
            values = [best_of(measure, span.text, truth) for span, truth in zip(spans, truths, strict=True)]
            empty = [best_of(measure, "", truth) for truth in truths]
            metrics[name].update(
                batch["example"],
                torch.tensor([[span.score, span.null] for span in spans], device=outputs.device),
                torch.tensor([values, empty], device=outputs.device).T,
            )

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return each window's answer, empty where none is likelier.

        Returns:
            Records of ``example``, the number of the question; ``prediction``; ``score``, the answer's logit above that
            of no answer. The windows of one question answer it together by the highest score.
        """
        records = []
        for span, example in zip(self.spans(outputs, batch), batch["example"].tolist(), strict=True):
            text = span.text if span.score + self.config.null_threshold >= span.null else ""
            records.append({"example": example, "prediction": text, "score": span.score - span.null})
        return records

    def spans(self, outputs: Tensor, batch: Batch) -> list[Span]:
        """Return each window's best span of at most ``max_answer_length`` tokens."""
        start, end = (one.detach().float() for one in _logits(outputs, batch))
        count = start.shape[1]
        allowed = torch.ones(count, count, dtype=torch.bool, device=start.device).triu()
        allowed &= allowed.tril(self.config.max_answer_length - 1)
        allowed[0] = False
        scores = (start[:, :, None] + end[:, None, :]).masked_fill(~allowed, -torch.inf)
        best, place = scores.flatten(1).max(dim=1)
        null = start[:, 0] + end[:, 0]
        found = []
        offsets, contexts = batch["offsets"].cpu(), batch["context"].cpu()
        rows = zip(best.tolist(), null.tolist(), place.tolist(), strict=True)
        for row, (score, nothing, number) in enumerate(rows):
            first, last = divmod(number, count)
            begin, stop = int(offsets[row, first, 0]), int(offsets[row, last, 1])
            text = "" if score == -torch.inf else bytes(contexts[row, begin:stop].tolist()).decode(errors="ignore")
            found.append(Span(text, score, nothing))
        return found


@dataclass(frozen=True, slots=True)
class Span:
    """An answer that a window gives.

    Attributes:
        text: The answer.
        score: Sum of the logits of its start and end.
        null: The same of there being no answer.
    """

    text: str
    score: float
    null: float


class QuestionScore(Metric):
    """Mean over questions of what each one's best answer is worth.

    A question's answer is that of its window with the highest score, or none if the least of its windows' scores for
    that is higher by more than the threshold, as in the original BERT.
    """

    higher_is_better = True
    full_state_update = False
    example: list[Tensor]
    scores: list[Tensor]
    values: list[Tensor]

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        for name in ("example", "scores", "values"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, example: Tensor, scores: Tensor, values: Tensor) -> None:
        """Add windows.

        Args:
            example: Number of each one's question, ``(batch,)``.
            scores: Of the best span, and of none, ``(batch, 2)``.
            values: What answering so is worth, ``(batch, 2)``.
        """
        self.example.append(example)
        self.scores.append(scores)
        self.values.append(values)

    def compute(self) -> Tensor:
        """Return the mean; NaN before anything was added."""
        if not len(self.example):
            return torch.tensor(torch.nan, device=self.device)
        # A list of what this process added, or one tensor of what all did.
        example, scores, values = (
            one if isinstance(one, Tensor) else torch.cat(one) for one in (self.example, self.scores, self.values)
        )
        windows: dict[int, list[int]] = {}
        for row, number in enumerate(example.tolist()):
            windows.setdefault(number, []).append(row)
        worth = []
        for rows in windows.values():
            best = rows[int(scores[rows, 0].argmax())]
            none = bool(scores[rows, 1].min() > scores[best, 0] + self.threshold)
            worth.append(values[best, int(none)])
        return torch.stack(worth).mean()


def normalise(text: str) -> str:
    """Return a text as SQuAD compares it: lower case, without punctuation, articles and extra spaces.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1.
    """
    plain = "".join(one for one in text.lower() if one not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def exact_match(answer: str, truth: str) -> float:
    """Return 1 if both are the same text once normalised, else 0."""
    return float(normalise(answer) == normalise(truth))


def f1(answer: str, truth: str) -> float:
    """Return the harmonic mean of precision and recall of words; where one text has none, whether the other has none."""
    found, wanted = normalise(answer).split(), normalise(truth).split()
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def best_of(measure: Callable[[str, str], float], answer: str, truths: list[str]) -> float:
    """Return the best value over the true answers; a question without any is answered by an empty text.

    Answers of which normalising leaves nothing do not count, as in SQuAD 2.0.
    """
    real = [one for one in truths if normalise(one)]
    return max(measure(answer, truth) for truth in real or [""])


def _logits(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits of start and end, ``(batch, seq)`` each, minus infinity where no answer can stand."""
    context = batch["offsets"][..., 0] >= 0
    context[:, 0] = True
    start, end = outputs.masked_fill(~context[..., None], -torch.inf).unbind(dim=-1)
    return start, end


def _texts(row: Tensor) -> list[str]:
    return [part.decode(errors="replace") for part in bytes(row.tolist()).split(b"\0") if part]
