"""Recurrent networks: the textbook's equations, the tutorial's size, and one result however the tokens are fed."""

import pytest
import torch
from torch import nn

from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.spec import SeriesSpec, TokenSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_recurrent.configs import GRUConfig, LSTMConfig, RNNConfig
from torchloom_recurrent.recurrent import GRU, LSTM, RNN

SPEC = TokenSpec(vocab_size=11, context_length=7)
CELLS = {"rnn": (RNN, RNNConfig), "gru": (GRU, GRUConfig), "lstm": (LSTM, LSTMConfig)}


def build(cell, spec=SPEC, **fields):
    torch.manual_seed(0)
    cls, config = CELLS[cell]
    return cls(config(**{"embedding_dim": 6, "hidden_size": 5, **fields}), spec).eval()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


@pytest.fixture
def tokens():
    return torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(1))


def step(cell, x, h, c, w, u, b, v):
    """One step by the published equations, gates in torch's order; ``w x + b`` and ``u h + v`` kept apart."""
    wx, uh = x @ w.T + b, h @ u.T + v
    if cell == "rnn":
        return torch.tanh(wx + uh), c
    if cell == "gru":
        (xr, xz, xn), (hr, hz, hn) = wx.chunk(3, -1), uh.chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * h, c
    i, f, g, o = (wx + uh).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@torch.no_grad()
def test_two_layers_equal_the_equations_step_by_step(cell, tokens):
    model = build(cell, num_layers=2)
    for parameter in model.layers.parameters():
        parameter.normal_(std=0.5)
    vectors = model.embedding(tokens)
    for layer in range(2):
        names = (f"weight_ih_l{layer}", f"weight_hh_l{layer}", f"bias_ih_l{layer}", f"bias_hh_l{layer}")
        weights = [getattr(model.layers, name) for name in names]
        h = c = torch.zeros(3, 5)
        states = []
        for x in vectors.unbind(1):
            h, c = step(cell, x, h, c, *weights)
            states.append(h)
        vectors = torch.stack(states, 1)
    torch.testing.assert_close(model.sequence(tokens), vectors)
    torch.testing.assert_close(model.features(tokens), vectors[:, -1])


def test_the_default_lstm_has_the_tutorials_size():
    model = LSTM(LSTMConfig(), TokenSpec(vocab_size=100, context_length=64))
    assert parameters(model.layers) == 197_632
    assert parameters(model) == 197_632 + 100 * 256
    assert model.width == 128


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(1,) * 7, (4, 1, 2), (7,)])
def test_feeding_in_pieces_equals_feeding_at_once(cell, tokens, cuts):
    model = build(cell, num_layers=2)
    state = model.new_state(3, 7)
    pieces = [model.sequence(piece, state=state) for piece in tokens.split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model.sequence(tokens))


@torch.no_grad()
def test_features_with_lengths_equal_each_row_alone(cell, tokens):
    model = build(cell)
    lengths = torch.tensor([1, 4, 7])
    alone = [model.features(row[None, :length]) for row, length in zip(tokens, lengths, strict=True)]
    torch.testing.assert_close(model.features(tokens, lengths=lengths), torch.cat(alone))


@torch.no_grad()
def test_the_future_and_padding_change_no_position_before_them(cell, tokens):
    model = build(cell)
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    mask = AttentionMask(causal=True, key_lengths=torch.tensor([4, 4, 4]))
    before, after = model.sequence(tokens, mask=mask), model.sequence(changed, mask=mask)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert model.causal


def test_gradients_reach_every_parameter(cell, tokens):
    model = build(cell, num_layers=2, dropout=0.1).train()
    model.sequence(tokens).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@torch.no_grad()
def test_dropout_acts_in_training_only_on_embeddings_and_outputs(cell, tokens):
    model = build(cell, dropout=0.5)
    assert torch.equal(model.sequence(tokens), model.sequence(tokens))
    model.train()
    outputs = model.sequence(tokens)
    assert 0.3 < (outputs == 0).float().mean() < 0.7
    assert not torch.equal(outputs, model.sequence(tokens))


def test_weights_start_as_documented():
    model = build("lstm", embedding_dim=40, hidden_size=32, num_layers=2)
    for layer in range(2):
        recurrent = getattr(model.layers, f"weight_hh_l{layer}")
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(32), atol=1e-5, rtol=0)
        gates = (getattr(model.layers, f"bias_ih_l{layer}") + getattr(model.layers, f"bias_hh_l{layer}")).view(4, 32)
        assert torch.equal(gates, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, 32))
    assert build("lstm", forget_bias=0.0).layers.bias_ih_l0.abs().sum() == 0


def test_tied_embeddings_are_handed_out_and_must_fit(cell):
    assert build(cell).input_embedding() is None
    tied = build(cell, embedding_dim=5, tie_embeddings=True)
    assert tied.input_embedding() is tied.embedding
    with pytest.raises(ConfigError) as caught:
        build(cell, tie_embeddings=True)
    assert str(caught.value) == (
        "architecture.embedding_dim: 6 differs from hidden_size=5, so it cannot be shared\n"
        "    set architecture.embedding_dim=5, or architecture.tie_embeddings=false"
    )


def test_masks_that_a_state_cannot_honour_are_refused(cell, tokens):
    model = build(cell)
    refused = [
        (
            AttentionMask(window=2, documents=torch.zeros_like(tokens)),
            None,
            f"architecture {cell} does not honour documents, window in a mask, since its state carries on from token "
            "to token; architecture=decoder does, and dataset.packing=stream asks for no documents",
        ),
        (
            AttentionMask(key_lengths=torch.tensor([1, 2, 3])),
            model.new_state(3, 7),
            f"architecture {cell} cannot continue padded rows, since padding would enter the state; continue "
            "sequences of one length together",
        ),
        (
            AttentionMask(query_offset=3),
            None,
            f"architecture {cell} cannot start at position 3 without the state of the tokens before; pass what "
            "new_state returned",
        ),
    ]
    for mask, state, message in refused:
        with pytest.raises(UnsupportedError) as caught:
            model.sequence(tokens, mask=mask, state=state)
        assert str(caught.value) == message


def test_a_relu_network_is_one_choice_away(tokens):
    model = build("rnn", nonlinearity="relu")
    assert isinstance(model.layers, nn.RNN)
    assert (model.sequence(tokens) >= 0).all()


@torch.no_grad()
def test_a_series_takes_a_matrix_in_place_of_the_embedding(cell, tokens):
    words = build(cell, num_layers=2)
    series = build(cell, SeriesSpec(channels=11, context_length=7), num_layers=2)
    series.layers.load_state_dict(words.layers.state_dict())
    series.embedding.weight.copy_(words.embedding.weight.T)
    assert not series.embedding.bias.any()
    vectors = nn.functional.one_hot(tokens, 11).float()
    lengths = torch.tensor([1, 4, 7])
    torch.testing.assert_close(series.sequence(vectors), words.sequence(tokens))
    torch.testing.assert_close(series.features(vectors, lengths=lengths), words.features(tokens, lengths=lengths))


def test_a_series_has_no_embedding_to_tie(cell):
    spec = SeriesSpec(channels=3, context_length=7)
    assert build(cell, spec, tie_embeddings=True).input_embedding() is None
    assert build(cell, spec).input_stage()[0].weight.shape == (6, 3)


@pytest.mark.parametrize("spec", [SPEC, SeriesSpec(channels=3, context_length=7)])
def test_mixed_precision_on_a_processor_runs_the_cells_in_full(cell, spec, tokens):
    """torch has no LSTM in bfloat16 there; without a matrix before the cells nothing else is rounded."""
    model = build(cell, spec).train()
    inputs = tokens if spec is SPEC else torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = model.sequence(inputs)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, model.sequence(inputs), rtol=0, atol=0 if spec is SPEC else 0.02)
    vectors.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
