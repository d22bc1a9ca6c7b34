"""The decoder: a causal Transformer.

Letters: B batch, T positions, S positions of the keys, C d_model, H query heads, G key heads, D head_dim, F ffn_dim.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import Spec, TokenSpec
from torchloom.errors import ConfigError, Problem, UnsupportedError
from torchloom_transformer.cache import KVCache, LayerCache
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.rope import Rotation


class Decoder(Architecture):
    """GPT-style Transformer: blocks of self-attention and feed-forward layers, normalised before each and at the end.

    Without biases it holds ``vocab_size * d_model`` parameters for tokens, ``context_length * d_model`` for learned
    positions, ``d_model`` for the last normalisation, and in each block
    ``2 * d_model * (num_heads + num_kv_heads) * head_dim`` for attention, ``2 * d_model * ffn_dim`` (3 for swiglu) for
    the feed-forward layers and ``2 * d_model`` for normalisation.

    Source: Radford et al., 2019, Language Models are Unsupervised Multitask Learners (layout, initialisation);
    Touvron et al., 2023, LLaMA, section 2.2 (RMSNorm, SwiGLU, RoPE); Ainslie et al., 2023, GQA.
    """

    protocols: ClassVar[frozenset[str]] = frozenset({"features", "sequence"})
    accepts: ClassVar[tuple[type[Spec], ...]] = (TokenSpec,)
    takes_attention: ClassVar[bool] = True
    causal: bool = True

    def __init__(self, config: DecoderConfig, spec: TokenSpec, attention: Attention) -> None:
        """Build and initialise the network.

        Args:
            config: Its shape.
            spec: Vocabulary and longest sequence.
            attention: The kernel of every block.

        Raises:
            ConfigError: Head counts or sizes do not fit each other.
        """
        super().__init__(config, spec, attention)
        problems = _contradictions(config)
        if problems:
            raise ConfigError(problems)
        self.width = config.d_model
        self.head_dim = config.d_model // config.num_heads
        self.context_length = spec.context_length

        self.token_embedding = nn.Embedding(spec.vocab_size, config.d_model)
        self.position_embedding = (
            nn.Embedding(spec.context_length, config.d_model) if config.positions == "learned" else None
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, attention) for _ in range(config.num_layers))
        self.norm = _norm(config)
        self._initialise(config)

    def _initialise(self, config: DecoderConfig) -> None:
        # Every block adds twice to the residual stream; the smaller weights keep its variance from growing with depth.
        adding_std = config.init_std / math.sqrt(2 * config.num_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                adds = name.endswith(("attention.out", "feed_forward.down"))
                nn.init.normal_(module.weight, std=adding_std if adds else config.init_std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def sequence(self, tokens: Tensor, *, mask: AttentionMask | None = None, state: KVCache | None = None) -> Tensor:
        """Map each position to one vector; see `Architecture.sequence`.

        Args:
            tokens: int64 ``(batch, seq)``.
            mask: Structure beyond causality. Key lengths and documents count all keys, those in the state included.
            state: From `new_state`, to continue from.

        Returns:
            ``(batch, seq, d_model)``.

        Raises:
            UnsupportedError: More positions than ``context_length``, or than the state has room for.
        """
        start = 0 if state is None else state.length
        end = start + tokens.shape[1]
        self._check_length(end if state is None else max(end, state.max_length))
        if state is not None and end > state.max_length:
            raise UnsupportedError(f"the KV cache has room for {state.max_length} tokens, and {end} were fed to it")

        mask = dataclasses.replace(mask or AttentionMask(), causal=True, query_offset=start)
        x_BTC = self.token_embedding(tokens)
        if self.position_embedding is not None:
            x_BTC = x_BTC + self.position_embedding.weight[start:end]
        rotation = None
        if self.config.positions == "rope":
            rotation = Rotation.of(start, tokens.shape[1], self.head_dim, self.config.rope_theta, tokens.device)

        x_BTC = self.dropout(x_BTC)
        for index, block in enumerate(self.layers):
            x_BTC = block(x_BTC, mask, rotation, None if state is None else state.layers[index])
        if state is not None:
            state.length = end
        output: Tensor = self.norm(x_BTC)
        return output

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Return the vector of each row's last real position, the only one that has seen the whole row.

        Args:
            inputs: int64 ``(batch, seq)``, padded at the end.
            lengths: Real tokens of each row, ``(batch,)``, each at least 1; all of them unless given.
            encoded: Not used: no stage is frozen.

        Returns:
            ``(batch, d_model)``.
        """
        vectors_BTC = self.sequence(inputs)  # padding stands behind, where no real position looks
        if lengths is None:
            return vectors_BTC[:, -1]
        return vectors_BTC[torch.arange(len(inputs), device=inputs.device), lengths.to(inputs.device) - 1]

    def new_state(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty KV cache.

        Raises:
            UnsupportedError: ``max_length`` is more than the context length.
        """
        self._check_length(max_length)
        kv_heads = self.config.num_kv_heads or self.config.num_heads
        like = self.token_embedding.weight
        layers = [LayerCache(batch_size, kv_heads, max_length, self.head_dim, like) for _ in self.layers]
        return KVCache(layers, max_length)

    def input_embedding(self) -> nn.Embedding | None:
        """Return the token embedding if it is tied."""
        return self.token_embedding if self.config.tie_embeddings else None

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks, first to last."""
        return tuple(self.layers)

    def _check_length(self, length: int) -> None:
        if length > self.context_length:
            raise UnsupportedError(
                f"the decoder was built for sequences of up to {self.context_length} tokens and was given {length}: "
                "feed it the last ones only, or train with a larger dataset.context_length"
            )


class Block(nn.Module):
    """One Transformer block, normalised before each layer.

    Source: Xiong et al., 2020, On Layer Normalization in the Transformer Architecture, section 3.2 (pre-norm).
    """

    def __init__(self, config: DecoderConfig, attention: Attention) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = SelfAttention(config, attention)
        self.feed_forward_norm = _norm(config)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTC: Tensor, mask: AttentionMask, rotation: Rotation | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        x_BTC = x_BTC + self.dropout(self.attention(self.attention_norm(x_BTC), mask, rotation, cache))
        output: Tensor = x_BTC + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTC)))
        return output


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, a kernel, and the projection back.

    Several query heads may share one key head (grouped-query attention).
    """

    def __init__(self, config: DecoderConfig, attention: Attention) -> None:
        super().__init__()
        self.kernel = attention
        self.num_heads = config.num_heads
        self.kv_heads = config.num_kv_heads or config.num_heads
        self.head_dim = config.d_model // config.num_heads
        self.attention_dropout = config.dropout
        self.qkv = nn.Linear(config.d_model, (self.num_heads + 2 * self.kv_heads) * self.head_dim, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(
        self, x_BTC: Tensor, mask: AttentionMask, rotation: Rotation | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        qkv_BTHD = self.qkv(x_BTC).view(*x_BTC.shape[:2], -1, self.head_dim)
        qk_BTHD, v_BTGD = qkv_BTHD.split((self.num_heads + self.kv_heads, self.kv_heads), dim=2)
        if rotation is not None:
            qk_BTHD = rotation.apply(qk_BTHD)  # queries and keys at once
        q_BTHD, k_BTGD = qk_BTHD.split((self.num_heads, self.kv_heads), dim=2)
        q_BHTD, k_BGSD, v_BGSD = q_BTHD.transpose(1, 2), k_BTGD.transpose(1, 2), v_BTGD.transpose(1, 2)
        if cache is not None:
            k_BGSD, v_BGSD = cache.extend(k_BGSD, v_BGSD, mask.query_offset)
        dropout = self.attention_dropout if self.training else 0.0
        out_BHTD = self.kernel(q_BHTD, k_BGSD, v_BGSD, mask, dropout=dropout)
        output: Tensor = self.out(out_BHTD.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between; for swiglu the first gives values and gates alike.

    Source: Shazeer, 2020, GLU Variants Improve Transformer, equation 6 (swiglu).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        ffn_dim = hidden_width(config)
        self.activation = _ACTIVATIONS[config.activation]
        up_dim = 2 * ffn_dim if config.activation == "swiglu" else ffn_dim
        self.up = nn.Linear(config.d_model, up_dim, bias=config.bias)
        self.down = nn.Linear(ffn_dim, config.d_model, bias=config.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        output: Tensor = self.down(self.activation(self.up(x_BTC)))
        return output


def hidden_width(config: DecoderConfig) -> int:
    """Return the width of the feed-forward layers.

    Unless given, it is 4 ``d_model``, or about 8/3 for swiglu, whose third matrix then costs no more parameters.
    """
    if config.ffn_dim is not None:
        return config.ffn_dim
    if config.activation != "swiglu":
        return 4 * config.d_model
    return math.ceil(8 * config.d_model / (3 * config.multiple_of)) * config.multiple_of


def _swiglu(gate_and_value: Tensor) -> Tensor:
    gate, value = gate_and_value.chunk(2, dim=-1)
    return F.silu(gate) * value


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": _swiglu,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
}


def _norm(config: DecoderConfig) -> nn.Module:
    if config.norm == "layernorm":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
    return nn.RMSNorm(config.d_model, eps=config.norm_eps)


def _contradictions(config: DecoderConfig) -> list[Problem]:
    problems = []
    if config.d_model % config.num_heads:
        problems.append(
            Problem(
                "architecture.d_model",
                f"{config.d_model} cannot be divided into num_heads={config.num_heads} heads of equal size",
                "choose a d_model that is a multiple of num_heads",
            )
        )
    elif config.positions == "rope" and config.d_model // config.num_heads % 2:
        problems.append(
            Problem(
                "architecture.positions",
                f"rope turns pairs of elements, and a head has {config.d_model // config.num_heads} of them",
                "choose d_model and num_heads so that d_model / num_heads is even, or positions=learned",
            )
        )
    if config.num_kv_heads is not None and config.num_heads % config.num_kv_heads:
        problems.append(
            Problem(
                "architecture.num_kv_heads",
                f"num_heads={config.num_heads} query heads cannot share {config.num_kv_heads} key heads evenly",
                "choose a divisor of num_heads",
            )
        )
    return problems
