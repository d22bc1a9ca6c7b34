"""Recurrent networks: an embedding, or a matrix on the vectors of a series, and torch's recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.contracts.spec import SeriesSpec, TokenSpec
from torchloom.errors import ConfigError, Problem, UnsupportedError
from torchloom_recurrent.configs import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig


@dataclass(slots=True)
class RecurrentState:
    """Where a batch of sequences has got to.

    Attributes:
        hidden: What torch's layer takes and gives: ``(num_layers, batch, hidden_size)``, for an LSTM a pair of
            hidden and cell state; None before the first token.
    """

    hidden: Any = None

    def reorder(self, rows: Tensor) -> None:
        """Go on from other rows: row ``i`` becomes what row ``rows[i]`` was.

        Args:
            rows: int64 ``(new batch,)``.
        """
        if isinstance(self.hidden, tuple):
            self.hidden = tuple(part[:, rows] for part in self.hidden)
        elif self.hidden is not None:
            self.hidden = self.hidden[:, rows]


class Recurrent(Architecture):
    """Base of the recurrent networks: a vector a position (`sequence`), or the last real position's (`features`).

    Starts as Keras does: input matrices Glorot-uniform, recurrent ones orthogonal, biases 0 (`LSTM` adds the forget
    gates'). Embeddings are normal with variance ``1 / embedding_dim``, so that a head tied to them starts with
    small logits. The matrix on a series' vectors is Glorot-uniform too.

    Source: Glorot and Bengio 2010; Saxe et al. 2014, https://arxiv.org/abs/1312.6120.
    """

    protocols = frozenset({"features", "sequence"})
    accepts = (TokenSpec, SeriesSpec)
    causal = True
    layer: ClassVar[type[nn.RNNBase]]
    config: RecurrentConfig

    def __init__(
        self, config: RecurrentConfig, spec: TokenSpec | SeriesSpec, attention: Attention | None = None
    ) -> None:
        """Build and initialise the network.

        Raises:
            ConfigError: Tied embeddings of another length than the state.
        """
        super().__init__(config, spec)
        if config.tie_embeddings and isinstance(spec, TokenSpec) and config.embedding_dim != config.hidden_size:
            message = f"{config.embedding_dim} differs from hidden_size={config.hidden_size}, so it cannot be shared"
            mend = f"set architecture.embedding_dim={config.hidden_size}, or architecture.tie_embeddings=false"
            raise ConfigError([Problem("architecture.embedding_dim", message, mend)])
        self.width = config.hidden_size
        self.embedding: nn.Embedding | nn.Linear
        if isinstance(spec, SeriesSpec):
            self.embedding = nn.Linear(spec.channels, config.embedding_dim)
        else:
            self.embedding = nn.Embedding(spec.vocab_size, config.embedding_dim)
        self.layers = self.layer(
            input_size=config.embedding_dim,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            batch_first=True,
            dropout=config.dropout if config.num_layers > 1 else 0.0,  # torch warns of what it would not use
            **self.layer_options(),
        )
        self.dropout = nn.Dropout(config.dropout)
        self._initialise()

    def layer_options(self) -> dict[str, Any]:
        """Return arguments of the layer beyond those that all cells share."""
        return {}

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Return the state after the last real position of each row: many to one.

        Args:
            inputs: Token ids, int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            lengths: Real positions of each row, ``(batch,)``, at least 1; all of them unless given.
            encoded: Not used: nothing here is frozen.

        Returns:
            ``(batch, hidden_size)``.
        """
        states_BTD = self.sequence(inputs)  # noqa: N806 - shape suffix: batch, time, width
        if lengths is None:
            return states_BTD[:, -1]
        return states_BTD[torch.arange(len(inputs), device=inputs.device), lengths.to(inputs.device) - 1]

    def sequence(self, tokens: Tensor, *, mask: AttentionMask | None = None, state: Any = None) -> Tensor:
        """Return the state after every position.

        Args:
            tokens: int64 ``(batch, seq)``, or vectors float ``(batch, seq, channels)`` of a series.
            mask: Key lengths need no work, since what stands behind a position never reaches it; vectors at padding
                mean nothing. Windows and documents are refused.
            state: What `new_state` returned, to continue from.

        Returns:
            ``(batch, seq, hidden_size)``.

        Raises:
            UnsupportedError: The mask asks for what a recurrent network cannot honour.
        """
        if mask is not None:
            self._check_mask(mask, state)
        embedded = self.dropout(self.embedding(tokens))
        # On a processor torch has no LSTM in mixed precision; all cells run there in that of their weights.
        mixed = embedded.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False) if mixed else nullcontext():
            given = embedded.to(self.layers.weight_ih_l0.dtype) if mixed else embedded
            outputs, hidden = self.layers(given, None if state is None else state.hidden)
        if state is not None:
            state.hidden = hidden
        vectors: Tensor = self.dropout(outputs)
        return vectors

    def new_state(self, batch_size: int, max_length: int) -> RecurrentState:
        """Return the state before the first token; it takes any number of tokens."""
        return RecurrentState()

    def input_embedding(self) -> nn.Embedding | None:
        """Return the embedding if it is tied; a series has none."""
        return self.embedding if self.config.tie_embeddings and isinstance(self.embedding, nn.Embedding) else None

    def blocks(self) -> Sequence[nn.Module]:
        """Return the stack of layers as one block: torch runs it in one call."""
        return (self.layers,)

    def input_stage(self) -> Sequence[nn.Module]:
        """Return the embedding, or the matrix in its place."""
        return (self.embedding,)

    def _check_mask(self, mask: AttentionMask, state: Any) -> None:
        refused = mask.features() & {"window", "documents"}
        if refused:
            raise UnsupportedError(
                f"architecture {type(self).__name__.lower()} does not honour {', '.join(sorted(refused))} in a mask, "
                "since its state carries on from token to token; architecture=decoder does, and dataset.packing=stream "
                "asks for no documents"
            )
        if mask.key_lengths is not None and state is not None:
            raise UnsupportedError(
                f"architecture {type(self).__name__.lower()} cannot continue padded rows, since padding would enter "
                "the state; continue sequences of one length together"
            )
        if mask.query_offset and state is None:
            raise UnsupportedError(
                f"architecture {type(self).__name__.lower()} cannot start at position {mask.query_offset} without the "
                "state of the tokens before; pass what new_state returned"
            )

    @torch.no_grad()
    def _initialise(self) -> None:
        if isinstance(self.embedding, nn.Linear):
            nn.init.xavier_uniform_(self.embedding.weight)
            nn.init.zeros_(self.embedding.bias)
        else:
            nn.init.normal_(self.embedding.weight, std=self.config.embedding_dim**-0.5)
        for name, parameter in self.layers.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)


class RNN(Recurrent):
    """Simple recurrent network: ``h' = tanh(W x + U h + b)``."""

    layer = nn.RNN
    config: RNNConfig

    def layer_options(self) -> dict[str, Any]:
        """Return the nonlinearity."""
        return {"nonlinearity": self.config.nonlinearity}


class GRU(Recurrent):
    """Gated recurrent units, in the form whose reset gate acts behind the recurrent matrix, as cuDNN has it."""

    layer = nn.GRU
    config: GRUConfig


class LSTM(Recurrent):
    """Long short-term memory; with embedding 256 and state 128 its layer has 197,632 parameters."""

    layer = nn.LSTM
    config: LSTMConfig

    @torch.no_grad()
    def _initialise(self) -> None:
        super()._initialise()
        size = self.config.hidden_size
        for name, parameter in self.layers.named_parameters():
            # Gates stand in the order input, forget, cell, output; torch adds two biases, so one of them carries it.
            if name.startswith("bias_ih"):
                parameter[size : 2 * size] = self.config.forget_bias
