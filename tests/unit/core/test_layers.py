"""The linear layer that threads share computes what torch's does, and leaves to torch what is not its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchloom.layers import Linear


class Calls(TorchDispatchMode):
    """Notes which operators are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def shared(layer: nn.Module, x: torch.Tensor) -> bool:
    with Calls() as calls:
        layer(x)
    return "bmm" in calls.names


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(0, 4),
    seq=st.integers(0, 3),
    sizes=st.sampled_from([(256, 256), (128, 768), (300, 1023), (64, 64)]),
    bias=st.booleans(),
    transposed=st.booleans(),
    grad=st.booleans(),
)
def test_equals_torch(batch: int, seq: int, sizes: tuple[int, int], bias: bool, transposed: bool, grad: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(*sizes, bias=bias)
    x = torch.randn(seq, batch, sizes[0]).transpose(0, 1) if transposed else torch.randn(batch, seq, sizes[0])
    with torch.set_grad_enabled(grad):
        output = layer(x)
        expected = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert output.shape == expected.shape
    assert output.is_contiguous() == expected.is_contiguous()
    assert output.requires_grad == expected.requires_grad


def test_few_rows_are_shared_out_where_no_gradient_is_asked_for() -> None:
    layer = Linear(256, 512)
    with torch.no_grad():
        assert shared(layer, torch.randn(1, 1, 256))
        assert shared(layer, torch.randn(8, 256))
        assert shared(copy.deepcopy(layer), torch.randn(256))
        assert not shared(layer, torch.randn(9, 256))
        assert not shared(Linear(64, 64), torch.randn(1, 64))
        assert not shared(Linear(256, 511), torch.randn(1, 256)), "an odd number of rows"
    assert not shared(layer, torch.randn(1, 256))


def test_other_precisions_are_torchs() -> None:
    layer = Linear(256, 512)
    x = torch.randn(1, 256)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_one_thread_shares_with_none() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        assert not shared(Linear(256, 512), torch.randn(1, 256))
