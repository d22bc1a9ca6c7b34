"""The encoder looks both ways, at nothing it should not, and equals torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformer_made import SDPA, SPEC, close, make, tokens

from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.spec import SeriesSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_transformer.configs import EncoderConfig
from torchloom_transformer.encoder import Encoder, pool

BERT = {
    "norm": "layernorm",
    "norm_placement": "after",
    "embedding_norm": True,
    "positions": "learned",
    "activation": "gelu",
    "bias": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "modern": {},
    "bert": BERT,
    "sines": {"positions": "sinusoidal", "scale_embeddings": True},
    "relative": {"positions": "relative", "num_kv_heads": 2},
    "experts": {"experts": 3},
    "recurrent": {"recurrence": "learned", "recurrent_steps": 3},
}
shapes = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)


@shapes
def test_every_position_sees_every_other(options: dict[str, Any]) -> None:
    encoder, before = make("encoder", **options), tokens(1)
    for changed in (0, 11):
        after = before.clone()
        after[:, changed] = (after[:, changed] + 1) % SPEC.vocab_size
        assert not torch.isclose(encoder.sequence(before), encoder.sequence(after)).all(-1).any()


@shapes
def test_padding_is_not_looked_at(options: dict[str, Any]) -> None:
    encoder, ids, lengths = make("encoder", **options), tokens(), torch.tensor([12, 5, 1])
    padded = encoder.sequence(ids, mask=AttentionMask(key_lengths=lengths))
    for how in ("first", "mean", "max"):
        encoder.config.pooling = how
        pooled = encoder.features(ids, lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = ids[row : row + 1, :length]
            close(padded[row, :length], encoder.sequence(alone)[0])
            close(pooled[row], encoder.features(alone)[0])


@pytest.mark.parametrize("options", [{}, {"positions": "relative"}, {"positions": "none", "experts": 3}])
def test_documents_of_one_row_are_read_apart(options: dict[str, Any]) -> None:
    encoder, ids = make("encoder", **options), tokens(2)
    documents = torch.tensor([[0] * 5 + [1] * 7] * 2)
    packed = encoder.sequence(ids, mask=AttentionMask(documents=documents))
    close(packed, torch.cat([encoder.sequence(ids[:, :5]), encoder.sequence(ids[:, 5:])], 1))
    assert not torch.isclose(packed, encoder.sequence(ids)).all(-1).any()


def test_segments_matter_and_are_the_first_unless_given() -> None:
    encoder, ids = make("encoder"), tokens()
    segments = torch.tensor([[0] * 4 + [1] * 8]).expand(3, -1)
    close(encoder.sequence(ids), encoder.sequence(ids, segments=torch.zeros_like(ids)))
    close(encoder.features(ids), encoder.features(ids, segments=torch.zeros_like(ids)))
    assert not torch.isclose(encoder.sequence(ids), encoder.sequence(ids, segments=segments)).all(-1).any()
    assert not torch.isclose(encoder.features(ids), encoder.features(ids, segments=segments)).all(-1).any()


@pytest.mark.parametrize("segments", [0, 1])
def test_an_encoder_that_tells_no_segments_apart_ignores_them(segments: int) -> None:
    encoder, ids = make("encoder", segments=segments), tokens()
    close(encoder.sequence(ids), encoder.sequence(ids, segments=torch.ones_like(ids)))


def test_pooling_by_hand() -> None:
    vectors = torch.tensor([[[1.0, -8.0], [3.0, -2.0], [99.0, 99.0]], [[-1.0, 0.0], [7.0, 7.0], [8.0, 9.0]]])
    lengths = torch.tensor([2, 1])
    assert pool(vectors, lengths, "first").tolist() == [[1, -8], [-1, 0]]
    assert pool(vectors, lengths, "mean").tolist() == [[2, -5], [-1, 0]]
    assert pool(vectors, lengths, "max").tolist() == [[3, -2], [-1, 0]]
    assert pool(vectors, None, "max").tolist() == [[99, 99], [8, 9]]
    assert pool(vectors[:1, :2], None, "mean").tolist() == [[2, -5]]


@pytest.mark.parametrize("placement", ["before", "after"])
def test_a_block_equals_torchs_layer(placement: str) -> None:
    options = {**BERT, "norm_placement": placement, "activation": "relu"}
    encoder = make("encoder", **options)
    block = encoder.stack.layers[0]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    layer = nn.TransformerEncoderLayer(16, 4, 64, 0.0, batch_first=True, norm_first=placement == "before").double()
    layer.load_state_dict(torch_layer(block), strict=True)
    x = torch.randn(3, 12, 16, dtype=torch.float64)
    lengths = torch.tensor([12, 4, 9])
    padding = torch.arange(12) >= lengths[:, None]
    ours, torchs = block(x, AttentionMask(key_lengths=lengths)), layer(x, src_key_padding_mask=padding)
    torch.testing.assert_close(ours[~padding], torchs[~padding], rtol=1e-9, atol=1e-10)


def torch_layer(block: nn.Module) -> dict[str, torch.Tensor]:
    """Return a block's weights under the names of `torch.nn.TransformerEncoderLayer`."""
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.out": "self_attn.out_proj",
        "attention_norm": "norm1",
        "feed_forward.up": "linear1",
        "feed_forward.down": "linear2",
        "feed_forward_norm": "norm2",
    }
    renamed = {}
    for key, value in block.state_dict().items():
        prefix = max((name for name in names if key.startswith(name)), key=len)
        renamed[names[prefix] + key[len(prefix) :]] = value
    return renamed


@shapes
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    encoder, ids = make("encoder", **options), tokens()
    vectors = encoder.sequence(ids, segments=ids % 2)
    (vectors * torch.randn_like(vectors)).sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_a_series_has_no_segments_and_no_tokens() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(d_model=16, num_layers=1), SeriesSpec(channels=3, context_length=7), SDPA).double()
    values, lengths = torch.randn(2, 7, 3, dtype=torch.float64), torch.tensor([7, 4])
    assert encoder.embeddings.segment is None
    assert encoder.input_embedding() is None
    close(encoder.features(values, lengths=lengths)[1], encoder.features(values[1:, :4])[0])


def test_too_long_is_refused() -> None:
    encoder = make("encoder")
    assert encoder.sequence(tokens(length=13)).shape == (3, 13, 16)  # a whole window of running text
    with pytest.raises(UnsupportedError) as caught:
        encoder.sequence(tokens(length=14))
    assert str(caught.value) == (
        "the encoder was built for sequences of up to 13 positions and was given 14: cut them, or train with a larger "
        "dataset.context_length"
    )


def test_biases_for_distances_need_distances() -> None:
    with pytest.raises(ConfigError) as caught:
        make("encoder", positions="relative", relative_distance=16)
    assert str(caught.value) == (
        "architecture.relative_distance: 16 is too near: half of relative_buckets=32 stand for one distance each, the "
        "others for those between\n    choose more than 16, or fewer buckets"
    )
