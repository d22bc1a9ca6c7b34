"""xFormers' bias classes, materialised, are our masks; what they cannot say is refused."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom.contracts.attention import AttentionMask
from torchloom.errors import UnsupportedError
from torchloom_attention.configs import MathAttentionConfig, XFormersAttentionConfig
from torchloom_attention.math import MathAttention
from torchloom_attention.xformers import Bias, XFormersAttention, bias_of

pytest.importorskip("torchloom_attention.xformers").import_quietly("xformers.ops")

LENGTHS = torch.tensor([5, 0, 3, 8])
DOCUMENTS = torch.tensor(
    [[0, 0, 0, 1, 1, 1, 1, 2], [4, 4, 4, 4, 4, 4, 4, 4], [0, 1, 0, 1, 0, 1, 0, 1], [3, 3, 2, 2, 1, 1, 0, 0]]
)
SQUARE = {
    "nothing": AttentionMask(),
    "causal": AttentionMask(causal=True),
    "window": AttentionMask(window=3),
    "window of one": AttentionMask(window=1),
    "causal window": AttentionMask(causal=True, window=3),
    "lengths": AttentionMask(key_lengths=LENGTHS),
    "causal lengths": AttentionMask(causal=True, key_lengths=LENGTHS),
    "causal window lengths": AttentionMask(causal=True, window=2, key_lengths=LENGTHS),
    "documents": AttentionMask(documents=DOCUMENTS),
    "causal documents": AttentionMask(causal=True, documents=DOCUMENTS),
    "documents lengths": AttentionMask(documents=DOCUMENTS, key_lengths=LENGTHS),
    "causal documents lengths": AttentionMask(causal=True, documents=DOCUMENTS, key_lengths=LENGTHS),
}
WITH_OFFSET = {
    "nothing": AttentionMask(query_offset=5),
    "causal": AttentionMask(causal=True, query_offset=5),
    "window": AttentionMask(window=2, query_offset=5),
    "causal window": AttentionMask(causal=True, window=2, query_offset=5),
    "lengths": AttentionMask(key_lengths=LENGTHS, query_offset=5),
    "documents": AttentionMask(documents=DOCUMENTS, query_offset=5),
    "causal documents": AttentionMask(causal=True, documents=DOCUMENTS, query_offset=5),
    "documents lengths": AttentionMask(documents=DOCUMENTS, key_lengths=LENGTHS, query_offset=5),
}


def matrix(form: Bias, batch: int, seq_q: int, seq_k: int) -> torch.Tensor:
    """What a bias lets each query see, bool ``(batch, 1, seq_q, seq_k)``."""
    num_q, num_k = seq_q, form.num_keys
    if form.q_index is not None and form.k_index is not None:
        num_q, num_k = len(form.q_index), len(form.k_index)
    allowed = torch.ones(num_q, num_k, dtype=torch.bool)
    if form.bias is not None:
        allowed = form.bias.materialize((num_q, num_k)) == 0
    seen = torch.zeros(batch, seq_q, batch, seq_k, dtype=torch.bool)
    if form.q_index is None or form.k_index is None:
        for row in range(batch):
            seen[row, :, row, : form.num_keys] = allowed
    else:
        q_row, q_place = form.q_index // seq_q, form.q_index % seq_q
        k_row, k_place = form.k_index // form.num_keys, form.k_index % form.num_keys
        seen[q_row[:, None], q_place[:, None], k_row[None], k_place[None]] = allowed
    own_row = torch.stack([seen[row, :, row] for row in range(batch)])
    assert seen.sum() == own_row.sum(), "a query sees a key of another row"
    return own_row[:, None]


def expected(mask: AttentionMask, batch: int, seq_q: int, seq_k: int) -> torch.Tensor:
    seen = mask.materialise(seq_q, seq_k)
    return torch.ones(batch, 1, seq_q, seq_k, dtype=torch.bool) if seen is None else seen.expand(batch, -1, -1, -1)


@pytest.mark.parametrize("mask", SQUARE.values(), ids=SQUARE)
def test_bias_equals_the_mask(mask: AttentionMask):
    assert torch.equal(matrix(bias_of(mask, 4, 8, 8), 4, 8, 8), expected(mask, 4, 8, 8))


@pytest.mark.parametrize("mask", WITH_OFFSET.values(), ids=WITH_OFFSET)
def test_bias_equals_the_mask_with_a_query_offset(mask: AttentionMask):
    assert torch.equal(matrix(bias_of(mask, 4, 3, 8), 4, 3, 8), expected(mask, 4, 3, 8))


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (SQUARE["causal"], "LowerTriangularMask"),
        (WITH_OFFSET["causal"], "LowerTriangularFromBottomRightMask"),
        (SQUARE["window"], "LocalAttentionFromBottomRightMask"),
        (SQUARE["causal window"], "LowerTriangularFromBottomRightLocalAttentionMask"),
        (SQUARE["lengths"], "BlockDiagonalMask"),
        (SQUARE["causal documents"], "BlockDiagonalCausalMask"),
        (SQUARE["causal window lengths"], "BlockDiagonalCausalLocalAttentionMask"),
        (WITH_OFFSET["causal documents"], "BlockDiagonalCausalFromBottomRightMask"),
    ],
)
def test_structure_stays_structure(mask: AttentionMask, name: str):
    assert type(bias_of(mask, 4, 8 - mask.query_offset, 8).bias).__name__ == name


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_mask_is_either_expressed_exactly_or_refused(data: st.DataObject):
    batch, seq_q, seq_k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    offset = data.draw(st.integers(0, max(0, seq_k - seq_q)))
    lengths = data.draw(st.none() | st.lists(st.integers(0, seq_k), min_size=batch, max_size=batch))
    row = st.lists(st.integers(0, 2), min_size=seq_k, max_size=seq_k)
    # A query's document is that of the key at its position, so documents need a key for every query.
    documents = data.draw(st.none() | st.lists(row, min_size=batch, max_size=batch)) if seq_q <= seq_k else None
    mask = AttentionMask(
        causal=data.draw(st.booleans()),
        window=data.draw(st.none() | st.integers(1, 8)),
        key_lengths=None if lengths is None else torch.tensor(lengths),
        documents=None if documents is None else torch.tensor(documents),
        query_offset=offset,
    )
    try:
        form = bias_of(mask, batch, seq_q, seq_k)
    except UnsupportedError as refusal:
        assert "use attention=sdpa" in str(refusal)  # noqa: PT017 - either outcome is right
        return
    assert torch.equal(matrix(form, batch, seq_q, seq_k), expected(mask, batch, seq_q, seq_k))


@pytest.mark.parametrize(
    ("mask", "seq_q", "text"),
    [
        (
            AttentionMask(window=2, key_lengths=LENGTHS),
            8,
            "attention=xformers cannot express a window together with documents, or with key lengths unless causal and "
            "without a query offset: use attention=sdpa",
        ),
        (
            AttentionMask(causal=True, key_lengths=LENGTHS, query_offset=5),
            3,
            "attention=xformers cannot express causality with a query offset over padded keys, or with queries behind "
            "the last key: use attention=sdpa",
        ),
        (
            AttentionMask(window=2),
            3,
            "attention=xformers cannot express a window whose last query is not at the last key: use attention=sdpa",
        ),
    ],
)
def test_what_the_bias_classes_cannot_say_is_refused(mask: AttentionMask, seq_q: int, text: str):
    with pytest.raises(UnsupportedError) as caught:
        bias_of(mask, 4, seq_q, 8)
    assert str(caught.value) == text


def test_a_cpu_is_refused_with_the_kernel_to_use():
    kernel = XFormersAttention(XFormersAttentionConfig())
    wanted = "attention=xformers runs on an NVIDIA GPU only, and this run is on cpu: use attention=sdpa"
    with pytest.raises(UnsupportedError) as caught:
        kernel.check(torch.device("cpu"))
    assert str(caught.value) == wanted
    x = torch.zeros(1, 1, 2, 8)
    with pytest.raises(UnsupportedError) as caught:
        kernel(x, x, x, AttentionMask(causal=True))
    assert str(caught.value) == wanted


def test_it_is_imported_only_when_built_and_says_nothing():
    code = """
import sys
from torchloom_attention import configs, math, plugin, sdpa, xformers
assert "xformers" not in sys.modules, "imported by being declared"
xformers.XFormersAttention(configs.XFormersAttentionConfig())
assert "xformers" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_declaring_the_kernels_imports_no_torch():
    code = """
import sys
from torchloom_attention import configs, plugin
assert {component.name for component in plugin.torchloom_components()} == {"math", "sdpa", "xformers"}
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mask", SQUARE.values(), ids=SQUARE)
def test_on_a_gpu_it_equals_the_reference(mask: AttentionMask):
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(4, heads, 8, 64, generator=generator, device=device, dtype=torch.float16).requires_grad_()
        for heads in (4, 2, 2)
    )
    out = XFormersAttention(XFormersAttentionConfig())(q, k, v, mask)
    reference = MathAttention(MathAttentionConfig())(q.double(), k.double(), v.double(), mask)
    torch.testing.assert_close(out.double(), reference, rtol=0.01, atol=0.01)
    weight = torch.randn(out.shape, generator=generator, device=device, dtype=torch.float16)
    for ours, theirs in zip(
        torch.autograd.grad((out * weight).sum(), (q, k, v)),
        torch.autograd.grad((reference * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
