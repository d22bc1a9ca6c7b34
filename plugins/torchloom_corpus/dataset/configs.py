"""Settings of the dataset that trains from corpora, and of their tokenizer. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.configs import DatasetConfig
from torchloom.options import option


@dataclass
class CorpusDatasetConfig(DatasetConfig):
    """Settings of `corpus`."""

    path: str | None = option(None, "Folder that `torchloom corpus build` wrote.")
    paths: list[str] = option(list, "Several such folders, in place of `path`: a mixture of corpora.")
    weights: list[float] = option(
        list,
        "Share of the training windows from each of `paths`, in any unit; as much as each holds unless given.",
        gt=0,
    )
    context_length: int = option(64, "Tokens a model sees at once; a window holds one more.", ge=1, unit="tokens")
    packing: Literal["documents", "stream"] = option(
        "documents",
        "Documents fill windows end to end; documents confines attention and prediction to each of them, stream does not.",
    )
    val_fraction: float = option(
        0.05, "Share of the documents for validation, drawn by their content; 0 leaves the split empty.", ge=0, lt=1
    )
    test_fraction: float = option(
        0.05, "Share of the documents for the test, drawn by their content; 0 leaves the split empty.", ge=0, lt=1
    )
    split_seed: int = option(0, "Seed of the draw that divides documents into splits.", ge=0)
    verify: bool = option(False, "Read all shards before training, and compare them with their SHA-256.")


@dataclass
class CorpusTokenizerConfig:
    """Settings of the tokenizer `corpus`."""

    path: str | None = option(
        None, "Corpus whose tokenizer is taken, where it is wanted for other data; dataset=corpus takes its own."
    )
