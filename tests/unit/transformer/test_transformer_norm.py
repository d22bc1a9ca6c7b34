"""The normalisation written here against torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from torchloom_transformer.layers import RMSNorm


def pair(width: int, dtype: torch.dtype) -> tuple[nn.RMSNorm, nn.RMSNorm]:
    ours, theirs = RMSNorm(width, eps=1e-5, dtype=dtype), nn.RMSNorm(width, eps=1e-5, dtype=dtype)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(width, generator=torch.Generator().manual_seed(width)))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    width=st.integers(1, 33),
    scale=st.sampled_from([0.0, 1e-4, 1.0, 1e4]),
)
def test_values_and_gradients_are_torchs(shape: list[int], width: int, scale: float):
    ours, theirs = pair(width, torch.float64)
    x = scale * torch.randn(*shape, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    found = []
    for norm in (ours, theirs):
        given_x = x.clone().requires_grad_()
        y = norm(given_x)
        weights = torch.arange(y.numel(), dtype=torch.float64).view_as(y).cos()
        found.append((y, *torch.autograd.grad((y * weights).sum(), (given_x, norm.weight))))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), found[1][0], rtol=1e-9, atol=1e-9)


def test_its_gradient_has_a_gradient():
    ours, _ = pair(6, torch.float64)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(ours, (x,))
    assert gradgradcheck(ours, (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_and_autocast_are_torchs(dtype: torch.dtype):
    ours, theirs = pair(16, dtype)
    x = torch.randn(4, 16).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        mine, other = ours(x), theirs(x)
    assert mine.dtype == other.dtype
    torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-2)
