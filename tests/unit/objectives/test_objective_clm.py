import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import TokenSpec
from torchloom.errors import UnsupportedError
from torchloom_objectives.clm import CLM
from torchloom_objectives.configs import CLMConfig
from torchloom_recurrent.configs import LSTMConfig
from torchloom_recurrent.recurrent import LSTM

SPEC = TokenSpec(vocab_size=11, context_length=6, pad_id=0)


def build(positions: str = "all", *, tied: bool = False, **settings) -> tuple[CLM, Model]:
    torch.manual_seed(0)
    objective = CLM(CLMConfig(positions=positions, **settings), SPEC)
    architecture = LSTM(LSTMConfig(embedding_dim=8, hidden_size=8, tie_embeddings=tied), SPEC)
    return objective, Model(architecture, objective.head(architecture), objective.protocol)


def batch_of(*lengths: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(1, 11, (len(lengths), 7))
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    return {"tokens": tokens, "length": torch.tensor(lengths)}


def by_hand(model: Model, batch: dict[str, torch.Tensor], positions: str) -> list[list[float]]:
    """Loss of each counted token of each row, one row and one token at a time."""
    rows = []
    for tokens, length in zip(batch["tokens"], batch["length"].tolist(), strict=True):
        losses = []
        for place in range(1, length) if positions == "all" else range(max(1, length - 1), length):
            vector = model.architecture.sequence(tokens[None, :place])[:, -1]
            losses.append(-model.head(vector).log_softmax(-1)[0, tokens[place]])
        rows.append(losses)
    return rows


@pytest.mark.parametrize("positions", ["all", "last"])
def test_loss_of_ragged_rows_equals_the_sum_over_single_tokens(positions):
    objective, model = build(positions)
    batch = batch_of(7, 3, 1, 2)
    loss = objective.loss(model(**objective.inputs(batch)), batch)
    expected = [value for row in by_hand(model, batch, positions) for value in row]
    assert int(loss.weight) == len(expected) == (9 if positions == "all" else 3)
    torch.testing.assert_close(loss.total, torch.stack(expected).sum())


@pytest.mark.parametrize("positions", ["all", "last"])
def test_rows_without_lengths_count_in_full(positions):
    objective, model = build(positions)
    ragged = batch_of(7, 7)
    full = {"tokens": ragged["tokens"]}
    one = objective.loss(model(**objective.inputs(full)), full)
    other = objective.loss(model(**objective.inputs(ragged)), ragged)
    assert one.weight == int(other.weight) == (12 if positions == "all" else 2)
    torch.testing.assert_close(one.total, other.total)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_divided_loss_sum_has_the_gradient_of_the_mean_loss(positions):
    objective, model = build(positions)
    batch = {"tokens": batch_of(7, 7, 7)["tokens"]}
    parameters = list(model.parameters())
    outputs = model(**objective.inputs(batch))
    loss = objective.loss(outputs, batch)
    gradient = torch.autograd.grad(loss.total / loss.weight, parameters, retain_graph=True)
    targets = batch["tokens"][:, 1:] if positions == "all" else batch["tokens"][:, -1]
    expected = torch.autograd.grad(F.cross_entropy(outputs.reshape(-1, 11), targets.reshape(-1)), parameters)
    for one, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_counted_gives_zero_and_no_gradient():
    objective, model = build()
    batch = batch_of(1, 1)
    loss = objective.loss(model(**objective.inputs(batch)), batch)
    loss.total.backward()
    assert (loss.total.item(), int(loss.weight)) == (0.0, 0)
    assert all(not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("positions", ["all", "last"])
def test_metrics_over_batches_equal_those_of_all_tokens_together(positions):
    objective, model = build(positions)
    metrics = objective.metrics()
    losses, hits = [], []
    for batch in (batch_of(7, 3), batch_of(1, 5, 2)):
        outputs = model(**objective.inputs(batch))
        objective.update_metrics(metrics, outputs, batch)
        losses += [value.item() for row in by_hand(model, batch, positions) for value in row]
        targets = objective.targets(batch)
        hits += (outputs.argmax(-1) == targets)[targets >= 0].tolist()
    assert metrics["perplexity"].compute().item() == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert metrics["accuracy"].compute().item() == pytest.approx(sum(hits) / len(hits))


def test_needs_a_causal_network_only_where_every_position_predicts():
    assert (build("all")[0].needs_causal, build("all")[0].protocol) == (True, "sequence")
    assert (build("last")[0].needs_causal, build("last")[0].protocol) == (False, "features")


def test_tied_head_shares_the_embedding_and_is_counted_once():
    objective, model = build(tied=True)
    assert model.head.weight is model.architecture.embedding.weight
    assert objective.check(model.architecture) == ()
    separate = build()[1]
    count = [sum(p.numel() for p in one.parameters()) for one in (model, separate)]
    assert count[1] - count[0] == 11 * 8


@pytest.mark.parametrize("bias", [False, True])
def test_bias_is_an_option(bias):
    assert (build(bias=bias)[1].head.bias is not None) is bias


def test_embedding_of_another_width_cannot_be_tied():
    class Wide(Architecture):
        width = 8

        def input_embedding(self):
            return nn.Embedding(11, 5)

    (problem,) = build()[0].check(Wide(None, SPEC))
    assert str(problem) == (
        "architecture: the output layer is (11, 8), but the embedding it shall share is (11, 5)\n"
        "    do not tie the embedding, or make it as wide as the network"
    )


@pytest.mark.parametrize("positions", ["all", "last"])
def test_predictions_tell_each_rows_loss_and_the_likeliest_last_token(positions):
    objective, model = build(positions)
    batch = batch_of(7, 3, 1)
    records = objective.predictions(model(**objective.inputs(batch)), batch)
    for record, losses, tokens, length in zip(
        records, by_hand(model, batch, positions), batch["tokens"], [7, 3, 1], strict=True
    ):
        if not losses:
            assert record["loss"] is record["perplexity"] is None
            continue
        assert record["loss"] == pytest.approx(sum(losses).item() / len(losses), rel=1e-5)
        assert record["perplexity"] == pytest.approx(math.exp(record["loss"]))
        likely = model.head(model.architecture.sequence(tokens[None, : length - 1])[:, -1]).softmax(-1)[0]
        assert record["prediction"] == int(likely.argmax())
        assert record["probability"] == pytest.approx(likely.max().item(), rel=1e-5)


def test_generation_needs_a_tokenizer():
    objective, model = build()
    with pytest.raises(
        UnsupportedError, match=r"^objective CLM generates text, which needs the tokenizer it was trained with; where"
    ):
        objective.generate(model, GenerateRequest())
