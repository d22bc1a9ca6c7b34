"""Rotary position embedding.

Letters: B batch, T positions, H heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """Angles of consecutive positions, ready to be applied to the vectors of every layer.

    Attributes:
        cos: Cosines, float32 ``(seq, 1, head_dim)``; the second half repeats the first.
        sin: Sines, likewise, the first half negated.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, start: int, length: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
        """Compute the angles of positions ``start .. start + length``.

        They are computed anew in float32, since a stored table would lose precision with a model cast to bfloat16.

        Args:
            start: First position.
            length: Number of positions.
            head_dim: Length of the vectors, even.
            theta: Base of the wavelengths: pair ``i`` turns by ``theta ** (-2 i / head_dim)`` a position.
            device: Where the angles shall live.
        """
        position_T1 = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None]
        frequency = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
        angle = position_T1 * frequency
        cos, sin = angle.cos(), angle.sin()
        return cls(torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None])

    def apply(self, x_BTHD: Tensor) -> Tensor:
        """Rotate vectors by their positions' angles; element ``i`` is paired with element ``i + head_dim / 2``.

        Args:
            x_BTHD: Queries or keys ``(batch, seq, heads, head_dim)``.

        Returns:
            The same shape and dtype.

        Source: Su et al., 2021, RoFormer, section 3.2.2; the pairing is GPT-NeoX's.
        """
        swapped_BTHD = x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1)
        return (x_BTHD * self.cos + swapped_BTHD * self.sin).to(x_BTHD.dtype)
