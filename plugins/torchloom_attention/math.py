"""The reference kernel: attention as the formula reads, which every other kernel is compared with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from torchloom.contracts.attention import Attention, AttentionMask


class MathAttention(Attention):
    """Softmax attention that builds the whole matrix of scores: ``(batch, heads, seq_q, seq_k)`` of memory.

    Scores and softmax are computed in float32 at least.

    Source: Vaswani et al., 2017, Attention Is All You Need, equation 1.
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
        num_groups = k_BGSD.shape[1]
        # R query heads share one key head: BHTD -> BGRTD, so that keys are broadcast rather than copied.
        batch, heads, seq_q, head_dim = q_BHTD.shape
        q_BGRTD = q_BHTD.reshape(batch, num_groups, heads // num_groups, seq_q, head_dim)
        k_BG1SD = k_BGSD.unsqueeze(2)
        v_BG1SD = v_BGSD.unsqueeze(2)

        dtype = torch.promote_types(q_BHTD.dtype, torch.float32)
        scale = head_dim**-0.5 if scale is None else scale
        scores_BGRTS = q_BGRTD.to(dtype) @ k_BG1SD.to(dtype).transpose(-2, -1) * scale
        if mask.bias is not None:
            scores_BGRTS = scores_BGRTS + mask.bias.to(dtype).unflatten(1, (num_groups, -1))

        seen = mask.materialise(seq_q, k_BGSD.shape[2], q_BHTD.device)
        if seen is None:
            weights_BGRTS = scores_BGRTS.softmax(-1)
        else:
            seen_B11TS = seen.unsqueeze(2)
            # The lowest finite score, not -inf: a row that sees nothing then has no NaN, and the product clears it.
            scores_BGRTS = scores_BGRTS.masked_fill(~seen_B11TS, torch.finfo(dtype).min)
            weights_BGRTS = scores_BGRTS.softmax(-1) * seen_B11TS
        weights_BGRTS = F.dropout(weights_BGRTS, dropout)
        return (weights_BGRTS @ v_BG1SD.to(dtype)).flatten(1, 2).to(q_BHTD.dtype)
