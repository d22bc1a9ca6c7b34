"""What every objective does, tried on the smallest network there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchloom.component import Component
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch, EpochKey, TensorSplit
from torchloom.contracts.objective import GenerateRequest, LossSum, ManualObjective, Model, Objective
from torchloom.contracts.spec import ImageSpec, Seq2SeqSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, UnsupportedError
from torchloom.testing.support import SPECS, TinyNetwork, TinyPair, batch_of, default_config, each, load


class Letters(Tokenizer):
    """One letter a token id, for objectives that write text."""

    trained = True
    vocab_size = 17

    def train(self, texts: Any) -> None:
        """Nothing is learnt."""

    def encode(self, text: str) -> Tensor:
        """Return the letters' places in the alphabet."""
        return torch.tensor([(ord(letter) - ord("a")) % self.vocab_size for letter in text], dtype=torch.int64)

    def decode(self, ids: Any) -> str:
        """Return the letters at these places."""
        return "".join(chr(ord("a") + int(one)) for one in ids)

    def state(self) -> str:
        """Return nothing: there is none."""
        return ""

    def load_state(self, state: str) -> None:
        """Take nothing back."""


def built(component: Component) -> tuple[Objective, Model]:
    """Build an objective on the first spec that it takes, and a model for it."""
    cls = load(component)
    refusals = []
    for spec in SPECS:
        if not isinstance(spec, cls.accepts):
            continue
        try:
            objective: Objective = cls(default_config(component), spec)
        except ConfigError as error:
            refusals.append(str(error))
            continue
        architecture = tiny(objective, spec)
        assert list(objective.check(architecture)) == []
        torch.manual_seed(0)
        return objective, Model(architecture, objective.head(architecture), objective.protocol)
    return pytest.skip("; ".join(refusals) or f"the suite has no examples of {cls.accepts}")


def tiny(objective: Objective, spec: Spec) -> Architecture:
    if objective.protocol == "adversarial_pair":
        assert isinstance(spec, ImageSpec)
        return TinyPair(spec)
    if objective.protocol not in TinyNetwork.protocols:
        pytest.skip(f"the suite has no network of the protocol {objective.protocol!r}")
    return TinyNetwork(spec, causal=objective.needs_causal)


def automatic(component: Component) -> tuple[Objective, Model]:
    objective, model = built(component)
    if objective.manual:
        pytest.skip("takes its own steps")
    return objective, model


def by_hand(component: Component) -> tuple[ManualObjective, Model]:
    objective, model = built(component)
    if not isinstance(objective, ManualObjective):
        pytest.skip("takes no steps of its own")
    return objective, model


def examples_of(objective: Objective, size: int) -> Batch:
    """Return what an objective makes of random examples of its spec."""
    split = TensorSplit(**batch_of(objective.spec, size))
    return objective.examples(split).batch(torch.arange(size))


def rows(batch: Batch, places: slice) -> Batch:
    return {name: value[places] for name, value in batch.items()}


def loss_of(objective: Objective, model: Model, batch: Batch) -> LossSum:
    return objective.loss(model(**objective.inputs(batch)), batch)


@each("objective")
class TestObjective:
    """Loss, metrics, predictions and generation."""

    def test_watches_a_metric_of_the_validation(self, component: Component) -> None:
        name, more_is_better = built(component)[0].monitor
        assert name.startswith("val/")
        assert isinstance(more_is_better, bool)

    def test_losses_of_parts_add_up_to_the_loss_of_all(self, component: Component) -> None:
        objective, model = automatic(component)
        model.eval()  # dropout draws anew each time
        batch = examples_of(objective, 7)
        whole = loss_of(objective, model, batch)
        parts = [loss_of(objective, model, rows(batch, places)) for places in (slice(0, 2), slice(2, 7))]
        assert whole.total.ndim == 0
        assert float(whole.weight) > 0
        torch.testing.assert_close(sum(part.total for part in parts), whole.total)
        assert sum(float(part.weight) for part in parts) == float(whole.weight)

    def test_examples_hang_on_their_numbers_alone(self, component: Component) -> None:
        objective, _ = built(component)
        split = objective.examples(TensorSplit(**batch_of(objective.spec, 7)))
        for key in (None, EpochKey(3, 1)):
            whole = split.batch(torch.arange(7), key)
            order = torch.tensor([5, 2])
            part = split.batch(order, key)
            assert part.keys() == whole.keys()
            for name, value in part.items():
                expected = whole[name][order]
                if value.ndim == 2:  # rows are filled up to the longest of their batch
                    expected = expected[:, : value.shape[1]]
                assert torch.equal(value, expected), name

    def test_learning_one_batch_lowers_its_loss(self, component: Component) -> None:
        objective, model = automatic(component)
        batch = examples_of(objective, 8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        losses = []
        for _ in range(30):
            loss = loss_of(objective, model, batch)
            mean = loss.total / loss.weight
            optimizer.zero_grad()
            mean.backward()
            optimizer.step()
            losses.append(float(mean.detach()))
        assert losses[-1] < 0.8 * losses[0]

    def test_metrics_add_up_over_batches(self, component: Component) -> None:
        objective, model = automatic(component)
        model.eval()
        batch = examples_of(objective, 8)
        values = []
        with torch.no_grad():
            for cuts in ([slice(0, 8)], [slice(0, 3), slice(3, 8)]):
                metrics = objective.metrics()
                for places in cuts:
                    part = rows(batch, places)
                    objective.update_metrics(metrics, model(**objective.inputs(part)), part)
                values.append({name: metric.compute() for name, metric in metrics.items()})
        torch.testing.assert_close(values[0], values[1])

    def test_predicts_one_plain_record_an_example(self, component: Component) -> None:
        objective, model = automatic(component)
        model.eval()
        batch = examples_of(objective, 5)
        with torch.no_grad():
            outputs = model(**objective.inputs(batch))
        try:
            records = objective.predictions(outputs, batch)
        except UnsupportedError as error:
            pytest.skip(str(error))
        assert len(records) == 5
        plain = (str, int, float, bool, list, dict, type(None))
        assert all(isinstance(value, plain) for record in records for value in record.values())

    def test_generates_as_many_samples_as_asked_for(self, component: Component) -> None:
        objective, model = built(component)
        model.eval()
        tokenizer = Letters(None) if isinstance(objective.spec, TokenSpec | Seq2SeqSpec) else None
        made = []
        for _ in range(2):
            request = GenerateRequest(
                num_samples=3, prompts=["abc"], max_new_tokens=5, generator=torch.Generator().manual_seed(1)
            )
            try:
                with torch.no_grad():
                    made.append(objective.generate(model, request, tokenizer))
            except UnsupportedError as error:
                pytest.skip(str(error))
        one, other = made
        assert one.texts == other.texts
        if one.images is None:
            assert len(one.texts) == 3
            if objective.continues:
                assert all(text.startswith("abc") for text in one.texts)
        else:
            assert len(one.images) == 3
            assert one.images.min() >= 0
            assert one.images.max() <= 1
            assert other.images is not None
            assert torch.equal(one.images, other.images)

    def test_players_share_no_parameter_and_leave_none(self, component: Component) -> None:
        objective, model = by_hand(component)
        held = [set(objective.parameters(model, role)) for role in objective.roles]
        assert sum(map(len, held)) == len(set().union(*held))
        learning = {one for one in model.parameters() if one.requires_grad}
        assert set().union(*held) == learning

    def test_a_step_changes_every_player(self, component: Component) -> None:
        objective, model = by_hand(component)
        optimizers = {
            role: torch.optim.SGD(list(objective.parameters(model, role)), lr=0.1) for role in objective.roles
        }
        before = {role: [one.detach().clone() for one in objective.parameters(model, role)] for role in objective.roles}

        def optimizer_step(role: str) -> None:
            optimizers[role].step()
            optimizers[role].zero_grad()

        logged = objective.step(model, batch_of(objective.spec, 6), lambda loss: loss.backward(), optimizer_step)
        assert logged
        assert all(value.ndim == 0 and not value.requires_grad and value.isfinite() for value in logged.values())
        for role in objective.roles:
            after = list(objective.parameters(model, role))
            assert any(not torch.equal(old, new) for old, new in zip(before[role], after, strict=True)), role

    def test_watching_a_pair_changes_nothing_and_repeats_itself(self, component: Component) -> None:
        objective, model = by_hand(component)
        model.eval()
        batch = batch_of(objective.spec, 6)
        state = torch.random.get_rng_state()
        with torch.no_grad():
            one, other = objective.evaluate(model, batch), objective.evaluate(model, batch)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(one.total, other.total)
        assert float(one.weight) > 0


@each("objective")
def test_head_is_new_each_time(component: Component) -> None:
    objective, model = built(component)
    heads = [objective.head(model.architecture) for _ in range(2)]
    if heads[0] is None:
        pytest.skip("the architecture's output is used as it is")
    assert isinstance(heads[0], nn.Module)
    assert heads[0] is not heads[1]
