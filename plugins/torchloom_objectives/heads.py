"""Heads that several objectives share, and what they need to know of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.errors import Problem
from torchloom.layers import Linear


def tie_problems(architecture: Architecture, vocab_size: int) -> Sequence[Problem]:
    """Refuse an embedding that is to be tied but has another shape than the output layer."""
    embedding = architecture.input_embedding()
    wanted = (vocab_size, architecture.width)
    if embedding is None or embedding.weight.shape == wanted:
        return ()
    message = f"the output layer is {wanted}, but the embedding it shall share is {tuple(embedding.weight.shape)}"
    return [Problem("architecture", message, "do not tie the embedding, or make it as wide as the network")]


def vocabulary_layer(architecture: Architecture, vocab_size: int, *, bias: bool) -> nn.Linear:
    """Return a linear layer ``(..., width)`` to ``(..., vocab)``; its matrix is the embedding's where that is tied."""
    layer = Linear(architecture.width, vocab_size, bias=bias)
    embedding = architecture.input_embedding()
    if embedding is not None:
        layer.weight = embedding.weight
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class MaskedHead(nn.Module):
    """BERT's head of masked language modelling: dense layer, GELU and norm, then the vocabulary.

    Source: Devlin et al. 2019; https://github.com/google-research/bert, get_masked_lm_output.
    """

    def __init__(self, architecture: Architecture, vocab_size: int) -> None:
        super().__init__()
        width = architecture.width
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12))
        self.output = vocabulary_layer(architecture, vocab_size, bias=True)

    def forward(self, vectors: Tensor, places: Tensor | None = None) -> Tensor:
        """Map vectors to logits.

        Args:
            vectors: ``(batch, seq, width)``.
            places: Positions to read, bool ``(batch, seq)``; all of them if None. A sixth of them is a sixth of the work,
                which with a large vocabulary is most of a small network's.

        Returns:
            ``(batch, seq, vocab)``, or ``(places, vocab)``, row by row.
        """
        logits: Tensor = self.output(self.transform(vectors if places is None else vectors[places]))
        return logits


class ComparingHead(nn.Module):
    """Classes of two texts: the means u and v of their vectors, |u - v| and u * v, then as `class_head`.

    Source: Conneau et al. 2017, arXiv:1705.02364, section 3.2.
    """

    def __init__(self, width: int, classes: int, *, hidden: bool, dropout: float) -> None:
        super().__init__()
        self.classes = class_head(4 * width, classes, hidden=hidden, dropout=dropout)

    def forward(self, vectors: Tensor, places: Tensor) -> Tensor:
        """Map vectors to logits.

        Args:
            vectors: ``(batch, seq, width)``.
            places: Which positions are of the first text and which of the second, bool ``(2, batch, seq)``; the mean over
                none is a vector of zeros.

        Returns:
            ``(batch, classes)``.
        """
        shares = places.to(vectors.dtype)
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1)
        u, v = (share[:, None] @ vectors for share in shares)
        logits: Tensor = self.classes(torch.cat([u, v, (u - v).abs(), u * v], dim=-1).squeeze(1))
        return logits


def class_head(width: int, classes: int, *, hidden: bool, dropout: float) -> nn.Module:
    """Return a linear layer with bias, behind BERT's dense layer with tanh and behind dropout if asked for."""
    before: list[nn.Module] = [nn.Linear(width, width), nn.Tanh()] if hidden else []
    if dropout:
        before.append(nn.Dropout(dropout))
    last = nn.Linear(width, classes)
    return nn.Sequential(*before, last) if before else last
