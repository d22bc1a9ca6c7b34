"""Attention kernels and the structured mask that they must honour or refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchloom.errors import UnsupportedError


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query may see, as structure rather than as a matrix.

    Attributes:
        causal: A query at position ``i`` sees keys up to ``i`` only.
        window: With it, keys at distance ``window`` or more are not seen: ``window=1`` is the position alone. Counted
            on both sides unless ``causal``.
        key_lengths: Real keys of each row, int64 ``(batch,)``; later ones are padding.
        documents: Document number of each key, int64 ``(batch, seq_k)``; only keys of the query's own document are seen.
        query_offset: Position of the first query among the keys: with a cache of ``n`` keys, new queries start at ``n``.
        bias: Added to the scaled scores before the softmax, ``(1 or batch, heads, seq_q, seq_k)``: relative positions.
        memo: What a kernel has computed of this mask, so that the layers that share it do not each keep a matrix.
    """

    causal: bool = False
    window: int | None = None
    key_lengths: Tensor | None = None
    documents: Tensor | None = None
    query_offset: int = 0
    bias: Tensor | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def features(self) -> frozenset[str]:
        """Return the names of the structures in use, which a kernel must support."""
        used = (
            ("causal", self.causal),
            ("window", self.window is not None),
            ("key_lengths", self.key_lengths is not None),
            ("documents", self.documents is not None),
            ("query_offset", self.query_offset != 0),
            ("bias", self.bias is not None),
        )
        return frozenset([name for name, present in used if present])

    def materialise(self, seq_q: int, seq_k: int, device: torch.device | None = None) -> Tensor | None:
        """Return the mask as a boolean matrix, True where a query sees a key; the meaning all kernels are held to.

        The bias is no part of it.

        Returns:
            bool ``(1 or batch, 1, seq_q, seq_k)``, or None if every query sees every key.
        """
        if not self.features() - {"query_offset", "bias"}:
            return None
        query = torch.arange(seq_q, device=device).view(1, 1, seq_q, 1) + self.query_offset
        key = torch.arange(seq_k, device=device).view(1, 1, 1, seq_k)
        seen = torch.ones(1, 1, seq_q, seq_k, dtype=torch.bool, device=device)
        if self.causal:
            seen = seen & (key <= query)
        if self.window is not None:
            seen = seen & ((query - key).abs() < self.window)
        if self.key_lengths is not None:
            seen = seen & (key < self.key_lengths.to(key.device).view(-1, 1, 1, 1))
        if self.documents is not None:
            documents = self.documents.to(key.device)
            own = documents[:, self.query_offset : self.query_offset + seq_q]
            seen = seen & (own[:, None, :, None] == documents[:, None, None, :])
        return seen


class Attention(ABC):
    """Base of all attention kernels. A kernel has no parameters, so swapping it never changes a checkpoint.

    Attributes:
        supports: Mask structures it honours (`AttentionMask.features`); any other is refused, never ignored.
        devices: Device types it runs on.
        requires: What an architecture must offer for it (``"shared_qk"``); empty for most.
    """

    supports: ClassVar[frozenset[str]] = frozenset()
    devices: ClassVar[frozenset[str]] = frozenset({"cpu", "cuda"})
    requires: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, device: torch.device) -> None:  # noqa: B027 - optional
        """Refuse hardware it cannot run on; called before training.

        Raises:
            UnsupportedError: It cannot run there; says which kernel to use.
        """

    def __call__(
        self,
        q_BHTD: Tensor,  # noqa: N803 - shape suffix
        k_BGSD: Tensor,  # noqa: N803
        v_BGSD: Tensor,  # noqa: N803
        mask: AttentionMask,
        *,
        dropout: float = 0.0,
        scale: float | None = None,
    ) -> Tensor:
        """Attend.

        Letters: B batch, H query heads, G key heads (H is a multiple of G), T queries, S keys, D head_dim.

        Args:
            q_BHTD: Queries ``(batch, heads, seq_q, head_dim)``.
            k_BGSD: Keys ``(batch, kv_heads, seq_k, head_dim)``.
            v_BGSD: Values ``(batch, kv_heads, seq_k, head_dim)``.
            mask: What each query may see. A query that sees nothing gives zeros.
            dropout: Probability of dropping an attention weight, in ``[0, 1)``; 0 in evaluation.
            scale: Factor on the scores; ``head_dim ** -0.5`` unless given.

        Returns:
            ``(batch, heads, seq_q, head_dim)``.

        Raises:
            UnsupportedError: The mask has a structure this kernel does not honour.
        """
        refused = mask.features() - self.supports
        if refused:
            raise UnsupportedError(
                f"{type(self).__name__} does not honour {', '.join(sorted(refused))} in a mask; "
                "attention=math and attention=sdpa honour every structure"
            )
        return self.attend(q_BHTD, k_BGSD, v_BGSD, mask, dropout=dropout, scale=scale)

    @abstractmethod
    def attend(
        self,
        q_BHTD: Tensor,  # noqa: N803
        k_BGSD: Tensor,  # noqa: N803
        v_BGSD: Tensor,  # noqa: N803
        mask: AttentionMask,
        *,
        dropout: float,
        scale: float | None,
    ) -> Tensor:
        """Compute `__call__` for a mask that is known to be supported."""
