"""What all Transformers here are made of.

Letters: B batch, T positions, S positions of the keys, C d_model, H query heads, G key heads, D head_dim, F ffn_dim,
E experts, K experts a token, N tokens of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.errors import Problem
from torchloom.layers import Linear
from torchloom_transformer.cache import LayerCache
from torchloom_transformer.configs import TransformerConfig
from torchloom_transformer.positions import Rotation
from torchloom_transformer.sizes import gated, head_dim, hidden_width


@dataclass(frozen=True, slots=True)
class Found:
    """What has been looked up: another sequence for blocks to look at.

    Attributes:
        vectors: ``(rows, seq, d_model)``.
        mask: Which of them are real.
        window: Positions that share a row: each run of so many has one of its own. Without it, an example has one.
        start: Place of the first position in its window.
    """

    vectors: Tensor
    mask: AttentionMask
    window: int | None = None
    start: int = 0

    def seen_by(self, x_BTC: Tensor, look: Callable[[Tensor, Tensor, AttentionMask], Tensor]) -> Tensor:
        """Return what positions ``(batch, seq, d_model)`` see, each in its own row, by a layer of attention."""
        if self.window is None:
            return look(x_BTC, self.vectors, self.mask)
        batch, length, _ = x_BTC.shape
        behind = -(self.start + length) % self.window
        folded = F.pad(x_BTC, (0, 0, self.start, behind)).unflatten(1, (-1, self.window)).flatten(0, 1)
        seen = look(folded, self.vectors, self.mask)
        own: Tensor = seen.unflatten(0, (batch, -1)).flatten(1, 2)[:, self.start : self.start + length]
        return own


class Block(nn.Module):
    """One Transformer block: self-attention, perhaps attention to another sequence, and feed-forward layers.

    Source: Vaswani et al., 2017, section 3.1; Xiong et al., 2020, section 3.2, for the normalisation's place.
    """

    def __init__(self, config: TransformerConfig, attention: Attention, *, cross: bool = False) -> None:
        super().__init__()
        self.before = config.norm_placement == "before"
        self.attention_norm = norm(config)
        self.attention = SelfAttention(config, attention)
        self.cross_norm = norm(config) if cross else None
        self.cross_attention = CrossAttention(config, attention) if cross else None
        self.feed_forward_norm = norm(config)
        self.feed_forward = Experts(config) if config.experts else FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self,
        x_BTC: Tensor,
        mask: AttentionMask,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        memory_BSC: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        found: Found | None = None,
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        x_BTC = self._add(x_BTC, self.attention_norm, lambda x: self.attention(x, mask, rotation, cache))
        if self.cross_attention is not None:
            assert self.cross_norm is not None
            cross = self.cross_attention
            if found is None:
                x_BTC = self._add(x_BTC, self.cross_norm, lambda x: cross(x, memory_BSC, memory_mask, cache))
            else:
                x_BTC = self._add(x_BTC, self.cross_norm, lambda x: found.seen_by(x, cross))
        return self._add(x_BTC, self.feed_forward_norm, lambda x: self.feed_forward(x, mask))

    def _add(self, x_BTC: Tensor, normalise: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        added = layer(normalise(x_BTC) if self.before else x_BTC)
        if self.training and self.dropout:
            added = F.dropout(added, self.dropout)
        output: Tensor = x_BTC + added if self.before else normalise(x_BTC + added)
        return output


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, a kernel, and the projection back.

    Several query heads may share one key head (grouped-query attention).
    """

    def __init__(self, config: TransformerConfig, attention: Attention) -> None:
        super().__init__()
        self.kernel = attention
        self.num_heads = config.num_heads
        self.kv_heads = config.num_kv_heads or config.num_heads
        self.head_dim = head_dim(config)
        self.scale = None if config.scale_attention else 1.0
        self.attention_dropout = config.dropout
        self.qkv = Linear(config.d_model, (self.num_heads + 2 * self.kv_heads) * self.head_dim, bias=config.bias)
        self.out = Linear(self.num_heads * self.head_dim, config.d_model, bias=config.bias)

    def forward(
        self, x_BTC: Tensor, mask: AttentionMask, rotation: Rotation | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        qkv_BTHD = self.qkv(x_BTC).view(*x_BTC.shape[:2], -1, self.head_dim)
        if rotation is None:
            q_BTHD, k_BTGD, v_BTGD = qkv_BTHD.split_with_sizes((self.num_heads, self.kv_heads, self.kv_heads), dim=2)
        else:
            qk_BTHD, v_BTGD = qkv_BTHD.split_with_sizes((self.num_heads + self.kv_heads, self.kv_heads), dim=2)
            # Queries and keys at once.
            q_BTHD, k_BTGD = rotation.apply(qk_BTHD).split_with_sizes((self.num_heads, self.kv_heads), dim=2)
        q_BHTD, k_BGSD, v_BGSD = q_BTHD.transpose(1, 2), k_BTGD.transpose(1, 2), v_BTGD.transpose(1, 2)
        if cache is not None:
            k_BGSD, v_BGSD = cache.extend(k_BGSD, v_BGSD, mask.query_offset)
        dropout = self.attention_dropout if self.training else 0.0
        out_BHTD = self.kernel(q_BHTD, k_BGSD, v_BGSD, mask, dropout=dropout, scale=self.scale)
        output: Tensor = self.out(out_BHTD.transpose(1, 2).flatten(2))
        return output


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another."""

    def __init__(self, config: TransformerConfig, attention: Attention) -> None:
        super().__init__()
        self.kernel = attention
        self.num_heads = config.num_heads
        self.kv_heads = config.num_kv_heads or config.num_heads
        self.head_dim = head_dim(config)
        self.scale = None if config.scale_attention else 1.0
        self.attention_dropout = config.dropout
        self.query = Linear(config.d_model, self.num_heads * self.head_dim, bias=config.bias)
        self.key_value = Linear(config.d_model, 2 * self.kv_heads * self.head_dim, bias=config.bias)
        self.out = Linear(self.num_heads * self.head_dim, config.d_model, bias=config.bias)

    def forward(
        self,
        x_BTC: Tensor,
        memory_BSC: Tensor | None,
        mask: AttentionMask | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape, looking at ``memory`` ``(batch, source_seq, d_model)``.

        A cache keeps the keys and values of the memory from the first call on.
        """
        q_BHTD = self.query(x_BTC).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        known = None if cache is None else cache.memory
        if known is None:
            assert memory_BSC is not None
            kv_BGSD = self.key_value(memory_BSC).unflatten(-1, (2 * self.kv_heads, self.head_dim)).transpose(1, 2)
            known = (kv_BGSD[:, : self.kv_heads], kv_BGSD[:, self.kv_heads :])
            if cache is not None:
                cache.memory = known
        dropout = self.attention_dropout if self.training else 0.0
        k_BGSD, v_BGSD = known
        out_BHTD = self.kernel(q_BHTD, k_BGSD, v_BGSD, mask or AttentionMask(), dropout=dropout, scale=self.scale)
        output: Tensor = self.out(out_BHTD.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between; with a gate the first gives gates and values.

    Source: Shazeer, 2020, GLU Variants Improve Transformer, equations 5 and 6 (geglu, swiglu).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        ffn_dim = hidden_width(config)
        self.activation = ACTIVATIONS[config.activation]
        up_dim = 2 * ffn_dim if gated(config) else ffn_dim
        self.up = Linear(config.d_model, up_dim, bias=config.bias)
        self.down = Linear(ffn_dim, config.d_model, bias=config.bias)

    def forward(self, x_BTC: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape."""
        output: Tensor = self.down(self.activation(self.up(x_BTC)))
        return output


class Experts(nn.Module):
    """Several feed-forward layers, each token being sent to the few that a router chooses for it. No token is dropped.

    What the chosen ones give is weighted with their probabilities, made to sum to 1; of a single expert the probability
    is kept as it is, or the router would have no gradient. Padding is sent to none, and its output is zero.

    Attributes:
        balance: Of the last forward pass: experts times the sum over experts of the share of choices that fell on one
            and the mean probability it was given; 1 if all are used alike, up to experts / experts_per_token if some
            are never used.

    Source: Shazeer et al., 2017, Outrageously Large Neural Networks, section 2; Fedus et al., 2022, Switch
    Transformers, equations 4 to 6; weights renormalised over the chosen experts, as Jiang et al., 2024, Mixtral.
    """

    balance: Tensor | None = None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.per_token = config.experts_per_token
        self.router = nn.Linear(config.d_model, config.experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.experts))

    def forward(self, x_BTC: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Map ``(batch, seq, d_model)`` to the same shape; the mask says what is padding."""
        real_BT = None if mask is None else real(mask, x_BTC)
        x_NC = x_BTC.flatten(0, 1) if real_BT is None else x_BTC[real_BT]
        weight_NK, chosen_NK = self.route(x_NC)
        output_NC = torch.zeros_like(x_NC)
        for number, expert in enumerate(self.experts):
            token, place = (chosen_NK == number).nonzero(as_tuple=True)
            weighted = expert(x_NC[token]) * weight_NK[token, place, None]
            output_NC = output_NC.index_add(0, token, weighted.to(x_NC.dtype))
        if real_BT is None:
            return output_NC.view_as(x_BTC)
        return torch.zeros_like(x_BTC).index_put((real_BT,), output_NC)

    def route(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts for each token, and note how evenly they are used.

        Returns:
            Their weights, and their numbers, int64; both ``(tokens, experts_per_token)``.
        """
        scores_NE = self.router(x_NC)
        probability_NE = scores_NE.softmax(-1, dtype=torch.promote_types(scores_NE.dtype, torch.float32))
        weight_NK, chosen_NK = probability_NE.topk(self.per_token, dim=-1)
        if self.per_token > 1:
            weight_NK = weight_NK / weight_NK.sum(-1, keepdim=True)
        count = len(self.experts)
        share_E = torch.bincount(chosen_NK.flatten(), minlength=count) / chosen_NK.numel()
        self.balance = count * (share_E * probability_NE.mean(0)).sum()
        return weight_NK.to(x_NC.dtype), chosen_NK


def real(mask: AttentionMask, x_BTC: Tensor) -> Tensor | None:
    """Return which positions of the queries are no padding, bool ``(batch, seq)``; None if the mask does not say."""
    if mask.key_lengths is None:
        return None
    start = mask.query_offset
    place_T = torch.arange(start, start + x_BTC.shape[1], device=x_BTC.device)
    return place_T < mask.key_lengths.to(x_BTC.device)[:, None]


def norm(config: TransformerConfig) -> nn.Module:
    """Return a new normalisation of vectors of ``d_model``."""
    if config.norm == "layernorm":
        return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
    return RMSNorm(config.d_model, config.norm_eps)


class RMSNorm(nn.RMSNorm):
    """torch's, in closed form on a CPU, where torch's gradient is a dozen steps that take four times as long.

    Without a gradient it takes half as long for one vector. Precisions below float32 are left to torch, which adds up in
    float32.

    Source: Zhang and Sennrich, 2019, Root Mean Square Layer Normalization, equation 4.
    """

    def __init__(self, d_model: int, eps: float, dtype: torch.dtype | None = None) -> None:
        super().__init__(d_model, eps=eps, dtype=dtype)
        # No buffers: they stay on the CPU, in both precisions, where a conversion would take as long as the sum.
        self.small = {kind: torch.tensor(eps, dtype=kind, device="cpu") for kind in (torch.float32, torch.float64)}

    def forward(self, x: Tensor) -> Tensor:
        """Divide vectors by the root of their squares' mean; any shape that ends in that of the weights."""
        # A compiler fuses torch's own, on other devices it is one kernel, and tensors in shards have rules of their own.
        plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype == self.weight.dtype and x.dtype in self.small
        if not plain or torch.compiler.is_compiling():
            return super().forward(x)
        if not torch.is_grad_enabled():
            return (x * _inverse_rms(x, self.small[x.dtype])).mul_(self.weight)
        output: Tensor = _RMSNormFunction.apply(x, self.weight, self.small[x.dtype])
        return output


class _RMSNormFunction(torch.autograd.Function):
    """Keeps its inputs alone, so that its gradient has a gradient too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return (x * _inverse_rms(x, eps)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        inverse = _inverse_rms(x, ctx.eps)
        normal = x * inverse
        by_normal = (gradient * normal).flatten(0, -2)
        along = (by_normal @ weight).view_as(inverse) / x.shape[-1]
        return (gradient * weight).addcmul_(normal, along, value=-1).mul_(inverse), by_normal.sum(0), None


def _inverse_rms(x: Tensor, eps: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt()


def initialise(network: nn.Module, config: TransformerConfig, layers: int) -> None:
    """Draw all weights anew: normal, smaller where a layer adds to the residual stream.

    Every block adds to the stream; the smaller weights keep its variance from growing with depth.

    Args:
        network: The whole architecture.
        config: Gives the standard deviation.
        layers: Blocks one behind the other.
    """
    adding_std = config.init_std / math.sqrt(2 * layers)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            adds = name.endswith((".out", ".down"))
            nn.init.normal_(module.weight, std=adding_std if adds else config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def contradictions(config: TransformerConfig) -> list[Problem]:
    """Return fields that do not fit each other."""
    problems = []
    size = head_dim(config)
    if config.head_dim is None and config.d_model % config.num_heads:
        problems.append(
            Problem(
                "architecture.d_model",
                f"{config.d_model} cannot be divided into num_heads={config.num_heads} heads of equal size",
                "choose a d_model that is a multiple of num_heads",
            )
        )
    elif config.positions == "rope" and size % 2:
        problems.append(
            Problem(
                "architecture.positions",
                f"rope turns pairs of elements, and a head has {size} of them",
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
    if config.experts and config.experts_per_token > config.experts:
        problems.append(
            Problem(
                "architecture.experts_per_token",
                f"{config.experts_per_token} cannot be chosen of experts={config.experts}",
                "choose fewer, or more experts",
            )
        )
    exact = config.relative_buckets // 2
    if config.positions == "relative" and config.relative_distance <= exact:
        problems.append(
            Problem(
                "architecture.relative_distance",
                f"{config.relative_distance} is too near: half of relative_buckets={config.relative_buckets} stand for "
                "one distance each, the others for those between",
                f"choose more than {exact}, or fewer buckets",
            )
        )
    return problems


def _gate(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def gated_activation(gate_and_value: Tensor) -> Tensor:
        gate, value = gate_and_value.chunk(2, dim=-1)
        return activation(gate) * value

    return gated_activation


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": _gate(F.silu),
    "geglu": _gate(F.gelu),
    "geglu_tanh": _gate(_gelu_tanh),
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
}
