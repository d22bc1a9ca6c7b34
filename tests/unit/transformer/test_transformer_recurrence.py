"""Recurrent depth: a loop by hand, weights of halting that sum to one, and one checkpoint for any number of steps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformer_made import close, make, tokens

from torchloom.contracts.attention import AttentionMask
from torchloom_transformer.positions import sinusoidal

CPU = torch.device("cpu")


def recurrent(how: str, steps: int, form: str = "decoder", **options: Any) -> Any:
    """Return a recurrent network without RoPE, so that its stack is easily applied by hand."""
    options = {"positions": "learned", **options}
    return make(form, recurrence=how, recurrent_steps=steps, **options)


def states(network: Any, ids: Tensor, steps: int, mask: AttentionMask) -> list[Tensor]:
    """Return what stands behind each step, the blocks applied in a plain loop."""
    x, found = network.embeddings(ids), []
    for step in range(steps):
        x = x + sinusoidal(step, 1, 16, CPU).double()
        for block in network.blocks():
            x = block(x, mask)
        found.append(x)
    return found


@pytest.mark.parametrize("form", ["decoder", "encoder"])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_fixed_number_of_steps_equals_a_loop(form: str, steps: int) -> None:
    network, ids = recurrent("fixed", steps, form), tokens()
    last = states(network, ids, steps, AttentionMask(causal=form == "decoder"))[-1]
    torch.testing.assert_close(network.sequence(ids), network.stack.norm(last), rtol=1e-9, atol=1e-11)
    assert network.penalty() is None


@pytest.mark.parametrize("how", ["fixed", "learned"])
def test_one_step_is_no_recurrence(how: str) -> None:
    network, plain = recurrent(how, 1), recurrent("none", 4)
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if "halt" not in key}, strict=True)
    torch.testing.assert_close(network.sequence(tokens()), plain.sequence(tokens()), rtol=1e-12, atol=1e-12)


def halting(network: Any, found: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return each step's weight and the expected number of steps, both a position, from the definition."""
    stop = [torch.sigmoid(network.stack.halt(one))[..., 0] for one in found[:-1]]
    weights, left = [], torch.ones(found[0].shape[:2], dtype=torch.float64)
    for one in stop:
        weights.append(left * one)
        left = left * (1 - one)
    stacked = torch.stack([*weights, left])
    return stacked, (stacked * torch.arange(1, len(found) + 1)[:, None, None]).sum(0)


@pytest.mark.parametrize("form", ["decoder", "encoder"])
def test_learned_halting_mixes_the_steps(form: str) -> None:
    network, ids = recurrent("learned", 4, form, ponder_cost=0.7), tokens()
    nn.init.normal_(network.stack.halt.weight, std=1.0)
    found = states(network, ids, 4, AttentionMask(causal=form == "decoder"))
    weights, steps = halting(network, found)
    torch.testing.assert_close(weights.sum(0), torch.ones(3, 12, dtype=torch.float64))
    mixed = sum(weight[..., None] * one for weight, one in zip(weights, found, strict=True))
    torch.testing.assert_close(network.sequence(ids), network.stack.norm(mixed), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(network.stack.ponder, steps.mean(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(network.penalty(), 0.7 * steps.mean(), rtol=1e-9, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(bias=st.floats(-40, 40), steps=st.integers(1, 5))
def test_the_mean_number_of_steps_lies_between_one_and_all(bias: float, steps: int) -> None:
    network = recurrent("learned", steps)
    with torch.no_grad():
        network.stack.halt.bias.fill_(bias)
        network.sequence(tokens())
    assert 1 - 1e-9 <= network.stack.ponder.item() <= steps + 1e-9


def test_who_always_stops_takes_one_step_and_who_never_does_takes_all() -> None:
    network, ids = recurrent("learned", 3), tokens()
    found = states(network, ids, 3, AttentionMask(causal=True))
    for bias, steps, state in ((100.0, 1, found[0]), (-100.0, 3, found[-1])):
        nn.init.zeros_(network.stack.halt.weight)
        nn.init.constant_(network.stack.halt.bias, bias)
        torch.testing.assert_close(network.sequence(ids), network.stack.norm(state), rtol=1e-9, atol=1e-11)
        assert network.stack.ponder.item() == pytest.approx(steps)


def test_padding_does_not_ponder() -> None:
    network, ids, lengths = recurrent("learned", 4, "encoder"), tokens(), torch.tensor([12, 5, 1])
    nn.init.normal_(network.stack.halt.weight, std=1.0)
    total = 0.0
    for row, length in enumerate(lengths.tolist()):
        network.sequence(ids[row : row + 1, :length])
        total += length * network.stack.ponder.item()
    network.sequence(ids, mask=AttentionMask(key_lengths=lengths))
    assert network.stack.ponder.item() == pytest.approx(total / 18)


def test_the_cost_of_steps_teaches_to_stop() -> None:
    network, ids = recurrent("learned", 4, ponder_cost=1.0), tokens()
    network.sequence(ids)
    before = network.stack.ponder.item()
    network.penalty().backward()
    with torch.no_grad():
        for parameter in network.stack.halt.parameters():
            parameter -= parameter.grad
    network.sequence(ids)
    assert network.stack.ponder.item() < before


@pytest.mark.parametrize("how", ["fixed", "learned"])
@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4))
def test_a_cache_changes_nothing_however_the_tokens_are_fed(how: str, cuts: list[int]) -> None:
    network, ids = make("decoder", recurrence=how, recurrent_steps=3), tokens()
    with torch.no_grad():
        state = network.new_state(3, 12)
        assert len(state.layers) == 6  # each step has keys of its own
        edges = [0, *sorted(set(cuts)), 12]
        parts = [network.sequence(ids[:, start:end], state=state) for start, end in pairwise(edges)]
        close(torch.cat(parts, 1), network.sequence(ids))


@pytest.mark.parametrize("how", ["none", "fixed", "learned"])
def test_a_reordered_cache_goes_on_from_other_rows(how: str) -> None:
    network, ids, rows = make("decoder", recurrence=how, recurrent_steps=3), tokens(), torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        state = network.new_state(3, 12)
        network.sequence(ids[:, :7], state=state)
        state.reorder(rows)
        close(network.sequence(ids[rows, 7:], state=state), network.sequence(ids[rows])[:, 7:])
    assert state.length == 12


@pytest.mark.parametrize("how", ["fixed", "learned"])
def test_one_checkpoint_serves_any_number_of_steps(how: str) -> None:
    few, many = recurrent(how, 2), recurrent(how, 6)
    assert not torch.isclose(few.sequence(tokens()), many.sequence(tokens())).all()
    many.load_state_dict(few.state_dict(), strict=True)
    assert sum(p.numel() for p in many.parameters()) == sum(p.numel() for p in few.parameters())
    few.stack.steps = 6
    torch.testing.assert_close(many.sequence(tokens()), few.sequence(tokens()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", ["fixed", "learned"])
def test_every_parameter_learns(how: str) -> None:
    network = recurrent(how, 3)
    vectors = network.sequence(tokens())
    (vectors * torch.randn_like(vectors)).sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
