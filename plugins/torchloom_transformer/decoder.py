"""The decoder: a causal Transformer.

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
from torchloom_transformer.cache import KVCache
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.layers import contradictions, initialise
from torchloom_transformer.retrieval import Retrieval, refuse_documents
from torchloom_transformer.stack import Embeddings, Stack


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
    accepts: ClassVar[tuple[type[Spec], ...]] = (TokenSpec, SeriesSpec)
    takes_attention: ClassVar[bool] = True
    causal: bool = True

    def __init__(self, config: DecoderConfig, spec: TokenSpec | SeriesSpec, attention: Attention) -> None:
        """Build and initialise the network.

        Args:
            config: Its shape.
            spec: Vocabulary and longest sequence.
            attention: The kernel of every block.

        Raises:
            ConfigError: Head counts or sizes do not fit each other.
        """
        super().__init__(config, spec, attention)
        problems = contradictions(config)
        if problems:
            raise ConfigError(problems)
        self.width = config.d_model
        self.context_length = spec.context_length
        self.embeddings = Embeddings(config, spec, spec.context_length)
        looks = config.retrieval.path is not None
        self.stack = Stack(config, attention, config.num_layers, causal=True, cross=looks)
        self.retrieval = Retrieval(config, spec, attention, spec.context_length) if looks else None
        initialise(self, config, config.num_layers * self.stack.steps)

    def sequence(self, tokens: Tensor, *, mask: AttentionMask | None = None, state: KVCache | None = None) -> Tensor:
        """Map each position to one vector; see `Architecture.sequence`.

        Args:
            tokens: int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            mask: Structure beyond causality. Key lengths and documents count all keys, those in the state included.
            state: From `new_state`, to continue from.

        Returns:
            ``(batch, seq, d_model)``.

        Raises:
            UnsupportedError: More positions than ``context_length``, or than the state has room for; documents told
                apart where pieces are looked up.
        """
        start = 0 if state is None else state.length
        end = start + tokens.shape[1]
        self._check_length(end if state is None else max(end, state.max_length))
        mask = mask or AttentionMask()
        found = None
        if self.retrieval is not None:
            refuse_documents(mask)
            known = tokens if state is None or state.tokens is None else torch.cat((state.tokens, tokens), dim=1)
            if state is not None:
                state.tokens = known
            found = self.retrieval.windows(self.embeddings, known, start)
        vectors: Tensor = self.stack(self.embeddings(tokens, start), mask, state, found=found)
        return vectors

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Return the vector of each row's last real position, the only one that has seen the whole row.

        What is looked up is looked up by the whole row too, not window by window as in `sequence`.

        Args:
            inputs: int64 ``(batch, seq)``, padded at the end.
            lengths: Real tokens of each row, ``(batch,)``, each at least 1; all of them unless given.
            encoded: Not used: no stage is frozen.

        Returns:
            ``(batch, d_model)``.
        """
        # Padding stands behind, where no real position looks.
        if self.retrieval is None:
            vectors_BTC = self.sequence(inputs)
        else:
            self._check_length(inputs.shape[1])
            found = self.retrieval(self.embeddings, inputs, lengths)
            vectors_BTC = self.stack(self.embeddings(inputs), AttentionMask(), found=found)
        if lengths is None:
            return vectors_BTC[:, -1]
        return vectors_BTC[torch.arange(len(inputs), device=inputs.device), lengths.to(inputs.device) - 1]

    def new_state(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty KV cache.

        Raises:
            UnsupportedError: ``max_length`` is more than the context length.
        """
        self._check_length(max_length)
        return self.stack.new_state(batch_size, max_length)

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

    def _check_length(self, length: int) -> None:
        if length > self.context_length:
            raise UnsupportedError(
                f"the decoder was built for sequences of up to {self.context_length} tokens and was given {length}: "
                "feed it the last ones only, or train with a larger dataset.context_length"
            )
