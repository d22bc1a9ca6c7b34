"""xFormers' memory-efficient attention: our mask structures as its bias classes, which are never a matrix.

A structure that differs from row to row (key lengths, documents) is packed: the tokens of all rows are laid end to end
as blocks, and a query sees its own block. Queries that see nothing belong to no block, so they stay zero.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.errors import UnsupportedError


@dataclass(frozen=True)
class Bias:
    """An `AttentionMask` as xFormers takes it.

    Attributes:
        bias: A subclass of ``xformers.ops.AttentionBias``, or None if every query sees every key.
        num_keys: Keys that take part, counted from the first; those behind are seen by no query.
        q_index: Where each packed query stands in the flattened ``(batch * seq_q)``, or None if nothing is packed.
        k_index: Where each packed key stands in the flattened ``(batch * num_keys)``, or None.
    """

    bias: Any
    num_keys: int
    q_index: Tensor | None = None
    k_index: Tensor | None = None


class XFormersAttention(Attention):
    """`xformers.ops.memory_efficient_attention`, for NVIDIA GPUs.

    It honours each mask structure but not every combination: see `bias_of`.

    Source: Rabe and Staats, 2021, Self-attention Does Not Need O(n^2) Memory.
    """

    supports: ClassVar[frozenset[str]] = frozenset({"causal", "window", "key_lengths", "documents", "query_offset"})
    devices: ClassVar[frozenset[str]] = frozenset({"cuda"})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.ops = import_quietly("xformers.ops")

    def check(self, device: torch.device) -> None:
        """Refuse any device but a GPU.

        Raises:
            UnsupportedError: The device is not a CUDA device.
        """
        if device.type not in self.devices:
            raise UnsupportedError(
                f"attention=xformers runs on an NVIDIA GPU only, and this run is on {device.type}: use attention=sdpa"
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
        """Attend; see `Attention.__call__`.

        Raises:
            UnsupportedError: The device, the combination of structures, the precision or the head size has no kernel.
        """
        self.check(q_BHTD.device)
        batch, heads, seq_q, head_dim = q_BHTD.shape
        form = bias_of(mask, batch, seq_q, k_BGSD.shape[2], q_BHTD.device)

        # Its layout is BTHD; its grouped layout has no backward pass, so shared key heads are repeated.
        repeats = heads // k_BGSD.shape[1]
        q_BTHD = q_BHTD.transpose(1, 2)
        k_BSHD, v_BSHD = (
            x_BGSD[:, :, : form.num_keys].transpose(1, 2).repeat_interleave(repeats, dim=2)
            for x_BGSD in (k_BGSD, v_BGSD)
        )
        if form.q_index is None or form.k_index is None:
            return self._call(q_BTHD, k_BSHD, v_BSHD, form.bias, dropout, scale).transpose(1, 2)

        flat_q = q_BTHD.flatten(0, 1)
        out = torch.zeros_like(flat_q)
        if len(form.q_index):
            packed_q = flat_q.index_select(0, form.q_index)
            packed_k, packed_v = (x_BSHD.flatten(0, 1).index_select(0, form.k_index) for x_BSHD in (k_BSHD, v_BSHD))
            packed_out = self._call(packed_q[None], packed_k[None], packed_v[None], form.bias, dropout, scale)
            out = out.index_copy(0, form.q_index, packed_out[0])
        return out.view(batch, seq_q, heads, head_dim).transpose(1, 2)

    def _call(self, q: Tensor, k: Tensor, v: Tensor, bias: Any, dropout: float, scale: float | None) -> Tensor:
        try:
            out: Tensor = self.ops.memory_efficient_attention(q, k, v, attn_bias=bias, p=dropout, scale=scale)
        except NotImplementedError as cause:
            raise UnsupportedError(
                f"xformers has no kernel for {q.dtype}, head size {q.shape[-1]} and {type(bias).__name__} on this GPU: "
                "use attention=sdpa"
            ) from cause
        return out


def bias_of(mask: AttentionMask, batch: int, seq_q: int, seq_k: int, device: torch.device | None = None) -> Bias:
    """Express a mask by xFormers' bias classes.

    Not expressible, and refused: a window over documents; a window over padded keys unless causal and without a query
    offset; causality with a query offset over padded keys, or unless the last query stands at the last key.

    Args:
        mask: The structure.
        batch: Rows.
        seq_q: Queries a row.
        seq_k: Keys a row.
        device: Where the bias and the indices shall live.

    Returns:
        The bias and, where rows differ from each other, how to pack queries and keys.

    Raises:
        UnsupportedError: Its bias classes cannot say it.
    """
    biases = import_quietly("xformers.ops.fmha.attn_bias")
    end = mask.query_offset + seq_q
    num_keys = min(seq_k, end) if mask.causal else seq_k  # no query looks behind its own position
    aligned = num_keys == end  # the last query's position is the last key's
    if mask.key_lengths is not None or mask.documents is not None:
        return _packed(mask, batch, seq_q, num_keys, aligned, biases, device)

    if mask.window is not None:
        if not aligned:
            raise _refusal("a window whose last query is not at the last key")
        if mask.causal:
            return Bias(biases.LowerTriangularFromBottomRightMask().make_local_attention(mask.window), num_keys)
        return Bias(biases.LocalAttentionFromBottomRightMask(mask.window - 1, mask.window - 1), num_keys)
    if not mask.causal or mask.query_offset >= num_keys - 1:
        return Bias(None, num_keys)  # everything is seen
    if mask.query_offset == 0:
        return Bias(biases.LowerTriangularMask(), num_keys)
    if aligned:
        return Bias(biases.LowerTriangularFromBottomRightMask(), num_keys)
    raise _refusal("a query offset with queries behind the last key")


def _packed(
    mask: AttentionMask,
    batch: int,
    seq_q: int,
    num_keys: int,
    aligned: bool,
    biases: ModuleType,
    device: torch.device | None,
) -> Bias:
    """Express key lengths and documents: one block for each document of each row."""
    if mask.window is not None and (mask.documents is not None or not mask.causal or mask.query_offset):
        raise _refusal("a window together with documents, or with key lengths unless causal and without a query offset")
    from_end = mask.causal and mask.query_offset > 0
    if from_end and (mask.key_lengths is not None or not aligned):
        raise _refusal("causality with a query offset over padded keys, or with queries behind the last key")

    q_index: list[int] = []
    k_index: list[int] = []
    q_lengths: list[int] = []
    k_lengths: list[int] = []
    for row, queries, keys in _blocks(mask, batch, seq_q, num_keys):
        if mask.window is not None:
            # Further queries reach no real key, which the bias class would refuse.
            queries = queries[: len(keys) + mask.window - 1]
        if not queries or not keys:
            continue
        q_index += [row * seq_q + position for position in queries]
        k_index += [row * num_keys + position for position in keys]
        q_lengths.append(len(queries))
        k_lengths.append(len(keys))

    bias = None
    if q_index:
        bias = biases.BlockDiagonalMask.from_seqlens(q_lengths, k_lengths, device=device)
        if mask.window is not None:
            bias = bias.make_local_attention(mask.window)
        elif from_end:
            bias = bias.make_causal_from_bottomright()
        elif mask.causal:
            bias = bias.make_causal()
    q_places, k_places = (torch.tensor(index, dtype=torch.int64, device=device) for index in (q_index, k_index))
    return Bias(bias, num_keys, q_places, k_places)


def _blocks(mask: AttentionMask, batch: int, seq_q: int, num_keys: int) -> list[tuple[int, list[int], list[int]]]:
    """Return ``(row, positions of the queries, positions of the real keys)`` of each document of each row, in order."""
    lengths = [num_keys] * batch if mask.key_lengths is None else mask.key_lengths.tolist()
    if mask.documents is None:
        return [(row, list(range(seq_q)), list(range(min(lengths[row], num_keys)))) for row in range(batch)]

    blocks = []
    for row, numbers in enumerate(mask.documents.tolist()):
        own = numbers[mask.query_offset : mask.query_offset + seq_q]
        real = numbers[: min(lengths[row], num_keys)]
        for number in dict.fromkeys(own):
            blocks.append((row, _places(own, number), _places(real, number)))
    return blocks


def _places(numbers: list[int], wanted: int) -> list[int]:
    return [place for place, number in enumerate(numbers) if number == wanted]


def _refusal(what: str) -> UnsupportedError:
    return UnsupportedError(f"attention=xformers cannot express {what}: use attention=sdpa")


def import_quietly(name: str) -> ModuleType:
    """Import a module of xFormers, without the warnings it logs where its compiled part does not fit torch."""
    logger = logging.getLogger("xformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    finally:
        logger.setLevel(level)
