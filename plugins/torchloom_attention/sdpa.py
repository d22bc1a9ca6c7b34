"""torch's fused attention, which picks the fastest implementation for the device."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from torchloom.contracts.attention import Attention, AttentionMask


class SDPAttention(Attention):
    """`torch.nn.functional.scaled_dot_product_attention`, with a mask matrix only where the structure needs one.

    Source: torch.nn.functional.scaled_dot_product_attention.
    """

    supports: ClassVar[frozenset[str]] = frozenset(
        {"causal", "window", "key_lengths", "documents", "query_offset", "bias"}
    )

    def attend(
        self,
        q_BHTD: Tensor,
        k_BGSD: Tensor,
        v_BGSD: Tensor,
        mask: AttentionMask,
        *,
        dropout: float,
        scale: float | None,
    ) -> Tensor:
        """Attend; see `Attention.__call__`."""
        seq_q, seq_k = q_BHTD.shape[2], k_BGSD.shape[2]
        grouped = q_BHTD.shape[1] != k_BGSD.shape[1]

        only_causal = mask.features() <= {"causal", "query_offset"}
        square = mask.causal and mask.query_offset == 0 and seq_q == seq_k
        sees_all = not mask.causal or mask.query_offset >= seq_k - 1  # a step of generation sees its whole cache
        if only_causal and (square or sees_all):
            return scaled_dot_product_attention(
                q_BHTD,
                k_BGSD,
                v_BGSD,
                dropout_p=dropout,
                is_causal=square and not sees_all,
                scale=scale,
                enable_gqa=grouped,
            )

        added, blind_B1T1 = _matrix(mask, seq_q, seq_k, q_BHTD)
        out_BHTD = scaled_dot_product_attention(
            q_BHTD,
            k_BGSD,
            v_BGSD,
            attn_mask=added,
            dropout_p=dropout,
            scale=scale,
            enable_gqa=grouped,
        )
        return out_BHTD.masked_fill(blind_B1T1, 0.0)


def _matrix(mask: AttentionMask, seq_q: int, seq_k: int, q_BHTD: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is added to the scores, ``(1 or batch, 1 or heads, seq_q, seq_k)``, and which queries see nothing.

    A softmax over minus infinity alone has no value: such a query sees everything, and its result is to be dropped.
    """
    key = (seq_q, seq_k, q_BHTD.dtype, q_BHTD.device)
    if key in mask.memo:
        made: tuple[Tensor, Tensor] = mask.memo[key]
        return made
    seen_B1TS = mask.materialise(seq_q, seq_k, q_BHTD.device)
    if seen_B1TS is None:
        seen_B1TS = q_BHTD.new_ones(1, 1, seq_q, seq_k, dtype=torch.bool)
    blind_B1T1 = ~seen_B1TS.any(-1, keepdim=True)
    bias = q_BHTD.new_zeros(()) if mask.bias is None else mask.bias.to(q_BHTD.dtype)
    made = bias.masked_fill(~(seen_B1TS | blind_B1T1), -torch.inf), blind_B1T1
    # A compiler sees by itself what layers share; a bias that learns is part of each layer's graph.
    if mask.bias is None and not torch.compiler.is_compiling():
        mask.memo[key] = made
    return made
