"""Ways to tell positions: rotations, sines, and biases for distances.

Letters: B batch, T positions, S positions of the keys, C d_model, H heads, D head_dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, library, nn

from torchloom_transformer.configs import TransformerConfig


@dataclass(frozen=True)
class Rotation:
    """Angles of consecutive positions, ready to be applied to the vectors of every layer.

    Attributes:
        cos: Cosines, float32 ``(seq, heads, head_dim)``; the second half of a head repeats the first.
        sin: Sines, likewise, the first half negated.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, start: int, length: int, heads: int, head_dim: int, theta: float, device: torch.device) -> Rotation:
        """Compute the angles of positions ``start .. start + length``.

        They are computed anew in float32, since a stored table would lose precision with a model cast to bfloat16.

        Args:
            start: First position.
            length: Number of positions.
            heads: Vectors of a position, of all of which the angles are alike: long rows are quicker than short ones.
            head_dim: Length of the vectors, even.
            theta: Base of the wavelengths: pair ``i`` turns by ``theta ** (-2 i / head_dim)`` a position.
            device: Where the angles shall live.
        """
        # A compiler would compute them anew for every element that they turn; what it cannot see into, it computes once.
        made = _opaque_angles if torch.compiler.is_compiling() else _angles
        return cls(*made(start, length, heads, head_dim, theta, device))

    def at(self, start: int, length: int) -> Rotation:
        """Return those of ``length`` positions from the one numbered ``start`` among these."""
        return Rotation(self.cos.narrow(0, start, length), self.sin.narrow(0, start, length))

    def apply(self, x_BTHD: Tensor) -> Tensor:
        """Rotate vectors by their positions' angles; element ``i`` is paired with element ``i + head_dim / 2``.

        Args:
            x_BTHD: Queries and keys ``(batch, seq, heads, head_dim)``.

        Returns:
            The same shape and dtype.

        Source: Su et al., 2021, RoFormer, section 3.2.2; the pairing is GPT-NeoX's.
        """
        swapped_BTHD = x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1)
        return torch.addcmul(x_BTHD * self.cos, swapped_BTHD, self.sin).to(x_BTHD.dtype)


def _angles(
    start: int, length: int, heads: int, head_dim: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    position_T1 = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None]
    frequency = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angle = position_T1 * frequency
    cos, sin = angle.cos(), angle.sin()
    return (
        torch.cat((cos, cos), -1)[:, None].repeat(1, heads, 1),
        torch.cat((-sin, sin), -1)[:, None].repeat(1, heads, 1),
    )


_opaque_angles = library.custom_op(
    "torchloom::angles",
    _angles,
    mutates_args=(),
    schema="(SymInt start, SymInt length, int heads, int head_dim, float theta, Device device) -> (Tensor, Tensor)",
)


@_opaque_angles.register_fake
def _(start: int, length: int, heads: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    cos = torch.empty(length, heads, head_dim, device=device)
    return cos, torch.empty_like(cos)


def sinusoidal(start: int, length: int, d_model: int, device: torch.device) -> Tensor:
    """Return the vectors of positions ``start .. start + length``: sines in even places, cosines in odd ones.

    Returns:
        float32 ``(seq, d_model)``.

    Source: Vaswani et al., 2017, section 3.5.
    """
    position_T1 = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2, device=device, dtype=torch.float32) / d_model)
    angle = position_T1 * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :d_model]


class RelativeBias(nn.Module):
    """A learned number for each head and each distance of a query from a key, shared by all layers.

    Small distances have one each; larger ones share, in groups that grow with the logarithm of the distance.

    Source: Raffel et al., 2020, Exploring the Limits of Transfer Learning, section 2.1.
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self.buckets = config.relative_buckets
        self.distance = config.relative_distance
        self.causal = causal
        self.bias = nn.Embedding(config.relative_buckets, config.num_heads)

    def forward(self, start: int, seq_q: int, seq_k: int) -> Tensor:
        """Return the bias ``(1, heads, seq_q, seq_k)`` of queries at ``start`` and onward over keys from 0."""
        device = self.bias.weight.device
        query_T1 = torch.arange(start, start + seq_q, device=device)[:, None]
        bias_TSH: Tensor = self.bias(self.bucket(torch.arange(seq_k, device=device) - query_T1))
        return bias_TSH.permute(2, 0, 1)[None]

    def bucket(self, offset: Tensor) -> Tensor:
        """Return the group of each distance.

        Args:
            offset: Key position minus query position, int64.

        Returns:
            int64 of the same shape, in ``[0, relative_buckets)``.
        """
        buckets = self.buckets
        base = torch.zeros_like(offset)
        if self.causal:
            far = (-offset).clamp(min=0)
        else:
            buckets //= 2
            base = (offset > 0) * buckets
            far = offset.abs()
        exact = buckets // 2
        ratio = (far.float().clamp(min=1) / exact).log() / math.log(self.distance / exact)
        grouped = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        return base + torch.where(far < exact, far, grouped)
