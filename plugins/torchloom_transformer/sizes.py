"""How many parameters a Transformer has and what a token costs, from its config alone, without torch.

Letters: C d_model, H query heads, G key heads, D head_dim, F ffn_dim.
"""

from __future__ import annotations

import dataclasses
import math

from torchloom_transformer.configs import EncoderConfig, EncoderDecoderConfig, TransformerConfig

VOCAB_SIZE = 32_000
"""Vocabulary that `describe` counts with: Llama's and, nearly, T5's and BERT's."""
CONTEXT_LENGTH = 1_024
"""Positions that `describe` counts with: GPT-2's."""


def parameter_count(config: TransformerConfig, vocab_size: int, context_length: int) -> int:
    """Return the parameters of an architecture on text; an output matrix that is not tied is a head's and not counted.

    Args:
        config: Its shape.
        vocab_size: Tokens that have an embedding.
        context_length: The dataset's ``context_length``, which counts for learned positions alone; of an
            encoder-decoder the longest source and target.
    """
    two = isinstance(config, EncoderDecoderConfig)
    # An encoder reads a whole window of running text, which has one token more than a causal network is fed.
    positions = context_length + 1 if isinstance(config, EncoderConfig) else context_length
    embeddings = (positions * config.d_model if config.positions == "learned" else 0) + (
        _norm(config) if config.embedding_norm else 0
    )
    segments = config.segments * config.d_model if isinstance(config, EncoderConfig) else 0
    total = vocab_size * config.d_model + (2 if two else 1) * embeddings + segments
    looks = config.retrieval.path is not None
    total += _stack(config, config.num_layers, cross=looks)
    if looks:
        plain = dataclasses.replace(config, recurrence="none", experts=0)
        total += _stack(plain, config.retrieval.layers)
    if isinstance(config, EncoderDecoderConfig):
        total += _stack(config, config.decoder_layers or config.num_layers, cross=True)
    return total


def flops_per_token(config: TransformerConfig, context_length: int, vocab_size: int = 0) -> int:
    """Return the floating-point operations of one token in a forward pass, spread evenly over a full sequence.

    Two for each multiplication with a weight and for each of the two products of attention, over all pairs of positions,
    those in the future included; normalisations, activations, softmax and pieces looked up are left out. A training step
    costs about three times as much. Of an encoder-decoder: one token read and one written, both sequences of the same length.

    Args:
        config: Its shape.
        context_length: Positions of a sequence.
        vocab_size: Rows of the output matrix; 0 leaves the head out.

    Source: Kaplan et al., 2020, Scaling Laws for Neural Language Models, section 2.1; Chowdhery et al., 2022, PaLM,
    appendix B.
    """
    attend = 4 * context_length * config.num_heads * head_dim(config)
    weights = _attention_weights(config) + _used_weights(config)
    layers = config.num_layers * (2 * weights + attend)
    if isinstance(config, EncoderDecoderConfig):
        weights += _attention_weights(config)
        layers += (config.decoder_layers or config.num_layers) * (2 * weights + 2 * attend)
    steps = 1 if config.recurrence == "none" else config.recurrent_steps
    stacks = 2 if isinstance(config, EncoderDecoderConfig) else 1
    halting = 2 * config.d_model * (steps - 1) * stacks if config.recurrence == "learned" else 0
    return steps * layers + halting + 2 * config.d_model * vocab_size


def describe(config: TransformerConfig) -> dict[str, str]:
    """Return what `torchloom show` says of a size."""
    total = parameter_count(config, VOCAB_SIZE, CONTEXT_LENGTH)
    embedding = VOCAB_SIZE * config.d_model
    output = "" if getattr(config, "tie_embeddings", True) else f"; {rounded(embedding)} more in the output matrix"
    forward = flops_per_token(config, CONTEXT_LENGTH, VOCAB_SIZE)
    given = f"a vocabulary of {VOCAB_SIZE:,} and {CONTEXT_LENGTH:,} positions"
    facts = {
        "parameters": f"{rounded(total)} ({total:,}) with {given}, {rounded(embedding)} of them token embeddings{output}"
    }
    if config.experts:
        idle = config.num_layers * (config.experts - config.experts_per_token) * _feed_forward(config)
        if isinstance(config, EncoderDecoderConfig):
            idle += idle // config.num_layers * (config.decoder_layers or config.num_layers)
        facts["used by a token"] = f"{rounded(total - idle)} of them"
    pair = " read and a token written" if isinstance(config, EncoderDecoderConfig) else ""
    facts["FLOPs"] = (
        f"{rounded(forward)} a token{pair}, with the output matrix; about {rounded(3 * forward)} in training"
    )
    return facts


def rounded(number: int) -> str:
    """Return three digits and a word: ``"6.61 billion"``."""
    for size, word in ((10**12, " trillion"), (10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if number >= size:
            digits = number / size
            return f"{digits:.{2 if digits < 10 else 1 if digits < 100 else 0}f}{word}"
    return str(number)


def hidden_width(config: TransformerConfig) -> int:
    """Return the width of the feed-forward layers.

    Unless given, it is 4 ``d_model``, or about 8/3 with a gate, whose third matrix then costs no more parameters.
    """
    if config.ffn_dim is not None:
        return config.ffn_dim
    if not gated(config):
        return 4 * config.d_model
    return math.ceil(8 * config.d_model / (3 * config.multiple_of)) * config.multiple_of


def head_dim(config: TransformerConfig) -> int:
    """Return the length of a head's vectors."""
    return config.head_dim or config.d_model // config.num_heads


def gated(config: TransformerConfig) -> bool:
    """Return whether the feed-forward layers have a gate."""
    return config.activation in ("swiglu", "geglu", "geglu_tanh")


def _stack(config: TransformerConfig, layers: int, *, cross: bool = False) -> int:
    """Return the parameters of a `Stack`, whose blocks perhaps look at another sequence too."""
    looks = 2 if cross else 1
    block = looks * (_attention(config) + _norm(config)) + _norm(config)
    block += config.experts * (_feed_forward(config) + config.d_model) if config.experts else _feed_forward(config)
    last = _norm(config) if config.norm_placement == "before" else 0
    distances = config.relative_buckets * config.num_heads if config.positions == "relative" else 0
    halt = config.d_model + 1 if config.recurrence == "learned" else 0
    return layers * block + last + distances + halt


def _attention(config: TransformerConfig) -> int:
    heads = config.num_heads + 2 * (config.num_kv_heads or config.num_heads)
    return _attention_weights(config) + (heads * head_dim(config) + config.d_model if config.bias else 0)


def _attention_weights(config: TransformerConfig) -> int:
    heads = 2 * config.num_heads + 2 * (config.num_kv_heads or config.num_heads)
    return config.d_model * heads * head_dim(config)


def _feed_forward(config: TransformerConfig) -> int:
    up = (2 if gated(config) else 1) * hidden_width(config)
    return _feed_forward_weights(config) + (up + config.d_model if config.bias else 0)


def _feed_forward_weights(config: TransformerConfig) -> int:
    return (3 if gated(config) else 2) * config.d_model * hidden_width(config)


def _used_weights(config: TransformerConfig) -> int:
    """Return the weights of a block's feed-forward layers that one token is multiplied with, the router's included."""
    if not config.experts:
        return _feed_forward_weights(config)
    return config.experts_per_token * _feed_forward_weights(config) + config.d_model * config.experts


def _norm(config: TransformerConfig) -> int:
    return config.d_model * (2 if config.norm == "layernorm" and config.bias else 1)
