"""Pairs of pieces of running text, half of which follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.data import mix, uniform

SHORT = 0.1
"""Probability of a pair that is shorter than it could be, lest a model never see short ones (Devlin et al. 2019)."""
_STREAM = 0x6E7370
_ROUND = 8


@dataclass(frozen=True, slots=True)
class PairTokens:
    """Special tokens of a pair, and its greatest length."""

    cls: int
    sep: int
    pad: int
    context_length: int

    @property
    def room(self) -> int:
        """Tokens for both pieces together."""
        return self.context_length - 3


class SentencePairs(Split):
    """``[cls] a [sep] b [sep]``, where ``b`` follows ``a`` in its document in every other example, else is of another one.

    Where in a document a pair lies, where it is divided, and what stands second if not what follows, hangs on the example
    and the epoch; in evaluation, on the example alone. An epoch has an example for each stretch of text that fills a row.
    The lengths of the pieces are drawn alike for both kinds.

    Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1 and appendix A.2.
    """

    augmented = True

    def __init__(self, documents: Sequence[Tensor], tokens: PairTokens) -> None:
        """Keep the documents.

        Args:
            documents: int32 ``(length,)`` each, at least 2 long; two or more, no two alike.
            tokens: Special tokens and length.
        """
        self._tokens = tokens
        self._stream = torch.cat(list(documents))
        self._sizes = torch.tensor([len(one) for one in documents])
        self._begins = self._sizes.cumsum(0) - self._sizes
        self._counts = (self._sizes // tokens.room).clamp(min=1)
        self._ends = self._counts.cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return pairs with ``label`` 1 where the second piece follows the first."""
        draws = uniform(key, indices, 6, stream=_STREAM).double()
        document = torch.searchsorted(self._ends, indices, right=True)
        # Another document, in proportion to its length: one of the examples that are not of this document.
        count = self._counts[document]
        stranger = (draws[:, 0] * (len(self) - count)).long()
        stranger += count * (stranger >= self._ends[document] - count)
        other = torch.searchsorted(self._ends, stranger, right=True)

        room = self._tokens.room
        short = 2 + (draws[:, 2] * (room - 1)).long()
        size = self._sizes[document]
        total = torch.where(draws[:, 1] < SHORT, short, room).minimum(size)
        first = 1 + (draws[:, 3] * (total - 1)).long()
        second = (total - first).minimum(self._sizes[other])
        begin = (draws[:, 4] * (size - total + 1)).long() + self._begins[document]
        elsewhere = (draws[:, 5] * (self._sizes[other] - second + 1)).long() + self._begins[other]

        flip = 0 if key is None else mix(_STREAM, key.seed, key.epoch) & 1
        label = (indices + flip) % 2
        follows = torch.where(label == 1, begin + first, elsewhere)
        return {**lay_out(self._stream, begin, first, follows, second, self._tokens), "label": label}


class GivenPairs(Split):
    """A person's own pairs."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], tokens: PairTokens) -> None:
        """Keep the pairs, each cut to fit: of two pieces, the longer one first.

        Args:
            pairs: int64 ``(length,)`` each.
            tokens: Special tokens and length.
        """
        half = tokens.room - tokens.room // 2
        pieces: list[Tensor] = []
        for first, second in pairs:
            kept = first[: max(half, tokens.room - len(second))]
            pieces += [kept, second[: tokens.room - len(kept)]]
        self._tokens = tokens
        self._stream = torch.cat(pieces)
        self._sizes = torch.tensor([len(piece) for piece in pieces])
        self._begins = self._sizes.cumsum(0) - self._sizes

    def __len__(self) -> int:
        return len(self._sizes) // 2

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return pairs without labels."""
        first, second = 2 * indices, 2 * indices + 1
        begins, sizes = self._begins, self._sizes
        return lay_out(self._stream, begins[first], sizes[first], begins[second], sizes[second], self._tokens)


def lay_out(
    stream: Tensor, first: Tensor, first_size: Tensor, second: Tensor, second_size: Tensor, tokens: PairTokens
) -> Batch:
    """Put rows together of pieces of a stream.

    Args:
        stream: ``(length,)``.
        first: Where the first piece of each row begins, ``(batch,)``.
        first_size: Its length.
        second: Where the second piece begins.
        second_size: Its length.
        tokens: Special tokens, and the length that no row exceeds.

    Returns:
        ``tokens``, ``length`` and ``segments``, filled up to a multiple of 8.
    """
    length = first_size + second_size + 3
    width = min(-(-int(length.max()) // _ROUND) * _ROUND, tokens.context_length)
    place = torch.arange(width)
    behind = place > first_size[:, None] + 1
    source = torch.where(behind, second[:, None] + place - first_size[:, None] - 2, first[:, None] + place - 1)
    rows = stream[source.clamp(0, len(stream) - 1)].long()
    rows[:, 0] = tokens.cls
    ends = torch.stack([first_size + 1, length - 1], 1)
    rows = rows.scatter(1, ends, tokens.sep).masked_fill(place >= length[:, None], tokens.pad)
    return {"tokens": rows, "length": length, "segments": (behind & (place < length[:, None])).long()}
