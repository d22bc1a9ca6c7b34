"""Next-sentence prediction, alone and with hidden tokens: equal to what is worked out by hand."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from torchloom.contracts.dataset import EpochKey, TensorSplit
from torchloom.contracts.objective import Model
from torchloom.contracts.spec import SentencePairSpec
from torchloom.errors import ConfigError
from torchloom.testing.support import TinyNetwork, batch_of
from torchloom_objectives.configs import NSPConfig
from torchloom_objectives.masking import IGNORED
from torchloom_objectives.nsp import NSP

SPEC = SentencePairSpec(vocab_size=17, context_length=12, mask_id=1, pad_id=0)
KEY = EpochKey(0, 0)


def pairs(count=5):
    """Return pairs of which the first is padded from position 7 on and the second is nothing but padding."""
    batch = batch_of(SPEC, count)
    batch["length"][:2] = torch.tensor([7, 1])
    batch["tokens"][0, 7:] = batch["tokens"][1] = SPEC.pad_id
    return TensorSplit(**batch)


def built(objective):
    network = TinyNetwork(SPEC, causal=False)
    return Model(network, objective.head(network), objective.protocol)


def run(objective, split):
    batch = objective.examples(split).batch(torch.arange(len(split)), KEY)
    model = built(objective)
    everywhere = model.head(model.architecture.sequence(batch["tokens"])).get("tokens")
    return batch, model(**objective.inputs(batch)), everywhere


def follows_by_hand(outputs, batch):
    return [-row.log_softmax(-1)[label] for row, label in zip(outputs["follows"], batch["label"], strict=True)]


def test_alone_it_is_the_cross_entropy_of_the_first_position():
    objective = NSP(NSPConfig(), SPEC)
    split = pairs()
    batch, outputs, _ = run(objective, split)
    assert torch.equal(batch["tokens"], split.tensors["tokens"])  # nothing is hidden
    assert set(outputs) == {"follows"}
    assert outputs["follows"].shape == (5, 2)
    loss = objective.loss(outputs, batch)
    assert_close(loss.total, torch.stack(follows_by_hand(outputs, batch)).sum())
    assert loss.weight == 5
    assert objective.monitor == ("val/accuracy", True)


def test_with_hidden_tokens_each_pairs_mean_over_them_is_added():
    objective = NSP(NSPConfig(mlm=True, share=0.4), SPEC)
    batch, outputs, everywhere = run(objective, pairs())
    follows = follows_by_hand(outputs, batch)
    means, losses = [], []
    for row in range(5):
        places = (batch["targets"][row] != IGNORED).nonzero().flatten().tolist()
        own = [-everywhere[row, place].log_softmax(-1)[batch["targets"][row, place]] for place in places]
        losses += own
        if own:
            means.append(torch.stack(own).mean())
    assert len(means) == 4  # the pair of padding hides nothing and adds nothing
    loss = objective.loss(outputs, batch)
    assert_close(loss.total, torch.stack(follows).sum() + torch.stack(means).sum())
    assert loss.weight == 5
    assert_close(loss.metrics["nsp_loss"], torch.stack(follows).sum())
    assert_close(loss.metrics["mlm_loss"], torch.stack(means).sum())
    assert objective.monitor == ("val/loss", False)

    metrics = objective.metrics()
    objective.update_metrics(metrics, outputs, batch)
    hidden = batch["targets"] != IGNORED
    guessed = everywhere.argmax(-1)[hidden] == batch["targets"][hidden]
    assert_close(metrics["mlm_perplexity"].compute(), torch.stack(losses).mean().exp(), check_dtype=False)
    assert_close(metrics["mlm_accuracy"].compute(), guessed.float().mean())
    assert_close(metrics["accuracy"].compute(), (outputs["follows"].argmax(-1) == batch["label"]).float().mean())


def test_hidden_tokens_stand_in_neither_padding_nor_special_tokens():
    split = pairs(300)
    before = split.tensors["tokens"]
    batch = NSP(NSPConfig(mlm=True, share=1.0), SPEC).examples(split).batch(torch.arange(300), KEY)
    hidden = batch["targets"] != IGNORED
    assert torch.equal(hidden, before > 1)
    assert torch.equal(batch["tokens"][~hidden], before[~hidden])
    for name in ("segments", "label", "length"):
        assert torch.equal(batch[name], split.tensors[name])


def test_sums_of_two_batches_are_the_sum_of_both_together():
    objective = NSP(NSPConfig(mlm=True), SPEC)
    batch = objective.examples(pairs(9)).batch(torch.arange(9), KEY)
    model = built(objective)
    parts = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 9), slice(0, 2), slice(2, 9))]
    whole, *losses = (objective.loss(model(**objective.inputs(part)), part) for part in parts)
    assert_close(sum(loss.total for loss in losses), whole.total)
    assert sum(loss.weight for loss in losses) == whole.weight


def test_predictions_are_the_probability_of_following():
    outputs = {"follows": torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0]])}
    records = NSP(NSPConfig(), SPEC).predictions(outputs, {})
    assert [record["prediction"] for record in records] == [False, True, False]
    probabilities = torch.tensor([record["probability"] for record in records])
    assert_close(probabilities, torch.tensor([0.0, 2.0, -3.0]).sigmoid())


def test_a_causal_network_is_refused():
    objective = NSP(NSPConfig(), SPEC)
    assert not list(objective.check(TinyNetwork(SPEC, causal=False)))
    (problem,) = objective.check(TinyNetwork(SPEC, causal=True))
    assert str(ConfigError([problem])) == (
        "objective=nsp: reads the answer from the first position, where a causal architecture has seen nothing yet\n"
        "    choose one that looks both ways: architecture=encoder"
    )


def test_hiding_needs_a_mask_token_and_following_does_not():
    without = dataclasses.replace(SPEC, mask_id=None)
    NSP(NSPConfig(), without)
    with pytest.raises(ConfigError, match="objective=nsp hides tokens behind the special token mask"):
        NSP(NSPConfig(mlm=True), without)
