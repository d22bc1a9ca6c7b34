"""Tokens hidden from a model that is to guess them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.contracts.spec import TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.data import uniform

IGNORED = -100
"""Target that is not counted."""
_CHOICE, _FATE, _RANDOM = 1, 2, 3
_SPECIAL = ("pad", "unk", "bos", "eos", "mask", "cls", "sep")


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are hidden.

    Attributes:
        share: Share of the ordinary tokens that is hidden.
        masked: Share of the hidden ones that becomes the mask token.
        random: Share of the hidden ones that becomes a random ordinary token; the rest stays as it is.
        mask_id: The mask token.
        ordinary: Which tokens are not special, bool ``(vocab,)``.
        joins: Which tokens go on with a word where one ends before them, and which may end in the midst of one, bool
            ``(vocab,)`` each; None hides tokens one by one.
    """

    share: float
    masked: float
    random: float
    mask_id: int
    ordinary: Tensor
    joins: tuple[Tensor, Tensor] | None = None

    def __call__(self, tokens: Tensor, length: Tensor | None, indices: Tensor, key: EpochKey | None) -> Batch:
        """Hide tokens.

        Each token (each word, with ``joins``) is hidden with probability ``share``, and in a row that would be left
        whole, the one that came closest to it.

        Args:
            tokens: int64 ``(batch, seq)``.
            length: Real tokens of each row, ``(batch,)``; all of them if None.
            indices: The examples' numbers, ``(batch,)``.
            key: Seed and epoch in training, None in evaluation.

        Returns:
            ``tokens``, and ``targets``: what was hidden, int64 ``(batch, seq)``, `IGNORED` elsewhere.
        """
        count = tokens.shape[1]
        open_to = self.ordinary[tokens]
        if length is not None:
            open_to &= torch.arange(count) < length[:, None]
        chance = uniform(key, indices, count, stream=_CHOICE)
        if self.joins is not None:
            chance = chance.gather(1, word_starts(tokens, open_to, *self.joins))
        chance = chance.masked_fill(~open_to, 2.0)
        hidden = open_to & ((chance < self.share) | (chance == chance.amin(1, keepdim=True)))

        fate = uniform(key, indices, count, stream=_FATE)
        choices = self.ordinary.nonzero().squeeze(1)
        drawn = choices[(uniform(key, indices, count, stream=_RANDOM) * len(choices)).long()]
        changed = torch.where(
            fate < self.masked, self.mask_id, torch.where(fate < self.masked + self.random, drawn, tokens)
        )
        return {
            "tokens": torch.where(hidden, changed, tokens),
            "targets": tokens.masked_fill(~hidden, IGNORED),
        }


class MaskedSplit(Split):
    """A split with tokens hidden, anew in every epoch of training and always the same in evaluation.

    Of windows of running text it takes the first ``context_length`` tokens.
    """

    augmented = True

    def __init__(self, split: Split, masking: Masking, context_length: int) -> None:
        self.split, self.masking, self.context_length = split, masking, context_length
        self.lengths = split.lengths

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return the split's batch with ``tokens`` hidden, and ``targets`` beside them."""
        batch = cut(self.split.batch(indices, key), self.context_length)
        return {**batch, **self.masking(batch["tokens"], batch.get("length"), indices, key)}


def cut(batch: Batch, length: int) -> Batch:
    """Return a batch of texts without what stands behind the first ``length`` positions."""
    found: Batch = {name: batch[name][:, :length] for name in ("tokens", "documents", "segments") if name in batch}
    if "length" in batch:
        found["length"] = batch["length"].clamp(max=length)
    return {**batch, **found}


def ordinary_tokens(spec: TokenSpec, tokenizer: Tokenizer | None) -> Tensor:
    """Return which tokens are not special, bool ``(vocab,)``."""
    special = {getattr(spec, f"{name}_id", None) for name in _SPECIAL}
    if tokenizer is not None:
        special |= {tokenizer.special_id(name) for name in _SPECIAL}
    ordinary = torch.ones(spec.vocab_size, dtype=torch.bool)
    ordinary[[one for one in special if one is not None]] = False
    return ordinary


def word_tables(tokenizer: Tokenizer, ordinary: Tensor) -> tuple[Tensor, Tensor]:
    """Return which tokens go on with a word that ends before them, and which a word may go on behind.

    Asks the tokenizer how it writes each token behind one that is a word, so it holds for pieces marked inside a word
    (WordPiece) and for those that carry the space before them (byte-pair encoding) alike.

    Returns:
        bool ``(vocab,)`` each.
    """
    ids = ordinary.nonzero().squeeze(1).tolist()
    alone = {one: tokenizer.decode([one]) for one in ids}
    word = next((one for one in ids if alone[one].isalpha() and alone[one].isascii()), None)
    goes_on, stays_open = torch.zeros_like(ordinary), torch.zeros_like(ordinary)
    for one in ids:
        behind = alone[one] if word is None else tokenizer.decode([word, one])[len(alone[word]) :]
        goes_on[one] = _in_word(behind[:1])
        stays_open[one] = _in_word(alone[one][-1:])
    return goes_on, stays_open


def word_starts(tokens: Tensor, open_to: Tensor, goes_on: Tensor, stays_open: Tensor) -> Tensor:
    """Return for each token the position of the first token of its word, int64 ``(batch, seq)``."""
    joined = torch.zeros_like(open_to)
    joined[:, 1:] = goes_on[tokens[:, 1:]] & stays_open[tokens[:, :-1]] & open_to[:, 1:] & open_to[:, :-1]
    return torch.arange(tokens.shape[1]).expand_as(tokens).masked_fill(joined, 0).cummax(1).values


def _in_word(character: str) -> bool:
    # A byte that is only a part of a character is shown as U+FFFD.
    return character.isalnum() or character == "\ufffd"
