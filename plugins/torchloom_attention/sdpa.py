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

        seen_B1TS = mask.materialise(seq_q, seq_k, q_BHTD.device)
        if seen_B1TS is None:
            seen_B1TS = q_BHTD.new_ones(1, 1, seq_q, seq_k, dtype=torch.bool)
        # A query that sees nothing is a softmax over -inf alone: let it see everything, then drop the result.
        blind_B1T1 = ~seen_B1TS.any(-1, keepdim=True)
        added = seen_B1TS | blind_B1T1
        if mask.bias is not None:
            added = mask.bias.to(q_BHTD.dtype).masked_fill(~added, -torch.inf)
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
