"""Windows over a stream of token ids."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split


class ShiftedWindows(Split):
    """Training windows that tile the stream from an offset which every epoch draws anew.

    Neighbouring windows share one token, the last target of one being the first input of the next, so that an epoch
    predicts no token twice. There is always room for an offset of ``context_length`` or more (if the stream holds two
    windows), so that in the long run each token is seen at each place of a window.
    """

    def __init__(self, tokens: Tensor, context_length: int) -> None:
        """Lay windows over a stream.

        Args:
            tokens: int32 ``(length,)``, at least ``context_length + 1`` long.
            context_length: Distance of windows; each holds one token more.
        """
        targets = len(tokens) - 1
        self._length = max(1, targets // context_length - 1)
        self._context_length = context_length
        self._slack = targets - self._length * context_length
        self._windows = tokens.unfold(0, context_length + 1, 1)

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return ``tokens``, int64 ``(batch, context_length + 1)``; without a key, the offset is 0."""
        offset = random.Random(f"{key.seed} {key.epoch}").randint(0, self._slack) if key is not None else 0
        return {"tokens": self._windows.index_select(0, indices * self._context_length + offset).long()}


class FixedWindows(Split):
    """Evaluation windows that cover streams wholly: every token but the first of each is predicted exactly once."""

    def __init__(self, streams: Sequence[Tensor], context_length: int, pad_id: int | None) -> None:
        """Lay windows over streams; none crosses from one to the next.

        Args:
            streams: int32 ``(length,)`` each, at least 2 long.
            context_length: Distance of windows; each holds one token more.
            pad_id: What fills the last window of a stream; 0 if there is no such token.
        """
        size = context_length + 1
        starts, lengths, inputs, position = [], [], [], 0
        for number, stream in enumerate(streams):
            inner = torch.arange(0, len(stream) - 1, context_length)
            starts.append(inner + position)
            lengths.append((len(stream) - inner).clamp(max=size))
            inputs.append(torch.full_like(inner, number))
            position += len(stream)
        empty = torch.zeros(0, dtype=torch.int64)
        self._starts = torch.cat([*starts, empty])
        self._lengths = torch.cat([*lengths, empty])
        self._inputs = torch.cat([*inputs, empty])
        self._pad_id = pad_id or 0
        # The last window may reach behind the last stream.
        self._windows = torch.cat([*streams, torch.zeros(size, dtype=torch.int32)]).unfold(0, size, 1)

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return windows and where they come from.

        Returns:
            ``tokens``: int64 ``(batch, context_length + 1)``; ``length``: int64 ``(batch,)``, real tokens of each row;
            ``input``: int64 ``(batch,)``, the number of the stream.
        """
        length = self._lengths[indices]
        tokens = self._windows.index_select(0, self._starts[indices]).long()
        padding = torch.arange(tokens.shape[1]) >= length[:, None]
        return {"tokens": tokens.masked_fill(padding, self._pad_id), "length": length, "input": self._inputs[indices]}
