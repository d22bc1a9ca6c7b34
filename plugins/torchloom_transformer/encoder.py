"""The encoder: a Transformer that looks both ways.

Letters: B batch, T positions, C d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import SeriesSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_transformer.configs import EncoderConfig
from torchloom_transformer.layers import contradictions, initialise
from torchloom_transformer.retrieval import Retrieval, refuse_documents
from torchloom_transformer.stack import Embeddings, Stack


class Encoder(Architecture):
    """BERT-style Transformer in modern form; the preset ``architecture=bert`` has the original's.

    Source: Devlin et al., 2019, BERT; Warner et al., 2024, ModernBERT (pre-norm, RoPE, gated layers, no biases).
    """

    protocols: ClassVar[frozenset[str]] = frozenset({"features", "sequence"})
    accepts: ClassVar[tuple[type[Spec], ...]] = (TokenSpec, SeriesSpec)
    takes_attention: ClassVar[bool] = True
    takes_segments: ClassVar[bool] = True

    def __init__(self, config: EncoderConfig, spec: TokenSpec | SeriesSpec, attention: Attention) -> None:
        """Build and initialise the network.

        Args:
            config: Its shape.
            spec: Vocabulary, or channels, and longest sequence.
            attention: The kernel of every block.

        Raises:
            ConfigError: Head counts or sizes do not fit each other.
        """
        super().__init__(config, spec, attention)
        problems = contradictions(config)
        if problems:
            raise ConfigError(problems)
        self.width = config.d_model
        # A window of running text holds one token more than a causal objective feeds.
        self.context_length = spec.context_length + 1
        segments = config.segments if isinstance(spec, TokenSpec) else 0
        self.embeddings = Embeddings(config, spec, self.context_length, segments)
        looks = config.retrieval.path is not None
        self.stack = Stack(config, attention, config.num_layers, causal=False, cross=looks)
        self.retrieval = Retrieval(config, spec, attention, spec.context_length) if looks else None
        initialise(self, config, config.num_layers * self.stack.steps)

    def sequence(
        self,
        tokens: Tensor,
        *,
        mask: AttentionMask | None = None,
        segments: Tensor | None = None,
        state: None = None,
    ) -> Tensor:
        """Map each position to one vector that depends on all of them; see `Architecture.sequence`.

        Args:
            tokens: int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            mask: Key lengths, documents, a window.
            segments: Which text each token belongs to, int64 ``(batch, seq)`` in ``[0, segments)``; all to the first unless
                given.
            state: Not used: nothing can be continued that looks ahead.

        Returns:
            ``(batch, seq, d_model)``; vectors at padding mean nothing.

        Raises:
            UnsupportedError: More positions than ``context_length``; documents told apart where pieces are looked up.
        """
        if tokens.shape[1] > self.context_length:
            raise UnsupportedError(
                f"the encoder was built for sequences of up to {self.context_length} positions and was given "
                f"{tokens.shape[1]}: cut them, or train with a larger dataset.context_length"
            )
        mask = mask or AttentionMask()
        found = None
        if self.retrieval is not None:
            refuse_documents(mask)
            found = self.retrieval(self.embeddings, tokens, mask.key_lengths)
        vectors: Tensor = self.stack(self.embeddings(tokens, segments=segments), mask, found=found)
        return vectors

    def features(
        self,
        inputs: Tensor,
        *,
        lengths: Tensor | None = None,
        segments: Tensor | None = None,
        encoded: Tensor | None = None,
    ) -> Tensor:
        """Map each example to one vector, as ``pooling`` says.

        Args:
            inputs: int64 ``(batch, seq)``, padded at the end, or vectors of a series.
            lengths: Real positions of each row, ``(batch,)``, each at least 1; all of them unless given.
            segments: As in `sequence`.
            encoded: Not used: no stage is frozen.

        Returns:
            ``(batch, d_model)``.
        """
        mask = AttentionMask(key_lengths=None if lengths is None else lengths.to(inputs.device))
        vectors_BTC = self.sequence(inputs, mask=mask, segments=segments)
        return pool(vectors_BTC, mask.key_lengths, self.config.pooling)

    def take_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Read the corpus to look up in, if there is one."""
        if self.retrieval is not None:
            self.retrieval.take_tokenizer(tokenizer)

    def input_embedding(self) -> nn.Embedding | None:
        """Return the token embedding if it is tied."""
        return self.embeddings.token if self.config.tie_embeddings else None

    def blocks(self) -> Sequence[nn.Module]:
        """Return the blocks, first to last."""
        return tuple(self.stack.layers)

    def input_stage(self) -> Sequence[nn.Module]:
        """Return the embeddings."""
        return (self.embeddings,)

    def penalty(self) -> Tensor | None:
        """Return what uneven use of experts and steps of recurrence cost."""
        return self.stack.penalty()


def pool(vectors_BTC: Tensor, lengths: Tensor | None, how: str) -> Tensor:
    """Return one vector a row.

    Args:
        vectors_BTC: ``(batch, seq, width)``.
        lengths: Real positions of each row, ``(batch,)``; all of them if None.
        how: ``"first"``, ``"mean"`` or ``"max"`` over the real positions.

    Returns:
        ``(batch, width)``.
    """
    if how == "first":
        return vectors_BTC[:, 0]
    if lengths is None:
        return vectors_BTC.mean(1) if how == "mean" else vectors_BTC.amax(1)
    padding = (torch.arange(vectors_BTC.shape[1], device=vectors_BTC.device) >= lengths[:, None])[..., None]
    if how == "max":
        return vectors_BTC.masked_fill(padding, -torch.inf).amax(1)
    return vectors_BTC.masked_fill(padding, 0.0).sum(1) / lengths[:, None]
