"""Transformer architectures, and a memory beside them."""

from __future__ import annotations

from collections.abc import Iterable

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> Iterable[Component]:
    """Declare the architectures and the command."""
    return [
        Component(
            kind="architecture",
            name="decoder",
            target="torchloom_transformer.decoder:Decoder",
            config="torchloom_transformer.configs:DecoderConfig",
            summary="GPT-style causal Transformer; norm, positions, activation and grouped heads to choose; KV cache.",
            source="Radford et al., 2019 (GPT-2); Touvron et al., 2023 (LLaMA)",
            slots={"attention": "sdpa"},
            describe="torchloom_transformer.sizes:describe",
        ),
        Component(
            kind="architecture",
            name="encoder",
            target="torchloom_transformer.encoder:Encoder",
            config="torchloom_transformer.configs:EncoderConfig",
            summary="BERT-style Transformer that looks both ways; a vector a position or, pooled, a vector an example.",
            source="Devlin et al., 2019 (BERT); Warner et al., 2024 (ModernBERT)",
            slots={"attention": "sdpa"},
            describe="torchloom_transformer.sizes:describe",
        ),
        Component(
            kind="architecture",
            name="encoder_decoder",
            target="torchloom_transformer.encoder_decoder:EncoderDecoder",
            config="torchloom_transformer.configs:EncoderDecoderConfig",
            summary="Transformer that reads one sequence and writes another.",
            source="Vaswani et al., 2017; Raffel et al., 2020 (T5)",
            slots={"attention": "sdpa"},
            describe="torchloom_transformer.sizes:describe",
        ),
        Component(
            kind="command",
            name="knn",
            target="torchloom_transformer.command:run",
            config="torchloom_transformer.configs:KNNConfig",
            summary="Measure a language model with a memory of its training text beside it",
            source="Khandelwal et al., 2020 (kNN-LM)",
            needs=("faiss",),
            extra="torchloom[retrieval]",
        ),
    ]
