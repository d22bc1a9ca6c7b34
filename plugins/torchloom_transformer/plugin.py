"""Transformer architectures."""

from __future__ import annotations

from collections.abc import Iterable

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> Iterable[Component]:
    """Declare the architectures."""
    return [
        Component(
            kind="architecture",
            name="decoder",
            target="torchloom_transformer.decoder:Decoder",
            config="torchloom_transformer.configs:DecoderConfig",
            summary="GPT-style causal Transformer; norm, positions, activation and grouped heads to choose; KV cache.",
            source="Radford et al., 2019 (GPT-2); Touvron et al., 2023 (LLaMA)",
            slots={"attention": "sdpa"},
        ),
    ]
