"""The keys and values of earlier tokens, kept for generation.

Letters: B batch, G key heads, T new positions, S positions so far, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchloom_transformer.positions import Rotation


class LayerCache:
    """Keys and values of one layer, in memory that is taken once.

    Attributes:
        memory: Keys and values of the other sequence, ``(batch, kv_heads, source_seq, head_dim)`` each, where the layer
            looks at one.
    """

    def __init__(self, batch: int, kv_heads: int, max_length: int, head_dim: int, like: Tensor) -> None:
        self.k_BGSD = like.new_empty(batch, kv_heads, max_length, head_dim)
        self.v_BGSD = like.new_empty(batch, kv_heads, max_length, head_dim)
        self.memory: tuple[Tensor, Tensor] | None = None

    def extend(self, k_BGTD: Tensor, v_BGTD: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Write keys and values at ``start`` and return those of all positions so far, in the precision given."""
        length = k_BGTD.shape[2]
        self.k_BGSD.narrow(2, start, length).copy_(k_BGTD)
        self.v_BGSD.narrow(2, start, length).copy_(v_BGTD)
        end = start + length
        return self.k_BGSD.narrow(2, 0, end).to(k_BGTD.dtype), self.v_BGSD.narrow(2, 0, end).to(v_BGTD.dtype)

    def reorder(self, rows: Tensor) -> None:
        """Put rows in other places."""
        self.k_BGSD, self.v_BGSD = self.k_BGSD[rows], self.v_BGSD[rows]
        if self.memory is not None:
            self.memory = (self.memory[0][rows], self.memory[1][rows])


class KVCache:
    """State of a Transformer: one `LayerCache` a layer and the number of tokens they hold.

    Attributes:
        layers: The layers' caches.
        length: Tokens fed so far.
        max_length: Tokens there is room for.
        tokens: All of them, int64 ``(batch, length)``, where a network looks them up.
        rotation: Angles of all positions that there is room for, where a network rotates.
    """

    def __init__(self, layers: Sequence[LayerCache], max_length: int) -> None:
        self.layers = layers
        self.length = 0
        self.max_length = max_length
        self.tokens: Tensor | None = None
        self.rotation: Rotation | None = None

    def reorder(self, rows: Tensor) -> None:
        """Go on from other rows: row ``i`` becomes what row ``rows[i]`` was.

        Args:
            rows: int64 ``(new batch,)``.
        """
        for layer in self.layers:
            layer.reorder(rows)
        if self.tokens is not None:
            self.tokens = self.tokens[rows]
