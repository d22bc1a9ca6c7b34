"""A convolutional network over texts, and over series of vectors.

Letters: B batch, T positions, E embedding, K kernels' channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention
from torchloom.contracts.spec import SeriesSpec, TokenSpec
from torchloom.errors import ConfigError, Problem
from torchloom_vision.configs import TextCNNConfig


class TextCNN(Architecture):
    """Convolutions of several widths over token vectors, each channel's largest answer anywhere in the text.

    Padding is seen as zeros and answers for itself nowhere, so that a row's vector does not hang on its batch.

    Source: Kim 2014, Convolutional Neural Networks for Sentence Classification, section 2.
    """

    protocols = frozenset({"features"})
    accepts = (TokenSpec, SeriesSpec)
    config: TextCNNConfig

    def __init__(self, config: TextCNNConfig, spec: TokenSpec | SeriesSpec, attention: Attention | None = None) -> None:
        """Build and initialise the network.

        Raises:
            ConfigError: No widths of kernels, or one below 1.
        """
        super().__init__(config, spec)
        if not config.kernel_sizes or min(config.kernel_sizes) < 1:
            message = f"{list(config.kernel_sizes)} are not widths of kernels"
            raise ConfigError([Problem("architecture.kernel_sizes", message, "name some, such as [3,4,5]")])
        self.width = config.channels * len(config.kernel_sizes)
        self.embedding: nn.Embedding | nn.Linear
        if isinstance(spec, SeriesSpec):
            self.embedding = nn.Linear(spec.channels, config.embedding_dim)
        else:
            self.embedding = nn.Embedding(spec.vocab_size, config.embedding_dim)
            nn.init.normal_(self.embedding.weight, std=config.embedding_dim**-0.5)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_dim, config.channels, size) for size in config.kernel_sizes
        )
        self.dropout = nn.Dropout(config.dropout)

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map each text to one vector.

        Args:
            inputs: Token ids, int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            lengths: Real positions of each row, ``(batch,)``, at least 1; all of them unless given.
            encoded: Not used: nothing here is frozen.

        Returns:
            ``(batch, channels * len(kernel_sizes))``.
        """
        vectors_BTE = self.embedding(inputs)  # noqa: N806
        padding_BT = torch.zeros(vectors_BTE.shape[:2], dtype=torch.bool, device=vectors_BTE.device)  # noqa: N806
        if lengths is not None:
            padding_BT = torch.arange(inputs.shape[1], device=inputs.device) >= lengths.to(inputs.device)[:, None]  # noqa: N806
        vectors_BET = vectors_BTE.masked_fill(padding_BT[:, :, None], 0.0).transpose(1, 2)  # noqa: N806
        found = []
        for convolution, size in zip(self.convolutions, self.config.kernel_sizes, strict=True):
            # As many answers as positions: a kernel is laid on each, with zeros beyond both ends.
            answers_BKT = F.relu(convolution(F.pad(vectors_BET, ((size - 1) // 2, size // 2))))  # noqa: N806
            found.append(answers_BKT.masked_fill(padding_BT[:, None], 0.0).amax(dim=-1))
        vectors: Tensor = self.dropout(torch.cat(found, dim=-1))
        return vectors

    def blocks(self) -> Sequence[nn.Module]:
        """Return the convolutions of all widths as one block: they stand beside each other."""
        return (self.convolutions,)

    def input_stage(self) -> Sequence[nn.Module]:
        """Return the embedding, or the matrix in its place."""
        return (self.embedding,)
