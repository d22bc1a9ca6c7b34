"""Embeddings and a stack of blocks: what decoder, encoder and encoder-decoder share.

Letters: B batch, T positions, C d_model.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import SeriesSpec, Spec
from torchloom.errors import UnsupportedError
from torchloom_transformer.cache import KVCache, LayerCache
from torchloom_transformer.configs import TransformerConfig
from torchloom_transformer.layers import Block, Experts, Found, norm, real
from torchloom_transformer.positions import RelativeBias, Rotation, sinusoidal
from torchloom_transformer.sizes import head_dim


class Embeddings(nn.Module):
    """Vectors of tokens, or of the measurements of a series, with their positions and segments."""

    def __init__(self, config: TransformerConfig, spec: Spec, context_length: int, segments: int = 0) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
        self.d_model = config.d_model
        self.sinusoidal = config.positions == "sinusoidal"
        series = isinstance(spec, SeriesSpec)
        self.token = None if series else nn.Embedding(spec.vocab_size, config.d_model)  # type: ignore[attr-defined]
        self.series = nn.Linear(spec.channels, config.d_model) if series else None  # type: ignore[attr-defined]
        self.position = nn.Embedding(context_length, config.d_model) if config.positions == "learned" else None
        self.segment = nn.Embedding(segments, config.d_model) if segments else None
        self.norm = norm(config) if config.embedding_norm else None
        self.dropout = config.dropout

    def forward(self, inputs: Tensor, start: int = 0, segments: Tensor | None = None) -> Tensor:
        """Map token ids ``(batch, seq)``, or vectors ``(batch, seq, channels)``, to ``(batch, seq, d_model)``."""
        length = inputs.shape[1]
        if self.token is not None:
            x_BTC: Tensor = self.token(inputs)
            if self.scale != 1.0:
                x_BTC = x_BTC * self.scale
        else:
            assert self.series is not None
            x_BTC = self.series(inputs).to(self.series.weight.dtype)  # as an embedding's, in mixed precision too
        if self.position is not None:
            x_BTC = x_BTC + self.position.weight[start : start + length]
        if self.sinusoidal:
            x_BTC = x_BTC + sinusoidal(start, length, self.d_model, inputs.device).to(x_BTC.dtype)
        if self.segment is not None:
            alike = segments is None or self.segment.num_embeddings == 1
            x_BTC = x_BTC + (self.segment.weight[0] if alike else self.segment(segments))
        if self.norm is not None:
            x_BTC = self.norm(x_BTC)
        return F.dropout(x_BTC, self.dropout) if self.training and self.dropout else x_BTC


class Stack(nn.Module):
    """Blocks one behind the other, applied once or again and again, and a last normalisation.

    With ``recurrence="fixed"`` the whole stack is applied ``recurrent_steps`` times, a vector of sines telling the step.
    With ``"learned"`` each position has a probability of stopping behind every step; its output is the mean of its
    states, weighted with the probabilities of having stopped there, and what is left goes to the last step.

    Attributes:
        balances: Of the last forward pass with experts: how evenly they were used, in each block and step.
        ponder: Of the last forward pass with learned recurrence: mean number of steps, over all positions but padding.

    Source: Dehghani et al., 2019, Universal Transformers, section 2; Graves, 2016, Adaptive Computation Time, with the
    halting distribution kept soft, as Banino et al., 2021, PonderNet, equation 1.
    """

    ponder: Tensor | None = None

    def __init__(
        self, config: TransformerConfig, attention: Attention, num_layers: int, *, causal: bool, cross: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.causal = causal
        self.balances: list[Tensor] = []
        self.steps = 1 if config.recurrence == "none" else config.recurrent_steps
        self.layers = nn.ModuleList(Block(config, attention, cross=cross) for _ in range(num_layers))
        self.norm = norm(config) if config.norm_placement == "before" else None
        self.relative = RelativeBias(config, causal=causal) if config.positions == "relative" else None
        self.halt = nn.Linear(config.d_model, 1) if config.recurrence == "learned" else None

    def forward(
        self,
        x_BTC: Tensor,
        mask: AttentionMask,
        state: KVCache | None = None,
        memory_BSC: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        found: Found | None = None,
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape.

        Args:
            x_BTC: Embeddings.
            mask: Structure beyond causality.
            state: From `new_state`; goes on behind these positions.
            memory_BSC: Vectors of another sequence to look at.
            memory_mask: What of them is real.
            found: Pieces of a corpus to look at in place of another sequence.

        Raises:
            UnsupportedError: More positions than the state has room for.
        """
        start = 0 if state is None else state.length
        length = x_BTC.shape[1]
        end = start + length
        if state is not None and end > state.max_length:
            raise UnsupportedError(f"the KV cache has room for {state.max_length} tokens, and {end} were fed to it")
        bias = None if self.relative is None else self.relative(start, length, end)
        mask = dataclasses.replace(mask, causal=self.causal, query_offset=start, bias=bias)
        rotation = self._rotation(start, length, state, x_BTC.device)

        self.balances = []
        if self.halt is not None:
            running = x_BTC.new_ones(*x_BTC.shape[:2], 1)
            mixed = torch.zeros_like(x_BTC)
            steps = torch.zeros_like(running)
        for step in range(self.steps):
            if self.steps > 1:
                x_BTC = x_BTC + sinusoidal(step, 1, x_BTC.shape[-1], x_BTC.device).to(x_BTC.dtype)
            for index, block in enumerate(self.layers):
                cache = None if state is None else state.layers[step * len(self.layers) + index]
                x_BTC = block(x_BTC, mask, rotation, cache, memory_BSC, memory_mask, found)
                # Noted now: the next step, or a recomputation in the backward pass, writes over it.
                if isinstance(block.feed_forward, Experts) and block.feed_forward.balance is not None:
                    self.balances.append(block.feed_forward.balance)
            if self.halt is not None:
                last = step == self.steps - 1
                stops = running if last else running * torch.sigmoid(self.halt(x_BTC))
                mixed = mixed + stops * x_BTC
                steps = steps + running
                running = running - stops
        if self.halt is not None:
            x_BTC = mixed
            real_BT = real(mask, x_BTC)
            self.ponder = steps.mean() if real_BT is None else steps[real_BT].mean()
        if state is not None:
            state.length = end
        return x_BTC if self.norm is None else self.norm(x_BTC)

    def _rotation(self, start: int, length: int, state: KVCache | None, device: torch.device) -> Rotation | None:
        """Return the angles of some positions; a state keeps those of all, lest they be computed at every step."""
        config = self.config
        if config.positions != "rope":
            return None
        heads = config.num_heads + (config.num_kv_heads or config.num_heads)  # of queries and of keys
        if state is None:
            return Rotation.of(start, length, heads, head_dim(config), config.rope_theta, device)
        if state.rotation is None:
            state.rotation = Rotation.of(0, state.max_length, heads, head_dim(config), config.rope_theta, device)
        return state.rotation.at(start, length)

    def new_state(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty KV cache."""
        config = self.config
        like = next(self.layers.parameters())
        layers = [
            LayerCache(batch_size, config.num_kv_heads or config.num_heads, max_length, head_dim(config), like)
            for _ in range(len(self.layers) * self.steps)
        ]
        return KVCache(layers, max_length)

    def penalty(self) -> Tensor | None:
        """Return what the last forward pass adds to the loss: uneven use of experts, and steps taken."""
        parts = []
        if self.config.experts and self.config.expert_balance:
            parts.append(self.config.expert_balance * torch.stack(self.balances).mean())
        if self.ponder is not None and self.config.ponder_cost:
            parts.append(self.config.ponder_cost * self.ponder)
        return sum(parts[1:], parts[0]) if parts else None
