import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchloom_training.configs import ConstantConfig, CosineConfig, StepConfig
from torchloom_training.schedulers import Constant, Cosine, Step

STEPS = st.integers(0, 5000)
TOTALS = st.integers(1, 4000)
WARMUPS = st.integers(0, 5000)
FACTORS = st.floats(0, 1)


def nanogpt(it: int, learning_rate: float, min_lr: float, warmup_iters: int, lr_decay_iters: int) -> float:
    """The schedule of nanoGPT's train.py."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
    return min_lr + coeff * (learning_rate - min_lr)


@given(STEPS, TOTALS, WARMUPS, FACTORS)
def test_every_factor_lies_above_zero_or_the_floor_and_at_most_at_the_peak(step, total, warmup, low):
    cosine = Cosine(CosineConfig(warmup_steps=warmup, min_factor=low)).factor(step, total)
    assert min(low, 1 / (warmup + 1)) <= cosine <= 1
    assert 0 < Constant(ConstantConfig(warmup_steps=warmup)).factor(step, total) <= 1
    assert 0 <= Step(StepConfig(step_size=warmup + 1, gamma=max(low, 1e-3))).factor(step, total) <= 1


@given(STEPS, WARMUPS, st.integers(1, 4000), FACTORS)
def test_cosine_equals_nanogpts_schedule(step, warmup, rest, low):
    factor = Cosine(CosineConfig(warmup_steps=warmup, min_factor=low)).factor(step, warmup + rest)
    assert 3e-4 * factor == pytest.approx(nanogpt(step, 3e-4, low * 3e-4, warmup, warmup + rest), rel=1e-9, abs=1e-15)


@given(WARMUPS, st.integers(2, 4000), FACTORS)
def test_cosine_has_no_jump_and_ends_at_its_floor(warmup, rest, low):
    cosine = Cosine(CosineConfig(warmup_steps=warmup, min_factor=low))
    total = warmup + rest
    assert cosine.factor(warmup, total) == 1
    assert cosine.factor(total, total) == cosine.factor(total + 7, total) == low
    for step in {max(0, warmup - 1), warmup, total - 1}:
        change = abs(cosine.factor(step + 1, total) - cosine.factor(step, total))
        assert change <= max(1 / (warmup + 1), (1 - low) * math.pi / 2 / rest) + 1e-12


@given(STEPS, TOTALS, WARMUPS, FACTORS)
def test_cosine_never_rises_after_the_warm_up(step, total, warmup, low):
    cosine = Cosine(CosineConfig(warmup_steps=warmup, min_factor=low))
    later = warmup + step
    assert cosine.factor(later + 1, total) <= cosine.factor(later, total)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.2), (1, 0.4), (3, 0.8), (4, 1.0), (99, 1.0)])
def test_constant_warms_up_in_a_straight_line(step, factor):
    assert Constant(ConstantConfig(warmup_steps=4)).factor(step, 100) == pytest.approx(factor)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert Constant(ConstantConfig()).factor(0, 10) == Cosine(CosineConfig()).factor(0, 10) == 1


def test_warm_up_longer_than_the_run_is_cut_off():
    cosine = Cosine(CosineConfig(warmup_steps=100, min_factor=0.1))
    assert [cosine.factor(step, 10) for step in (0, 9, 99)] == pytest.approx([1 / 101, 10 / 101, 100 / 101])


def test_step_equals_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.3)
    scheduler = Step(StepConfig(step_size=7, gamma=0.3))
    for step in range(30):
        assert scheduler.factor(step, 30) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
