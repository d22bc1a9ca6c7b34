"""Configs of the Transformer architectures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from torchloom import option
from torchloom.configs import ArchitectureConfig


@dataclass
class RetrievalConfig:
    """What a network looks up in a corpus, under `retrieval`."""

    path: str | None = option(
        None, "Text file, or folder of .txt files, of which pieces are looked up; nothing is looked up unless given."
    )
    pieces: int = option(2, "Pieces that are looked up for an example, or for each window of a causal network.", ge=1)
    piece_length: int = option(32, "Tokens of a piece at most, and of a causal network's window.", ge=1, unit="tokens")
    cut: Literal["lines", "running"] = option(
        "lines", "A piece ends where its line does, or only where piece_length is reached."
    )
    layers: int = option(1, "Blocks that read a piece before the network looks at it.", ge=1)


@dataclass
class TransformerConfig(ArchitectureConfig):
    """Fields that all Transformers have."""

    d_model: int = option(128, "Width of the residual stream.", ge=1)
    num_layers: int = option(4, "Number of Transformer blocks.", ge=1)
    num_heads: int = option(4, "Query heads; their size is d_model / num_heads.", ge=1)
    num_kv_heads: int | None = option(
        None, "Key and value heads, each shared by as many query heads; num_heads unless given.", ge=1
    )
    head_dim: int | None = option(None, "Length of a head's vectors; d_model / num_heads unless given.", ge=1)
    ffn_dim: int | None = option(
        None, "Hidden width of the feed-forward layers; unless given 4 d_model, or 8/3 d_model with a gate.", ge=1
    )
    multiple_of: int = option(
        8, "A gated layer's 8/3 d_model is rounded up to a multiple of it, where ffn_dim is not given.", ge=1
    )
    norm: Literal["rmsnorm", "layernorm"] = option("rmsnorm", "Kind of normalisation.")
    norm_eps: float = option(1e-5, "Added to the variance in normalisation.", gt=0)
    norm_placement: Literal["before", "after"] = option(
        "before",
        "Normalise what each layer reads, and once more at the end; or what each layer has added to.",
        source="Xiong et al., 2020, section 3.2",
    )
    embedding_norm: bool = option(False, "Normalise the sum of the embeddings too.")
    scale_embeddings: bool = option(
        False, "Multiply token embeddings by sqrt(d_model).", source="Vaswani et al., 2017, section 3.4"
    )
    positions: Literal["rope", "learned", "sinusoidal", "relative", "none"] = option(
        "rope",
        "How a position is told: rotated queries and keys; a vector, learned or of sines, added to the input; a learned "
        "bias on the scores for each distance; or not at all.",
    )
    rope_theta: float = option(10000.0, "Base of RoPE's wavelengths.", gt=1, source="Su et al., 2021, section 3.2.2")
    relative_buckets: int = option(
        32, "Distances that have a bias of their own, for positions=relative.", ge=4, source="Raffel et al., 2020"
    )
    relative_distance: int = option(128, "Distance from which all share one bias, for positions=relative.", ge=2)
    activation: Literal["swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "relu"] = option(
        "swiglu", "Non-linearity of the feed-forward layers; gelu is exact, gelu_tanh its approximation in GPT-2."
    )
    bias: bool = option(False, "Whether linear layers and LayerNorm have biases.")
    scale_attention: bool = option(True, "Divide attention scores by sqrt(head_dim); T5 does not.")
    dropout: float = option(
        0.0, "Probability of dropping embeddings, attention weights and what each layer adds.", ge=0, lt=1
    )
    init_std: float = option(
        0.02,
        "Standard deviation of initial weights; divided by sqrt(2 num_layers) where a layer adds to the stream.",
        gt=0,
        source="Radford et al., 2019, section 2.3",
    )
    experts: int = option(
        0, "Feed-forward layers of each block, of which a router chooses for each token; 0 is a single one.", ge=0
    )
    experts_per_token: int = option(2, "Experts that each token is sent to.", ge=1, source="Shazeer et al., 2017")
    expert_balance: float = option(
        0.01,
        "Weight of the loss that spreads tokens evenly over experts.",
        ge=0,
        source="Fedus et al., 2022, equation 4",
    )
    recurrence: Literal["none", "fixed", "learned"] = option(
        "none",
        "Apply the stack of blocks once; or again and again, a fixed number of times or until each position has learnt "
        "to stop.",
        source="Dehghani et al., 2019, Universal Transformers",
    )
    recurrent_steps: int = option(
        4, "How often the stack is applied, with recurrence; at most, if it is learned.", ge=1
    )
    ponder_cost: float = option(
        0.01, "Weight of the mean number of steps in the loss, with recurrence=learned.", ge=0, source="Graves, 2016"
    )
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)


@dataclass
class DecoderConfig(TransformerConfig):
    """A causal Transformer; the longest sequence is the dataset's context_length."""

    tie_embeddings: bool = option(
        True, "Whether the output matrix is the token embedding.", source="Press & Wolf, 2017"
    )


@dataclass
class EncoderConfig(TransformerConfig):
    """A Transformer that looks both ways; the longest sequence is the dataset's context_length."""

    tie_embeddings: bool = option(
        True, "Whether a head that predicts tokens shares the token embedding.", source="Press & Wolf, 2017"
    )
    segments: int = option(
        2, "Texts of an example told apart by an embedding; 1 adds the same to all, 0 has none.", ge=0
    )
    pooling: Literal["first", "mean", "max"] = option(
        "mean", "The vector of a whole example: the first position's, or the mean or the maximum over all."
    )


@dataclass
class EncoderDecoderConfig(TransformerConfig):
    """Two Transformers, of which the second looks at the first's vectors; num_layers blocks each."""

    tie_embeddings: bool = option(
        True, "Whether the output matrix is the token embedding.", source="Press & Wolf, 2017"
    )
    decoder_layers: int | None = option(None, "Blocks of the decoder; num_layers unless given.", ge=1)


@dataclass
class KNNConfig:
    """Measure a language model with a memory of its training text beside it.

    The memory holds the model's vector of every position of the training split, with the token that came next; where a
    new position is alike, what came next there is mixed into the prediction. How much, and how near is near, is chosen
    on the last part of the training split while the memory has the rest.

    Example:
        torchloom knn ckpt=last
        torchloom knn ckpt=FOLDER split=test neighbours=64
    """

    ckpt: str = option(MISSING, "Checkpoint file; 'last' is the newest whole one of the newest run.")
    split: Literal["val", "test"] = option("val", "Split of the data to measure on.")
    neighbours: int = option(32, "Nearest positions of the training text that have a say.", ge=1)
    held_out: float = option(
        0.1, "Share of the training split on which the weight and the temperature are chosen.", gt=0, lt=1
    )
    out: str | None = option(None, "JSON file to write to; knn-SPLIT.json in the run's folder unless given.")
    overrides: list[str] = option(list, "Overrides of the checkpoint's configuration.")
