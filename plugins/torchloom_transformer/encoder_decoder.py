"""The encoder-decoder: a Transformer that reads one sequence and writes another.

Letters: B batch, T positions, S source positions, C d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import Seq2SeqSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_transformer.cache import KVCache
from torchloom_transformer.configs import EncoderDecoderConfig
from torchloom_transformer.layers import contradictions, initialise
from torchloom_transformer.retrieval import Retrieval
from torchloom_transformer.stack import Embeddings, Stack


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder looks at.

    Attributes:
        vectors: ``(batch, source_seq, d_model)``.
        lengths: Real positions of each row, ``(batch,)``, or None if all are.
    """

    vectors: Tensor
    lengths: Tensor | None

    def __getitem__(self, rows: Tensor) -> Memory:
        """Return that of some rows, int64 ``(new batch,)``."""
        return Memory(self.vectors[rows], None if self.lengths is None else self.lengths[rows])


class EncoderDecoder(Architecture):
    """Transformer of two stacks with one token embedding; presets ``vaswani`` and ``t5`` have the originals' forms.

    Source: Vaswani et al., 2017, Attention Is All You Need; Raffel et al., 2020, T5.
    """

    protocols: ClassVar[frozenset[str]] = frozenset({"seq2seq"})
    accepts: ClassVar[tuple[type[Spec], ...]] = (Seq2SeqSpec, TokenSpec)
    takes_attention: ClassVar[bool] = True
    causal: bool = True

    def __init__(self, config: EncoderDecoderConfig, spec: Seq2SeqSpec | TokenSpec, attention: Attention) -> None:
        """Build and initialise the network.

        Args:
            config: Its shape.
            spec: Vocabulary and longest sequences; of running text both are as long as its windows.
            attention: The kernel of every block.

        Raises:
            ConfigError: Head counts or sizes do not fit each other.
        """
        super().__init__(config, spec, attention)
        problems = contradictions(config)
        if problems:
            raise ConfigError(problems)
        self.width = config.d_model
        if isinstance(spec, Seq2SeqSpec):
            self.source_length, self.target_length = spec.source_length, spec.target_length
        else:
            self.source_length = self.target_length = spec.context_length + 1
        self.source_embeddings = Embeddings(config, spec, self.source_length)
        self.target_embeddings = Embeddings(config, spec, self.target_length)
        self.target_embeddings.token = self.source_embeddings.token
        looks = config.retrieval.path is not None
        self.encoder = Stack(config, attention, config.num_layers, causal=False, cross=looks)
        self.retrieval = Retrieval(config, spec, attention, self.source_length) if looks else None
        self.decoder = Stack(config, attention, config.decoder_layers or config.num_layers, causal=True, cross=True)
        initialise(self, config, config.num_layers * self.encoder.steps)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Memory:
        """Read the first sequence.

        Args:
            source: int64 ``(batch, source_seq)``, padded at the end.
            source_lengths: Real tokens of each row, ``(batch,)``; all of them unless given.

        Raises:
            UnsupportedError: It is longer than ``source_length``.
        """
        self._check_length("source", source.shape[1], self.source_length)
        mask = AttentionMask(key_lengths=source_lengths)
        looks = self.retrieval
        found = None if looks is None else looks(self.source_embeddings, source, source_lengths)
        return Memory(self.encoder(self.source_embeddings(source), mask, found=found), source_lengths)

    def decode(self, target: Tensor, memory: Memory, *, state: KVCache | None = None) -> Tensor:
        """Map each position of the second sequence to one vector.

        Args:
            target: int64 ``(batch, target_seq)``.
            memory: From `encode`.
            state: From `new_state`, to continue from.

        Returns:
            ``(batch, target_seq, d_model)``.

        Raises:
            UnsupportedError: It is longer than ``target_length``, or than the state has room for.
        """
        start = 0 if state is None else state.length
        self._check_length("target", start + target.shape[1], self.target_length)
        vectors: Tensor = self.decoder(
            self.target_embeddings(target, start),
            AttentionMask(),
            state,
            memory.vectors,
            AttentionMask(key_lengths=memory.lengths),
        )
        return vectors

    def new_state(self, batch_size: int, max_length: int) -> KVCache:
        """Return an empty KV cache for `decode`.

        Raises:
            UnsupportedError: ``max_length`` is more than the target length.
        """
        self._check_length("target", max_length, self.target_length)
        return self.decoder.new_state(batch_size, max_length)

    def take_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Read the corpus to look up in, if there is one."""
        if self.retrieval is not None:
            self.retrieval.take_tokenizer(tokenizer)

    def input_embedding(self) -> nn.Embedding | None:
        """Return the token embedding if it is tied."""
        return self.source_embeddings.token if self.config.tie_embeddings else None

    def blocks(self) -> Sequence[nn.Module]:
        """Return the encoder's blocks, then the decoder's."""
        return (*self.encoder.layers, *self.decoder.layers)

    def input_stage(self) -> Sequence[nn.Module]:
        """Return the embeddings."""
        return (self.source_embeddings, self.target_embeddings)

    def penalty(self) -> Tensor | None:
        """Return what uneven use of experts and steps of recurrence cost in both stacks."""
        parts = [one for one in (self.encoder.penalty(), self.decoder.penalty()) if one is not None]
        return sum(parts[1:], parts[0]) if parts else None

    def _check_length(self, which: str, length: int, most: int) -> None:
        if length > most:
            raise UnsupportedError(
                f"the encoder_decoder was built for {which}s of up to {most} tokens and was given {length}: cut them, "
                f"or train with a larger dataset.{which}_length"
            )
