"""Mixture of experts: the sum over a dense loop, an even use, and a penalty that reaches the loss once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformer_made import close, make, tokens

from torchloom.contracts.attention import AttentionMask
from torchloom.errors import ConfigError
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.layers import Experts


def experts(count: int = 4, per_token: int = 2) -> Experts:
    torch.manual_seed(0)
    config = DecoderConfig(d_model=8, experts=count, experts_per_token=per_token)
    made = Experts(config).double()
    nn.init.normal_(made.router.weight)
    return made


def vectors(batch: int = 3, length: int = 5) -> Tensor:
    return torch.randn(batch, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("count", "per_token"), [(4, 1), (4, 2), (4, 4), (1, 1)])
def test_it_equals_a_loop_over_tokens(count: int, per_token: int) -> None:
    layer, x = experts(count, per_token), vectors()
    given = layer(x)
    for row in range(3):
        for place in range(5):
            token = x[row, place]
            exponentials = (layer.router.weight @ token).detach().exp().tolist()
            probabilities = [one / sum(exponentials) for one in exponentials]
            best = sorted(range(count), key=lambda number: -probabilities[number])[:per_token]
            whole = sum(probabilities[number] for number in best) if per_token > 1 else 1.0
            wanted = sum(probabilities[number] / whole * layer.experts[number](token) for number in best)
            torch.testing.assert_close(given[row, place], wanted, rtol=1e-9, atol=1e-12)


def test_a_tokens_weights_sum_to_one_and_fall_on_different_experts() -> None:
    weight, chosen = experts(count=6, per_token=3).route(vectors().flatten(0, 1))
    torch.testing.assert_close(weight.sum(-1), torch.ones(15, dtype=torch.float64))
    assert (weight > 0).all()
    assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_a_single_experts_weight_is_its_probability_so_that_the_router_learns() -> None:
    layer = experts(per_token=1)
    layer(vectors()).square().sum().backward()
    assert layer.router.weight.grad.abs().sum() > 0


def test_balance_is_one_for_even_and_all_experts_for_one_alone() -> None:
    layer = experts(per_token=1)
    x = torch.eye(8, dtype=torch.float64)[:4].repeat(3, 1)[None]  # three tokens of each of four sorts
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[:, :4] = 1e-9 * torch.eye(4)  # each sort has an expert, all but equally probable
        layer(x)
        assert layer.balance.item() == pytest.approx(1.0)
        layer.router.weight.zero_()
        layer.router.weight[2] = 100.0
        layer(x)
        assert layer.balance.item() == pytest.approx(4.0)


def test_balance_pulls_towards_even_use() -> None:
    layer, x = experts(), vectors(20)
    before = None
    for _ in range(200):
        layer(x)
        before = before or layer.balance.item()
        (gradient,) = torch.autograd.grad(layer.balance, layer.router.weight)
        with torch.no_grad():
            layer.router.weight -= gradient
    assert before > layer.balance.item()
    assert layer.balance.item() == pytest.approx(1.0, abs=0.05)


def test_gradients_reach_every_used_expert_and_no_other() -> None:
    layer, x = experts(count=8), vectors(1, 2)
    _, chosen = layer.route(x.flatten(0, 1))
    layer(x).square().sum().backward()
    for number, expert in enumerate(layer.experts):
        # The unused have a gradient of zero rather than none, as data-parallel training needs.
        assert all(bool(p.grad.any()) == (number in chosen) for p in expert.parameters())


def test_padding_goes_to_no_expert() -> None:
    layer, x, lengths = experts(), vectors(), torch.tensor([5, 2, 1])
    padded = layer(x, AttentionMask(key_lengths=lengths))
    balance = layer.balance
    flat = torch.cat([x[row, :length] for row, length in enumerate(lengths)])[None]
    alone = layer(flat)
    torch.testing.assert_close(torch.cat([padded[row, :length] for row, length in enumerate(lengths)])[None], alone)
    torch.testing.assert_close(balance, layer.balance)
    assert not padded[1, 2:].any()


def test_bfloat16_stays_near_double() -> None:
    layer, x = experts(per_token=4), vectors()
    wanted = layer(x)
    given = layer.bfloat16()(x.bfloat16())
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given.double(), wanted, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("form", ["decoder", "encoder", "encoder_decoder"])
def test_the_penalty_is_the_weighted_mean_of_all_blocks(form: str) -> None:
    network = make(form, experts=3, expert_balance=0.5).train()
    forward(network)
    layers = [one for one in network.modules() if isinstance(one, Experts)]
    assert len(layers) == len(network.blocks())
    wanted = 0.5 * torch.stack([one.balance for one in layers]).mean()
    if form == "encoder_decoder":  # each of the two stacks has a mean
        wanted = 2 * wanted
    torch.testing.assert_close(network.penalty(), wanted)
    assert make(form).penalty() is None
    without = make(form, experts=3, expert_balance=0.0)
    forward(without)
    assert without.penalty() is None


def forward(network: Any) -> Tensor:
    if hasattr(network, "encoder"):
        return network.seq2seq(tokens(), tokens(seed=2))
    return network.sequence(tokens())


def test_with_recurrence_each_step_counts() -> None:
    decoder = make("decoder", experts=3, recurrence="fixed", recurrent_steps=4, expert_balance=1.0)
    seen: list[Tensor] = []
    for block in decoder.blocks():
        block.feed_forward.register_forward_hook(lambda layer, *_: seen.append(layer.balance))
    decoder.sequence(tokens())
    assert len(seen) == 8
    torch.testing.assert_close(decoder.penalty(), torch.stack(seen).mean())


@pytest.mark.parametrize("recurrence", ["none", "fixed", "learned"])
def test_recomputed_activations_neither_lose_nor_double_the_penalty(recurrence: str) -> None:
    options = {"experts": 3, "expert_balance": 3.0, "ponder_cost": 2.0, "recurrence": recurrence, "recurrent_steps": 3}
    results = []
    for recomputed in (False, True):
        decoder = make("decoder", **options).train()
        if recomputed:
            for block in decoder.blocks():
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        for _ in range(2):  # the second step must not hold on to the first
            decoder.zero_grad()
            loss = decoder.sequence(tokens()).square().mean() + decoder.penalty()
            loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in decoder.parameters()]))
    (plain, plain_grads), (again, again_grads) = results
    torch.testing.assert_close(again, plain, rtol=1e-12, atol=1e-12)
    for one, other in zip(again_grads, plain_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_more_experts_a_token_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        make("decoder", experts=3, experts_per_token=4)
    assert str(caught.value) == (
        "architecture.experts_per_token: 4 cannot be chosen of experts=3\n    choose fewer, or more experts"
    )


def test_a_cache_changes_nothing() -> None:
    decoder, ids = make("decoder", experts=3), tokens()
    with torch.no_grad():
        state = decoder.new_state(3, 12)
        parts = [decoder.sequence(ids[:, place : place + 1], state=state) for place in range(12)]
        close(torch.cat(parts, 1), decoder.sequence(ids))
