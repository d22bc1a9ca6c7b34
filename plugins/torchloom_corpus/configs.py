"""Keys of the corpus commands. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from torchloom.configs import RootConfig
from torchloom.options import option


@dataclass
class RecipeConfig(RootConfig):
    """Build a corpus: read a source, clean, filter and deduplicate it, train a tokenizer, write shards of tokens.

    Example:
        torchloom corpus build source=html_folder source.path=PAGES out=CORPUS
        torchloom corpus build source=crawl 'source.seeds=[https://example.org]' tokenizer=bpe tokenizer.vocab_size=8000
        torchloom corpus build recipe=plain source=jsonl source.path=FILE.jsonl
        torchloom train experiment=llm dataset=corpus dataset.path=CORPUS
    """

    command = "corpus_build"
    primary = "corpus"
    required = ("source", "tokenizer", "engine")
    borrowed = ("tokenizer",)

    out: str = option("corpus", "Folder of the corpus; a build that was stopped there goes on.")
    tasks: int = option(
        8,
        "Shares that the documents are dealt to; as many may be worked on at once. Part of the recipe: it settles which "
        "shard a document stands in.",
        ge=1,
    )
    limit: int | None = option(None, "Documents read of each share, to try a recipe out; all unless given.", ge=1)
    tokenizer_documents: int | None = option(
        100_000, "Documents that the tokenizer is trained on, drawn from all; null is all of them.", ge=1
    )
    keep_documents: bool = option(False, "Keep the text of the documents too, as JSON lines under out/documents.")
    overwrite: bool = option(False, "Begin anew where `out` holds a corpus of another recipe.")


@dataclass
class ReportConfig:
    """Write the page about a corpus again.

    Example:
        torchloom corpus report CORPUS
    """

    folder: str = option(MISSING, "Folder of a corpus.")
