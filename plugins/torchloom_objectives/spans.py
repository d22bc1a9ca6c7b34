"""Span corruption: pieces of running text are cut out, to be written in their turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.data import uniform
from torchloom.errors import ConfigError, Problem

_CUTS = 4


@dataclass(frozen=True, slots=True)
class SpanCorruption:
    """How pieces are cut out of a text.

    The text is divided into pieces kept and pieces cut out in turn, a kept one first, of random lengths. Of the source
    each piece cut out leaves a sentinel; the target is, for each piece, its sentinel and its tokens, then one more
    sentinel. Sentinels are the last ids of the vocabulary, counting down.

    Attributes:
        density: Share of the tokens cut out.
        mean_span: Mean length of a piece.
        vocab_size: Ids there are.
        start: Token that begins the target.
        eos_id: Token that ends it, if there is one.

    Source: Raffel et al. 2020, arXiv:1910.10683, section 3.1.4 and figure 2.
    """

    density: float
    mean_span: float
    vocab_size: int
    start: int
    eos_id: int | None

    def counts(self, length: int) -> tuple[int, int]:
        """Return how many tokens of a text are cut out, in how many pieces; none of fewer than 2 tokens."""
        if length < 2:
            return 0, 0
        cut = min(max(round(length * self.density), 1), length - 1)
        return cut, max(1, min(round(cut / self.mean_span), cut, length - cut))

    def check(self, length: int) -> None:
        """Refuse what does not fit texts of a length.

        Raises:
            ConfigError: The target would be longer than the text, or there are fewer ids than sentinels.
        """
        cut, pieces = self.counts(length)
        if cut + pieces + 2 > length + 1:
            message = f"the {cut} of {length} tokens cut out, with {pieces + 1} sentinels, are longer than the text"
            raise ConfigError([Problem("objective.noise_density", message, "lower it, or raise objective.mean_span")])
        if pieces + 1 >= self.vocab_size:
            message = f"{pieces + 1} sentinels do not fit a vocabulary of {self.vocab_size}"
            raise ConfigError([Problem("objective.mean_span", message, "raise it, or enlarge the vocabulary")])

    def __call__(self, tokens: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return source and target of a text.

        Args:
            tokens: int64 ``(length,)``.
            numbers: Random numbers, at least as many.
        """
        cut, pieces = self.counts(len(tokens))
        lengths = [(len(tokens), 0)]
        if pieces:
            kept_lengths = _divide(len(tokens) - cut, pieces, numbers[cut:])
            lengths = list(zip(kept_lengths, _divide(cut, pieces, numbers), strict=True))
        source: list[int] = []
        target = [self.start]
        rest = tokens.tolist()
        for number, (kept, gone) in enumerate(lengths[: pieces or 1]):
            source += rest[:kept]
            if gone:
                source.append(self.vocab_size - 1 - number)
                target += [self.vocab_size - 1 - number, *rest[kept : kept + gone]]
            rest = rest[kept + gone :]
        target.append(self.vocab_size - 1 - pieces)
        if self.eos_id is not None:
            target.append(self.eos_id)
        return torch.tensor(source), torch.tensor(target)


class SpanSplit(Split):
    """Running text with pieces cut out, anew in every epoch of training and always the same in evaluation.

    Of each window it takes the first ``context_length`` tokens.
    """

    augmented = True

    def __init__(self, split: Split, corruption: SpanCorruption, context_length: int) -> None:
        self.split, self.corruption, self.context_length = split, corruption, context_length

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return sources and targets, as `torchloom.contracts.spec.Seq2SeqSpec` has them."""
        batch = self.split.batch(indices, key)
        tokens = batch["tokens"][:, : self.context_length]
        full = torch.full((len(tokens),), tokens.shape[1])
        lengths = batch.get("length", full).clamp(max=tokens.shape[1]).tolist()
        numbers = uniform(key, indices, tokens.shape[1], stream=_CUTS)
        pairs = [self.corruption(row[:length], own) for row, length, own in zip(tokens, lengths, numbers, strict=True)]
        made: Batch = {}
        for name, rows in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
            made[name] = pad_sequence(list(rows), batch_first=True)
            made[f"{name}_length"] = torch.tensor([len(row) for row in rows])
        return made


def _divide(total: int, parts: int, numbers: Tensor) -> list[int]:
    """Return the lengths, each at least 1, of ``parts`` pieces that make up ``total``, any division as likely."""
    cuts = (numbers[: total - 1].argsort(stable=True)[: parts - 1] + 1).sort().values.tolist()
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, total], strict=True)]
