"""What every attention kernel computes: the same as the formula, or nothing."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchloom.component import Component
from torchloom.contracts.attention import Attention, AttentionMask
from torchloom.errors import UnsupportedError
from torchloom.testing.support import build, each

BATCH, HEADS, SEQ, HEAD_DIM = 2, 4, 10, 8
OFFSET = 3

STRUCTURES: dict[str, dict[str, Any]] = {
    "causal": {"causal": True},
    "window": {"window": 3},
    "key_lengths": {"key_lengths": torch.tensor([10, 6])},
    "documents": {"documents": torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]])},
    "query_offset": {"query_offset": OFFSET},
    "bias": {"bias": torch.randn(1, HEADS, SEQ, SEQ, generator=torch.Generator().manual_seed(2))},
}
SINGLE = [(name,) for name in STRUCTURES]
COMBINED = [names for count in (2, 3) for names in itertools.combinations(STRUCTURES, count)]


def mask_of(names: tuple[str, ...]) -> AttentionMask:
    merged: dict[str, Any] = {}
    for name in names:
        merged |= STRUCTURES[name]
    if "bias" in merged:
        merged["bias"] = merged["bias"][:, :, merged.get("query_offset", 0) :]
    return AttentionMask(**merged)


def kernel_on(component: Component) -> tuple[Attention, torch.device]:
    """Build a kernel and choose a device that it runs on, or skip for its own reason."""
    kernel: Attention = build(component)
    on_gpu = "cpu" not in kernel.devices and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    try:
        kernel.check(device)
    except UnsupportedError as error:
        pytest.skip(str(error))
    if kernel.requires - {"shared_qk"}:
        pytest.skip(f"the suite does not offer {', '.join(sorted(kernel.requires))}")
    return kernel, device


def tensors(
    kernel: Attention, device: torch.device, kv_heads: int = HEADS, offset: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 queries, keys and values that take gradients."""
    generator = torch.Generator().manual_seed(0)

    def drawn(heads: int, length: int) -> Tensor:
        values = torch.randn(BATCH, heads, length, HEAD_DIM, generator=generator)
        return values.to(device).requires_grad_()

    keys, values = drawn(kv_heads, SEQ), drawn(kv_heads, SEQ)
    queries = drawn(HEADS, SEQ - offset)
    if "shared_qk" in kernel.requires:
        queries = keys.detach()[:, :, offset:].repeat_interleave(HEADS // kv_heads, dim=1).requires_grad_()
    return queries, keys, values


def reference(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, scale: float | None = None) -> Tensor:
    """Softmax attention in float64, from the mask as a matrix; a query that sees nothing gives zeros."""
    repeats = q.shape[1] // k.shape[1]
    q, k, v = q.double(), k.double().repeat_interleave(repeats, 1), v.double().repeat_interleave(repeats, 1)
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask.bias is not None:
        scores = scores + mask.bias.to(q.device)
    seen = mask.materialise(q.shape[2], k.shape[2], q.device)
    if seen is None:
        return scores.softmax(-1) @ v
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return weights.masked_fill(~seen, 0.0).nan_to_num(0.0) @ v


def check_parity(component: Component, mask: AttentionMask, kv_heads: int = HEADS, scale: float | None = None) -> None:
    """Compare output and gradients with the reference."""
    kernel, device = kernel_on(component)
    ours = tensors(kernel, device, kv_heads, mask.query_offset)
    q, k, v = theirs = tuple(one.detach().clone().requires_grad_() for one in ours)
    output = kernel(*ours, mask, scale=scale)
    expected = reference(q, k, v, mask, scale)
    torch.testing.assert_close(output, expected.float(), rtol=1e-4, atol=1e-5)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(device)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


@each("attention")
class TestAttention:
    """Parity with the formula, in output and gradient."""

    def test_without_a_mask(self, component: Component) -> None:
        check_parity(component, AttentionMask())

    def test_with_a_scale_of_the_callers(self, component: Component) -> None:
        check_parity(component, AttentionMask(), scale=0.3)

    @pytest.mark.parametrize("kv_heads", [1, 2])
    def test_query_heads_share_key_heads(self, component: Component, kv_heads: int) -> None:
        check_parity(component, AttentionMask(), kv_heads=kv_heads)

    @pytest.mark.parametrize("names", SINGLE, ids="+".join)
    def test_honours_or_refuses_a_structure(self, component: Component, names: tuple[str, ...]) -> None:
        kernel, device = kernel_on(component)
        mask = mask_of(names)
        if mask.features() <= kernel.supports:
            check_parity(component, mask)
            return
        with pytest.raises(UnsupportedError, match=names[0]):
            kernel(*tensors(kernel, device, offset=mask.query_offset), mask)

    @pytest.mark.parametrize("names", COMBINED, ids="+".join)
    def test_honours_or_refuses_a_combination(self, component: Component, names: tuple[str, ...]) -> None:
        with contextlib.suppress(UnsupportedError):
            check_parity(component, mask_of(names))

    def test_a_query_that_sees_nothing_gives_zeros(self, component: Component) -> None:
        kernel, device = kernel_on(component)
        if "key_lengths" not in kernel.supports:
            pytest.skip("honours no key lengths, and nothing else leaves a query blind")
        output = kernel(*tensors(kernel, device), AttentionMask(key_lengths=torch.tensor([SEQ, 0])))
        assert not output[1].any()
        assert output[0].any()

    def test_a_blind_query_leaves_no_nan_in_gradients(self, component: Component) -> None:
        kernel, device = kernel_on(component)
        if "key_lengths" not in kernel.supports:
            pytest.skip("honours no key lengths, and nothing else leaves a query blind")
        ours = tensors(kernel, device)
        kernel(*ours, AttentionMask(key_lengths=torch.tensor([SEQ, 0]))).sum().backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in ours)

    def test_dropout_keeps_the_mean(self, component: Component) -> None:
        kernel, device = kernel_on(component)
        q, k, v = (one.detach()[:1].repeat(2000, 1, 1, 1) for one in tensors(kernel, device))
        torch.manual_seed(0)
        dropped = kernel(q, k, v, AttentionMask(), dropout=0.25)
        assert not torch.equal(dropped[0], dropped[1])
        torch.testing.assert_close(dropped.mean(0), kernel(q, k, v, AttentionMask())[0], rtol=0.1, atol=0.06)

    def test_owns_no_parameters(self, component: Component) -> None:
        kernel: Attention = build(component)
        owned = [value for value in vars(kernel).values() if isinstance(value, Tensor | nn.Module)]
        assert not isinstance(kernel, nn.Module), "a kernel in the module tree would change checkpoint keys"
        assert owned == []
