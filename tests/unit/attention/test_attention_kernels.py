"""The kernels compute one and the same function: outputs and gradients, whatever the mask."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchloom.contracts.attention import Attention, AttentionMask
from torchloom_attention.configs import MathAttentionConfig, SDPAttentionConfig
from torchloom_attention.math import MathAttention
from torchloom_attention.sdpa import SDPAttention

MATH = MathAttention(MathAttentionConfig())
SDPA = SDPAttention(SDPAttentionConfig())
KERNELS = [pytest.param(MATH, id="math"), pytest.param(SDPA, id="sdpa")]


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, int], AttentionMask]:
    """Shapes and a mask of any combination of structures, rows that see nothing included."""
    batch, kv_heads, repeats = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    seq_k = draw(st.integers(1, 9))
    seq_q = draw(st.integers(1, seq_k))
    offset = draw(st.integers(0, seq_k - seq_q))
    lengths = draw(st.none() | st.lists(st.integers(0, seq_k), min_size=batch, max_size=batch))
    documents = draw(
        st.none()
        | st.lists(st.lists(st.integers(0, 2), min_size=seq_k, max_size=seq_k), min_size=batch, max_size=batch)
    )
    mask = AttentionMask(
        causal=draw(st.booleans()),
        window=draw(st.none() | st.integers(1, seq_k + 1)),
        key_lengths=None if lengths is None else torch.tensor(lengths),
        documents=None if documents is None else torch.tensor(documents),
        query_offset=offset,
    )
    return {"batch": batch, "kv_heads": kv_heads, "repeats": repeats, "seq_q": seq_q, "seq_k": seq_k}, mask


def make_qkv(
    batch: int, kv_heads: int, repeats: int, seq_q: int, seq_k: int, dtype: torch.dtype = torch.float64
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch + 10 * seq_q + 100 * seq_k)
    shapes = [(batch, kv_heads * repeats, seq_q, 4), (batch, kv_heads, seq_k, 4), (batch, kv_heads, seq_k, 4)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def run(
    kernel: Attention, inputs: list[torch.Tensor], mask: AttentionMask, scale: float | None
) -> tuple[torch.Tensor, ...]:
    out = kernel(*inputs, mask, scale=scale)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weight).sum(), inputs)


@settings(max_examples=150, deadline=None)
@given(problem=problems(), scale=st.sampled_from([None, 0.3]))
def test_sdpa_equals_math_in_output_and_gradient(problem: tuple[dict[str, int], AttentionMask], scale: float | None):
    shape, mask = problem
    inputs = make_qkv(**shape)
    for fused, reference in zip(run(SDPA, inputs, mask, scale), run(MATH, inputs, mask, scale), strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-9, atol=1e-11)


@settings(max_examples=50, deadline=None)
@given(problem=problems())
def test_math_is_the_formula_written_a_query_at_a_time(problem: tuple[dict[str, int], AttentionMask]):
    shape, mask = problem
    q, k, v = (x.detach() for x in make_qkv(**shape))
    seen = mask.materialise(shape["seq_q"], shape["seq_k"])
    out = MATH(q, k, v, mask)
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            keys, values = k[row, head // shape["repeats"]], v[row, head // shape["repeats"]]
            for query in range(q.shape[2]):
                visible = torch.ones(len(keys), dtype=torch.bool)
                if seen is not None:
                    visible = seen.expand(q.shape[0], 1, -1, -1)[row, 0, query]
                powers = (keys[visible] @ q[row, head, query] / 2).exp()  # sqrt(head_dim) is 2
                expected = (
                    (powers[:, None] * values[visible]).sum(0) / powers.sum() if visible.any() else torch.zeros(4)
                )
                torch.testing.assert_close(out[row, head, query], expected.double(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], ids=["math", "flash"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_query_that_sees_nothing_gives_zeros_and_finite_gradients(kernel: Attention, backend: SDPBackend):
    inputs = make_qkv(2, 2, 1, 5, 5, torch.float32)
    with sdpa_kernel(backend):
        out, *gradients = run(kernel, inputs, AttentionMask(causal=True, key_lengths=torch.tensor([0, 3])), None)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.equal(gradient[0], torch.zeros_like(gradient[0])) for gradient in gradients)


@pytest.mark.parametrize("mask", [AttentionMask(causal=True), AttentionMask(causal=True, window=3)], ids=repr)
@pytest.mark.parametrize("kernel", KERNELS)
def test_changing_the_future_leaves_the_past(kernel: Attention, mask: AttentionMask):
    q, k, v = (x.detach() for x in make_qkv(2, 2, 2, 8, 8))
    before = kernel(q, k, v, mask)
    for x in (q, k, v):
        x[:, :, 5:] = torch.randn_like(x[:, :, 5:])
    after = kernel(q, k, v, mask)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.equal(before[:, :, 5:], after[:, :, 5:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_grouped_heads_equal_repeated_keys(kernel: Attention):
    q, k, v = make_qkv(2, 2, 3, 6, 6)
    grouped = kernel(q, k, v, AttentionMask(causal=True))
    repeated = kernel(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), AttentionMask(causal=True))
    torch.testing.assert_close(grouped, repeated, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_step_with_a_cache_equals_the_whole_sequence(kernel: Attention):
    q, k, v = make_qkv(2, 2, 1, 7, 7)
    whole = kernel(q, k, v, AttentionMask(causal=True))
    for start, end in [(0, 3), (3, 6), (6, 7)]:
        part = kernel(q[:, :, start:end], k[:, :, :end], v[:, :, :end], AttentionMask(causal=True, query_offset=start))
        torch.testing.assert_close(part, whole[:, :, start:end], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dropout_drops_weights_and_keeps_the_mean(kernel: Attention):
    torch.manual_seed(0)
    q, k = torch.zeros(1, 1, 4000, 4), torch.zeros(1, 1, 8, 4)
    out = kernel(q, k, torch.ones(1, 1, 8, 4), AttentionMask(), dropout=0.25)
    # Eight equal weights, each kept with 3/4 and then 4/3 as large: multiples of 1/6 with mean 1.
    torch.testing.assert_close(out * 6, (out * 6).round(), rtol=0, atol=1e-4)
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert out.std().item() == pytest.approx((1 / 24) ** 0.5, abs=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_near_the_double_reference(kernel: Attention, dtype: torch.dtype):
    inputs = [x.detach().to(dtype) for x in make_qkv(2, 2, 2, 8, 8)]
    mask = AttentionMask(causal=True, key_lengths=torch.tensor([8, 3]))
    out = kernel(*inputs, mask)
    assert out.dtype == dtype
    reference = MATH(*(x.double() for x in inputs), mask)
    torch.testing.assert_close(out.double(), reference, rtol=0.03, atol=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_owns_no_parameters(kernel: Attention):
    assert not isinstance(kernel, torch.nn.Module)
    assert not any(isinstance(value, torch.Tensor | torch.nn.Module) for value in vars(kernel).values())


def test_every_structure_of_a_mask_is_supported():
    structures = {field.name for field in dataclasses.fields(AttentionMask) if field.init}
    assert MATH.supports == SDPA.supports == structures


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.numel = max([self.numel, *(x.numel() for x in tensors)])
        return result


@pytest.mark.parametrize(
    ("mask", "seq_q"), [(AttentionMask(causal=True), 256), (AttentionMask(causal=True, query_offset=255), 1)]
)
def test_training_and_generation_steps_build_no_matrix(mask: AttentionMask, seq_q: int):
    q, k = torch.randn(1, 1, seq_q, 4), torch.randn(1, 1, 256, 4)
    with Largest() as largest:
        SDPA(q, k, k, mask)
    assert largest.numel <= 256 * 4  # not 256 * 256
