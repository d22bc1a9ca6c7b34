"""Forecasts: losses and errors worked out by hand, and training beyond the last value repeated."""

import pytest
import torch
from torch.testing import assert_close

from torchloom.contracts.objective import Model
from torchloom.contracts.spec import SeriesSpec
from torchloom.errors import ConfigError
from torchloom.testing.support import TinyNetwork, batch_of
from torchloom_objectives.configs import ForecastConfig
from torchloom_objectives.forecast import Forecast
from torchloom_recurrent.configs import LSTMConfig
from torchloom_recurrent.recurrent import LSTM

SPEC = SeriesSpec(channels=2, context_length=12, horizon=3)


@pytest.mark.parametrize(("name", "power"), [("mse", 2), ("mae", 1)])
def test_loss_is_each_examples_mean_difference_summed(name, power):
    objective = Forecast(ForecastConfig(loss=name), SPEC)
    network = TinyNetwork(SPEC)
    batch = batch_of(SPEC, 5)
    outputs = Model(network, objective.head(network), objective.protocol)(**objective.inputs(batch))
    assert outputs.shape == batch["future"].shape == (5, 3, 2)
    loss = objective.loss(outputs, batch)
    by_hand = sum(((outputs[row] - batch["future"][row]).abs() ** power).sum() / 6 for row in range(5))
    assert_close(loss.total, by_hand)
    assert loss.weight == 5


def test_errors_beside_that_of_the_last_real_value_repeated():
    objective = Forecast(ForecastConfig(), SeriesSpec(channels=1, context_length=4, horizon=2))
    series = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 7.0, 0.0, 0.0]])[..., None]
    future = torch.tensor([[6.0, 3.0], [8.0, 7.0]])[..., None]
    outputs = future + torch.tensor([[1.0, -2.0], [0.0, 3.0]])[..., None]
    for length, naive in ((None, (2 + 1 + 8 + 7) / 4), (torch.tensor([4, 2]), (2 + 1 + 1 + 0) / 4)):
        batch = {"series": series, "future": future} | ({} if length is None else {"length": length})
        metrics = objective.metrics()
        objective.update_metrics(metrics, outputs, batch)
        assert metrics["mae"].compute() == 6 / 4
        assert metrics["naive_mae"].compute() == naive


def test_predictions_are_the_next_values():
    outputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert Forecast(ForecastConfig(), SPEC).predictions(outputs, {}) == [{"prediction": [[1.0, 2.0], [3.0, 4.0]]}]


def test_a_dataset_without_horizon_is_refused():
    with pytest.raises(ConfigError) as caught:
        Forecast(ForecastConfig(), SeriesSpec(channels=2, context_length=12))
    assert str(caught.value) == (
        "objective=forecast: predicts what comes next, but the dataset's examples have no horizon\n"
        "    choose dataset=timeseries"
    )


def test_an_lstm_learns_waves_that_the_last_value_does_not_tell():
    spec = SeriesSpec(channels=1, context_length=24, horizon=4)
    waves = torch.sin(torch.arange(28) * 0.5 + torch.rand(256, 1, generator=torch.Generator().manual_seed(0)) * 6.28)
    batch = {"series": waves[:, :24, None], "future": waves[:, 24:, None]}
    objective = Forecast(ForecastConfig(), spec)
    torch.manual_seed(0)
    network = LSTM(LSTMConfig(embedding_dim=8, hidden_size=16), spec)
    model = Model(network, objective.head(network), objective.protocol)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = objective.loss(model(**objective.inputs(batch)), batch)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
    metrics = objective.metrics()
    objective.update_metrics(metrics, model(**objective.inputs(batch)).detach(), batch)
    assert metrics["mae"].compute() < 0.25 * metrics["naive_mae"].compute()
