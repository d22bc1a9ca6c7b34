"""Sequences of differing lengths, held in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROUND = 8
"""Batches are filled up to a multiple of this, so that compiled code meets few shapes and matrices fit the hardware."""


class Ragged:
    """Sequences end to end, from which rows of equal length are made."""

    def __init__(self, pieces: Sequence[NDArray[Any]], dtype: torch.dtype = torch.int32) -> None:
        sizes = np.array([len(piece) for piece in pieces], np.int64)
        self.lengths = torch.from_numpy(sizes)
        self._starts = torch.from_numpy(sizes.cumsum() - sizes)
        # One more value, for rows of no length to point at.
        whole = np.concatenate([*pieces, np.zeros((1, *(pieces[0].shape[1:] if len(pieces) else ())), np.int64)])
        self._values = torch.from_numpy(whole.astype(np.int64)).to(dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: Tensor, fill: int, *, most: int | None = None) -> Tensor:
        """Return sequences as rows as long as the longest of them needs.

        Args:
            indices: int64 ``(batch,)``.
            fill: What stands behind the end of a sequence.
            most: With it, rows are filled up to a multiple of `ROUND`, but no longer than this.

        Returns:
            ``(batch, seq, ...)``.
        """
        lengths = self.lengths[indices]
        width = max(1, int(lengths.max())) if len(indices) else 1
        if most is not None:
            width = min(-(-width // ROUND) * ROUND, most)
        place = torch.arange(width)
        inside = place < lengths[:, None]
        rows = self._values[torch.where(inside, self._starts[indices][:, None] + place, 0)]
        return rows.masked_fill(~inside.view(*inside.shape, *(1,) * (rows.ndim - 2)), fill)
