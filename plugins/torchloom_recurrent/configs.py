"""Settings of the recurrent networks. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.configs import ArchitectureConfig
from torchloom.options import option


@dataclass
class RecurrentConfig(ArchitectureConfig):
    """Fields that every recurrent network has."""

    embedding_dim: int = option(256, "Length of the token vectors.", ge=1)
    hidden_size: int = option(128, "Length of each layer's state, and of the vectors given.", ge=1)
    num_layers: int = option(1, "Recurrent layers on top of each other.", ge=1)
    dropout: float = option(
        0.0,
        "Probability of dropping entries of embeddings, between layers, and of outputs; never from step to step.",
        ge=0,
        lt=1,
        source="Zaremba et al. 2014, https://arxiv.org/abs/1409.2329",
    )
    tie_embeddings: bool = option(
        False, "Share the embedding with the head's output matrix; embedding_dim must equal hidden_size."
    )


@dataclass
class RNNConfig(RecurrentConfig):
    """Settings of `rnn`."""

    nonlinearity: Literal["tanh", "relu"] = option("tanh", "Function on the new state.")


@dataclass
class GRUConfig(RecurrentConfig):
    """Settings of `gru`."""


@dataclass
class LSTMConfig(RecurrentConfig):
    """Settings of `lstm`."""

    forget_bias: float = option(
        1.0,
        "Bias of the forget gates at the start; above 0, a cell begins by remembering.",
        source="Jozefowicz et al. 2015, https://proceedings.mlr.press/v37/jozefowicz15.html",
    )
