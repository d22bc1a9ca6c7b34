"""Settings of the text datasets and tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from torchloom.configs import DatasetConfig
from torchloom.options import option


@dataclass
class TextDatasetConfig(DatasetConfig):
    """Fields that every text dataset has."""

    context_length: int = option(64, "Tokens a model sees at once; a window holds one more.", ge=1, unit="tokens")
    val_fraction: float = option(0.1, "Share of the characters for validation; 0 leaves the split empty.", ge=0, lt=1)
    test_fraction: float = option(0.05, "Share of the characters for the test; 0 leaves the split empty.", ge=0, lt=1)


@dataclass
class PythonDocsConfig(TextDatasetConfig):
    """Settings of `python_docs`."""


@dataclass
class StdlibCodeConfig(TextDatasetConfig):
    """Settings of `stdlib_code`."""


@dataclass
class TextFilesConfig(TextDatasetConfig):
    """Settings of `text_files`."""

    path: str | None = option(None, "UTF-8 text file, or folder of such files.")
    glob: str = option("**/*.txt", "Which files of a folder are read; a path that is a file is read whatever its name.")
    val_path: str | None = option(None, "File or folder for validation, instead of a share of `path`.")
    test_path: str | None = option(None, "File or folder for the test, instead of a share of `path`.")


@dataclass
class TokenizerConfig:
    """Fields that every tokenizer has."""

    special_tokens: list[str] = option(
        lambda: ["unk"],
        "Special tokens beside the text's own, any of pad, unk, bos, eos, mask; they take the first ids. Without unk, "
        "text outside the vocabulary is an error; with eos, one stands between the documents of a dataset.",
    )


@dataclass
class CharConfig(TokenizerConfig):
    """Settings of `char`."""


@dataclass
class WordConfig(TokenizerConfig):
    """Settings of `word`."""

    vocab_size: int | None = option(
        None,
        "Tokens in the vocabulary, special ones included, the most frequent words first; all words unless given.",
        ge=1,
    )
    min_frequency: int = option(2, "Times a word must occur in the training text to have a token.", ge=1)
    lowercase: bool = option(False, "Turn the text to lower case first.")


@dataclass
class BPEConfig(TokenizerConfig):
    """Settings of `bpe`."""

    special_tokens: list[str] = option(
        lambda: ["eos"],
        "Special tokens beside bytes and merges, any of pad, unk, bos, eos, mask; they take the first ids. "
        "No text is unknown; with eos, one stands between the documents of a dataset.",
    )
    vocab_size: int = option(2048, "Tokens in the vocabulary: special ones, 256 bytes, and merges.", ge=256)
    min_frequency: int = option(2, "Times a pair must occur in the training text to be merged.", ge=1)
    path: str | None = option(
        None,
        "A tokenizer.json of Hugging Face tokenizers to use as it is, in place of training; other fields then rest.",
    )
