"""Attention kernels: the readable reference, torch's fused one, and xFormers'."""

from __future__ import annotations

from collections.abc import Iterable

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> Iterable[Component]:
    """Declare the kernels."""
    return [
        Component(
            kind="attention",
            name="math",
            target="torchloom_attention.math:MathAttention",
            config="torchloom_attention.configs:MathAttentionConfig",
            summary="Softmax attention written out: the reference, for any device and mask.",
            source="Vaswani et al., 2017, Attention Is All You Need, section 3.2.1",
        ),
        Component(
            kind="attention",
            name="sdpa",
            target="torchloom_attention.sdpa:SDPAttention",
            config="torchloom_attention.configs:SDPAttentionConfig",
            summary="torch's fused scaled_dot_product_attention, for any device and mask.",
            source="torch.nn.functional.scaled_dot_product_attention",
        ),
        Component(
            kind="attention",
            name="xformers",
            target="torchloom_attention.xformers:XFormersAttention",
            config="torchloom_attention.configs:XFormersAttentionConfig",
            summary="xFormers' memory-efficient attention, on NVIDIA GPUs; packs padded rows and documents.",
            source="xformers.ops.memory_efficient_attention; Rabe and Staats, 2021, arXiv 2112.05682",
            needs=("xformers",),
        ),
    ]
