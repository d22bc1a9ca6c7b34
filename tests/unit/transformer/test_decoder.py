"""The decoder: its shape, its laws, and that a cache changes nothing."""

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.spec import TokenSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_attention.configs import MathAttentionConfig, SDPAttentionConfig
from torchloom_attention.math import MathAttention
from torchloom_attention.sdpa import SDPAttention
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.decoder import Decoder
from torchloom_transformer.sizes import hidden_width

SPEC = TokenSpec(vocab_size=11, context_length=12)
SDPA = SDPAttention(SDPAttentionConfig())
GPT2 = {"norm": "layernorm", "positions": "learned", "activation": "gelu", "bias": True}
SHAPES = {
    "llama": {},
    "grouped": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1, "positions": "none", "activation": "relu"},
    "gpt2": GPT2,
}
shapes = pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)


def make(attention: Any = SDPA, spec: TokenSpec = SPEC, **options: Any) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(**{"d_model": 32, "num_layers": 2, "num_heads": 4, **options}), spec, attention)
    return decoder.double().eval()


def make_tokens(batch: int = 3, length: int = 12) -> torch.Tensor:
    return torch.randint(SPEC.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


@shapes
def test_a_vector_for_each_position_and_the_last_for_the_whole(options: dict[str, Any]):
    decoder, tokens = make(**options), make_tokens()
    vectors = decoder.sequence(tokens)
    assert vectors.shape == (3, 12, 32)
    assert decoder.width == 32
    assert torch.equal(decoder.features(tokens), vectors[:, -1])


def test_features_are_the_last_real_position_whatever_the_padding():
    decoder, tokens = make(), make_tokens()
    lengths = torch.tensor([12, 5, 1])
    features = decoder.features(tokens, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = decoder.features(tokens[row : row + 1, :length])
        torch.testing.assert_close(features[row], alone[0], rtol=1e-9, atol=1e-10)


@shapes
def test_changing_the_future_leaves_the_past(options: dict[str, Any]):
    decoder, tokens = make(**options), make_tokens()
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % SPEC.vocab_size
    before, after = decoder.sequence(tokens), decoder.sequence(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=1e-10, atol=1e-12)
    assert not torch.isclose(before[:, 7:], after[:, 7:]).all(-1).any()


@shapes
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4))
def test_a_cache_changes_nothing_however_the_tokens_are_fed(options: dict[str, Any], cuts: list[int]):
    decoder, tokens = make(**options), make_tokens()
    state = decoder.new_state(3, 12)
    edges = [0, *sorted(set(cuts)), 12]
    with torch.no_grad():
        parts = [decoder.sequence(tokens[:, start:end], state=state) for start, end in pairwise(edges)]
        whole = decoder.sequence(tokens)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-10)


def test_a_cache_honours_key_lengths_and_documents():
    decoder, tokens = make(), make_tokens()
    mask = AttentionMask(key_lengths=torch.tensor([12, 4, 9]), documents=torch.arange(12).expand(3, -1) // 5)
    state = decoder.new_state(3, 12)
    with torch.no_grad():
        whole = decoder.sequence(tokens, mask=mask)
        parts = []
        for place in range(12):
            seen = AttentionMask(key_lengths=mask.key_lengths, documents=mask.documents[:, : place + 1])
            parts.append(decoder.sequence(tokens[:, place : place + 1], mask=seen, state=state))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-10)


def test_cache_memory_is_taken_once_and_only_for_key_heads():
    decoder = make(num_kv_heads=2)
    state = decoder.new_state(3, 12)
    before = [(layer.k_BGSD.data_ptr(), layer.v_BGSD.data_ptr()) for layer in state.layers]
    with torch.no_grad():
        decoder.sequence(make_tokens(length=5), state=state)
        decoder.sequence(make_tokens(length=1), state=state)
    assert [(layer.k_BGSD.data_ptr(), layer.v_BGSD.data_ptr()) for layer in state.layers] == before
    assert {tuple(layer.k_BGSD.shape) for layer in state.layers} == {(3, 2, 12, 8)}
    assert state.length == 6


@pytest.mark.parametrize("positions", ["rope", "none"])
def test_documents_packed_in_one_row_are_read_apart(positions: str):
    decoder, tokens = make(positions=positions), make_tokens(1)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    packed = decoder.sequence(tokens, mask=AttentionMask(documents=documents))
    apart = torch.cat([decoder.sequence(tokens[:, :5]), decoder.sequence(tokens[:, 5:])], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-5, atol=1e-6)  # RoPE's angles are float32


def test_a_window_in_each_layer_reaches_back_by_layers_times_window():
    decoder, tokens = make(), make_tokens(1)
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % SPEC.vocab_size
    mask = AttentionMask(window=3)
    differs = ~torch.isclose(decoder.sequence(tokens, mask=mask), decoder.sequence(changed, mask=mask)).all(-1)[0]
    assert differs.tolist() == [True] * 5 + [False] * 7  # two layers, each two positions back


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_parameter_count_follows_the_formula(heads: int, activation: str, positions: str, norm: str):
    decoder = make(num_kv_heads=heads, activation=activation, positions=positions, norm=norm, ffn_dim=40)
    d, head_dim = 32, 8
    block = 2 * d * (4 + heads) * head_dim + (3 if activation == "swiglu" else 2) * d * 40 + 2 * d
    learned = SPEC.context_length * d if positions == "learned" else 0
    assert sum(p.numel() for p in decoder.parameters()) == SPEC.vocab_size * d + learned + 2 * block + d


def test_nanogpts_shape_has_nanogpts_parameters():
    # nanoGPT prints 0.80M for this shape, its 64 x 128 positions left out.
    spec = TokenSpec(vocab_size=65, context_length=64)
    decoder = Decoder(DecoderConfig(positions="learned", norm="layernorm", activation="gelu"), spec, SDPA)
    assert sum(p.numel() for p in decoder.parameters()) == 804_096 == 795_904 + 64 * 128


@pytest.mark.parametrize(
    ("activation", "multiple_of", "width"),
    [("gelu", 8, 512), ("relu", 64, 512), ("swiglu", 8, 344), ("swiglu", 64, 384)],
)
def test_feed_forward_width_unless_given(activation: str, multiple_of: int, width: int):
    config = DecoderConfig(activation=activation, multiple_of=multiple_of)
    assert hidden_width(config) == width
    assert hidden_width(DecoderConfig(activation=activation, ffn_dim=100)) == 100


def test_kernels_share_checkpoints_and_results():
    with_math, with_sdpa = make(MathAttention(MathAttentionConfig())), make(SDPA)
    with_math.load_state_dict(with_sdpa.state_dict(), strict=True)
    tokens = make_tokens()
    torch.testing.assert_close(with_math.sequence(tokens), with_sdpa.sequence(tokens), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("tie", [True, False])
def test_the_output_matrix_is_tied_on_request(tie: bool):
    decoder = make(tie_embeddings=tie)
    assert decoder.input_embedding() is (decoder.embeddings.token if tie else None)


@shapes
def test_every_parameter_learns(options: dict[str, Any]):
    decoder = make(**options)
    # A random direction: the normalisation at the end makes a plain sum of squares constant.
    vectors = decoder.sequence(make_tokens())
    (vectors * torch.randn_like(vectors)).sum().backward()
    still = [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_initial_weights_have_the_stated_spread():
    decoder = make(d_model=256, num_layers=8, bias=True, init_std=0.05)
    block = decoder.stack.layers[3]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert decoder.embeddings.token.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert block.attention.out.weight.std().item() == pytest.approx(0.05 / 4, rel=0.05)
    assert block.feed_forward.down.weight.std().item() == pytest.approx(0.05 / 4, rel=0.05)
    assert block.feed_forward.up.bias.abs().sum() == 0


def test_dropout_works_in_training_only():
    decoder, tokens = make(dropout=0.3), make_tokens()
    assert torch.equal(decoder.sequence(tokens), decoder.sequence(tokens))
    torch.testing.assert_close(decoder.sequence(tokens), make().sequence(tokens), rtol=1e-12, atol=1e-12)
    decoder.train()
    assert not torch.equal(decoder.sequence(tokens), decoder.sequence(tokens))


def test_blocks_can_be_recomputed_in_the_backward_pass():
    decoder, tokens = make(), make_tokens()
    decoder.sequence(tokens).square().mean().backward()
    plain = [p.grad.clone() for p in decoder.parameters()]
    decoder.zero_grad()
    assert len(decoder.blocks()) == 2
    for block in decoder.blocks():
        forward = block.forward
        block.forward = lambda *args, forward=forward: checkpoint(forward, *args, use_reentrant=False)
    decoder.sequence(tokens).square().mean().backward()
    for grad, parameter in zip(plain, decoder.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-12, atol=1e-14)


def test_bfloat16_stays_near_double():
    decoder, tokens = make(), make_tokens()
    exact = decoder.sequence(tokens)
    rough = decoder.bfloat16().sequence(tokens)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), exact, rtol=0.05, atol=0.05)


def test_a_cache_works_under_autocast():
    decoder, tokens = make().float(), make_tokens()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = decoder.sequence(tokens)
        state = decoder.new_state(3, 12)
        parts = [decoder.sequence(tokens[:, place : place + 1], state=state) for place in range(12)]
    torch.testing.assert_close(torch.cat(parts, 1).float(), whole.float(), rtol=0.05, atol=0.05)


def test_it_compiles_as_one_graph():
    decoder, tokens = make(num_kv_heads=2), make_tokens()
    compiled = torch.compile(decoder.sequence, backend="eager", fullgraph=True)
    for mask in (None, AttentionMask(key_lengths=torch.tensor([12, 3, 7]))):
        torch.testing.assert_close(compiled(tokens, mask=mask), decoder.sequence(tokens, mask=mask))


def test_contradictions_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        make(d_model=30, num_heads=4, num_kv_heads=3)
    assert str(caught.value) == (
        "2 problems in the configuration:\n"
        "  architecture.d_model: 30 cannot be divided into num_heads=4 heads of equal size\n"
        "    choose a d_model that is a multiple of num_heads\n"
        "  architecture.num_kv_heads: num_heads=4 query heads cannot share 3 key heads evenly\n"
        "    choose a divisor of num_heads"
    )


def test_rope_needs_pairs():
    with pytest.raises(ConfigError) as caught:
        make(d_model=12, num_heads=4)
    assert str(caught.value) == (
        "architecture.positions: rope turns pairs of elements, and a head has 3 of them\n"
        "    choose d_model and num_heads so that d_model / num_heads is even, or positions=learned"
    )
    assert make(d_model=12, num_heads=4, positions="learned").width == 12


def test_more_tokens_than_the_context_are_refused():
    decoder = make()
    wanted = (
        "the decoder was built for sequences of up to 12 tokens and was given 13: "
        "feed it the last ones only, or train with a larger dataset.context_length"
    )
    with pytest.raises(UnsupportedError) as caught:
        decoder.sequence(make_tokens(length=13))
    assert str(caught.value) == wanted
    with pytest.raises(UnsupportedError) as caught:
        decoder.new_state(1, 13)
    assert str(caught.value) == wanted


def test_a_full_cache_refuses_more():
    decoder = make()
    state = decoder.new_state(3, 5)
    with pytest.raises(UnsupportedError) as caught:
        decoder.sequence(make_tokens(length=6), state=state)
    assert str(caught.value) == "the KV cache has room for 5 tokens, and 6 were fed to it"
    assert state.length == 0


def test_declaring_the_architectures_imports_no_torch():
    code = """
import sys
from torchloom_transformer import configs, plugin
assert [component.name for component in plugin.torchloom_components()] == [
    "decoder", "encoder", "encoder_decoder", "knn"
]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
