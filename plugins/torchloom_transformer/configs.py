"""Config of the Transformer architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom import option


@dataclass
class DecoderConfig:
    """A causal Transformer; the longest sequence is the dataset's context_length."""

    d_model: int = option(128, "Width of the residual stream.", ge=1)
    num_layers: int = option(4, "Number of Transformer blocks.", ge=1)
    num_heads: int = option(4, "Query heads; their size is d_model / num_heads.", ge=1)
    num_kv_heads: int | None = option(
        None, "Key and value heads, each shared by as many query heads; num_heads unless given.", ge=1
    )
    ffn_dim: int | None = option(
        None, "Hidden width of the feed-forward layers; unless given 4 d_model, or for swiglu 8/3 d_model.", ge=1
    )
    multiple_of: int = option(
        8, "Swiglu's 8/3 d_model is rounded up to a multiple of it, where ffn_dim is not given.", ge=1
    )
    norm: Literal["rmsnorm", "layernorm"] = option("rmsnorm", "Normalisation before each layer and at the end.")
    norm_eps: float = option(1e-5, "Added to the variance in normalisation.", gt=0)
    positions: Literal["rope", "learned", "none"] = option(
        "rope", "How a position is told: rotated queries and keys, a learned vector added to the input, or not at all."
    )
    rope_theta: float = option(10000.0, "Base of RoPE's wavelengths.", gt=1, source="Su et al., 2021, section 3.2.2")
    activation: Literal["swiglu", "gelu", "gelu_tanh", "relu"] = option(
        "swiglu", "Non-linearity of the feed-forward layers; gelu is exact, gelu_tanh its approximation in GPT-2."
    )
    bias: bool = option(False, "Whether linear layers and LayerNorm have biases.")
    dropout: float = option(
        0.0, "Probability of dropping embeddings, attention weights and what each layer adds.", ge=0, lt=1
    )
    tie_embeddings: bool = option(
        True, "Whether the output matrix is the token embedding.", source="Press & Wolf, 2017"
    )
    init_std: float = option(
        0.02,
        "Standard deviation of initial weights; divided by sqrt(2 num_layers) where a layer adds to the stream.",
        gt=0,
        source="Radford et al., 2019, section 2.3",
    )
