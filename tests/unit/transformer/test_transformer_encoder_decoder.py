"""The encoder-decoder equals torch's Transformer, and a cache changes nothing."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_transformer_encoder import torch_layer
from torch import nn
from transformer_made import PAIRS, SDPA, SPEC, VOCAB, close, make, tokens

from torchloom.errors import UnsupportedError
from torchloom_transformer.configs import EncoderDecoderConfig
from torchloom_transformer.encoder_decoder import EncoderDecoder
from torchloom_transformer.positions import sinusoidal

VASWANI = {
    "norm": "layernorm",
    "norm_placement": "after",
    "scale_embeddings": True,
    "positions": "sinusoidal",
    "activation": "relu",
    "bias": True,
}
T5 = {"positions": "relative", "activation": "relu", "scale_attention": False}
SHAPES: dict[str, dict[str, Any]] = {
    "modern": {"num_kv_heads": 2, "decoder_layers": 3},
    "vaswani": VASWANI,
    "t5": T5,
    "experts": {"experts": 3},
    "fixed": {"recurrence": "fixed", "recurrent_steps": 3},
    "learned": {"recurrence": "learned", "recurrent_steps": 3},
}
shapes = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_it_equals_torchs_transformer(placement: str) -> None:
    ours = make("encoder_decoder", **{**VASWANI, "norm_placement": placement, "decoder_layers": 3})
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.Transformer(
        16, 4, 2, 3, 64, dropout=0.0, batch_first=True, norm_first=placement == "before", dtype=torch.float64
    )
    for layer, block in zip(theirs.encoder.layers, ours.encoder.layers, strict=True):
        layer.load_state_dict(torch_layer(block), strict=True)
    for layer, block in zip(theirs.decoder.layers, ours.decoder.layers, strict=True):
        layer.load_state_dict(torch_decoder_layer(block), strict=True)
    if placement == "after":  # torch normalises once more at the end, which the paper does not
        theirs.encoder.norm = theirs.decoder.norm = None
    else:
        theirs.encoder.norm.load_state_dict(ours.encoder.norm.state_dict())
        theirs.decoder.norm.load_state_dict(ours.decoder.norm.state_dict())

    source, target, lengths = tokens(), tokens(length=9, seed=2), torch.tensor([12, 5, 1])
    padding = torch.arange(12) >= lengths[:, None]
    wanted = theirs.train()(  # in evaluation torch takes a fused path that knows no double precision
        torch_embedding(ours, source),
        torch_embedding(ours, target),
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64),
        src_key_padding_mask=torch.zeros(3, 12, dtype=torch.float64).masked_fill(padding, -torch.inf),
        memory_key_padding_mask=torch.zeros(3, 12, dtype=torch.float64).masked_fill(padding, -torch.inf),
    )
    torch.testing.assert_close(ours.seq2seq(source, target, source_lengths=lengths), wanted, rtol=1e-5, atol=1e-5)


def torch_embedding(network: EncoderDecoder, ids: torch.Tensor) -> torch.Tensor:
    """Return scaled embeddings with positions computed number by number from the paper's formula."""
    width = network.width
    positions = [
        [
            math.sin(position / 10000 ** (place / width))
            if place % 2 == 0
            else math.cos(position / 10000 ** ((place - 1) / width))
            for place in range(width)
        ]
        for position in range(ids.shape[1])
    ]
    weight = network.input_embedding().weight
    return weight[ids] * math.sqrt(width) + torch.tensor(positions, dtype=torch.float64)


def torch_decoder_layer(block: nn.Module) -> dict[str, torch.Tensor]:
    """Return a block's weights under the names of `torch.nn.TransformerDecoderLayer`."""
    renamed = {}
    cross = ("cross_attention", "cross_norm")
    encoder_part = nn.Module()
    for name, child in block.named_children():
        if not name.startswith(cross):
            encoder_part.add_module(name, child)
    for key, value in torch_layer(encoder_part).items():
        renamed[key.replace("norm2", "norm3")] = value
    attention, norm = block.cross_attention, block.cross_norm
    return renamed | {
        "multihead_attn.in_proj_weight": torch.cat([attention.query.weight, attention.key_value.weight]),
        "multihead_attn.in_proj_bias": torch.cat([attention.query.bias, attention.key_value.bias]),
        "multihead_attn.out_proj.weight": attention.out.weight,
        "multihead_attn.out_proj.bias": attention.out.bias,
        "norm2.weight": norm.weight,
        "norm2.bias": norm.bias,
    }


@given(start=st.integers(0, 2000), length=st.integers(1, 20), width=st.integers(1, 9))
def test_sines_follow_the_formula_from_any_start(start: int, length: int, width: int) -> None:
    vectors = sinusoidal(start, length, width, torch.device("cpu"))
    assert vectors.shape == (length, width)
    for row in range(length):
        for place in range(width):
            angle = (start + row) / 10000 ** ((place - place % 2) / width)
            wanted = math.cos(angle) if place % 2 else math.sin(angle)
            assert vectors[row, place].item() == pytest.approx(wanted, abs=2e-4)  # float32 angles of up to 2,000


@shapes
@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4))
def test_a_cache_changes_nothing_however_the_tokens_are_fed(options: dict[str, Any], cuts: list[int]) -> None:
    network, target = make("encoder_decoder", **options), tokens(seed=2)
    with torch.no_grad():
        memory = network.encode(tokens(), torch.tensor([12, 5, 1]))
        state = network.new_state(3, 12)
        edges = [0, *sorted(set(cuts)), 12]
        parts = [network.decode(target[:, start:end], memory, state=state) for start, end in pairwise(edges)]
        close(torch.cat(parts, 1), network.decode(target, memory))
    assert state.length == 12


@shapes
def test_a_reordered_cache_goes_on_from_other_rows(options: dict[str, Any]) -> None:
    """What beam search does: rows are dropped and doubled, with their memory."""
    network, source, target = make("encoder_decoder", **options), tokens(), tokens(seed=2)
    lengths, rows = torch.tensor([12, 5, 1]), torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        state = network.new_state(3, 12)
        network.decode(target[:, :7], network.encode(source, lengths), state=state)
        state.reorder(rows)
        memory = network.encode(source[rows], lengths[rows])
        after = network.decode(target[rows, 7:], memory, state=state)
        close(after, network.decode(target[rows], memory)[:, 7:])


@shapes
def test_padding_of_the_source_is_not_looked_at(options: dict[str, Any]) -> None:
    network, source, target = make("encoder_decoder", **options), tokens(), tokens(seed=2)
    together = network.seq2seq(source, target, source_lengths=torch.tensor([12, 5, 1]))
    for row, length in enumerate([12, 5, 1]):
        close(together[row], network.seq2seq(source[row : row + 1, :length], target[row : row + 1])[0])


@shapes
def test_what_is_written_depends_on_what_was_read_and_on_the_past_alone(options: dict[str, Any]) -> None:
    network, source, target = make("encoder_decoder", **options), tokens(1), tokens(1, seed=2)
    before = network.seq2seq(source, target)
    later = target.clone()
    later[:, 7:] = (later[:, 7:] + 1) % VOCAB
    same = torch.isclose(before, network.seq2seq(source, later), rtol=1e-9, atol=1e-11).all(-1)[0]
    assert same.tolist() == [True] * 7 + [False] * 5
    other = source.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCAB
    assert not torch.isclose(before, network.seq2seq(other, target)).all(-1).any()


@shapes
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    network = make("encoder_decoder", **options)
    vectors = network.seq2seq(tokens(), tokens(seed=2))
    (vectors * torch.randn_like(vectors)).sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_one_token_embedding_serves_both_and_positions_are_their_own() -> None:
    network = make("encoder_decoder", positions="learned")
    assert network.source_embeddings.token is network.target_embeddings.token is network.input_embedding()
    assert network.source_embeddings.position is not network.target_embeddings.position
    assert len(network.blocks()) == 4


def test_running_text_gives_room_for_a_whole_window_on_both_sides() -> None:
    network = EncoderDecoder(EncoderDecoderConfig(d_model=16, num_layers=1), SPEC, SDPA)
    assert (network.source_length, network.target_length) == (13, 13)


def test_too_long_is_refused() -> None:
    network = make("encoder_decoder")
    memory = network.encode(tokens())
    state = network.new_state(3, PAIRS.target_length)
    network.decode(tokens(length=7), memory, state=state)
    for call, which in (
        (lambda: network.encode(tokens(length=13)), "source"),
        (lambda: network.decode(tokens(length=13), memory), "target"),
        (lambda: network.decode(tokens(length=6), memory, state=state), "target"),
        (lambda: network.new_state(3, 13), "target"),
    ):
        with pytest.raises(UnsupportedError) as caught:
            call()
        assert str(caught.value) == (
            f"the encoder_decoder was built for {which}s of up to 12 tokens and was given 13: cut them, or train with a "
            f"larger dataset.{which}_length"
        )
