"""Settings of the text datasets and tokenizers. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.configs import DatasetConfig
from torchloom.options import option


@dataclass
class TextDatasetConfig(DatasetConfig):
    """Fields that every text dataset has."""

    context_length: int = option(64, "Tokens a model sees at once; a window holds one more.", ge=1, unit="tokens")
    val_fraction: float = option(0.1, "Share of the characters for validation; 0 leaves the split empty.", ge=0, lt=1)
    test_fraction: float = option(0.05, "Share of the characters for the test; 0 leaves the split empty.", ge=0, lt=1)
    examples: Literal["windows", "pairs"] = option(
        "windows", "Windows of running text, or pairs of pieces of which half follow one another (objective nsp)."
    )


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
        "Special tokens beside the text's own, any of pad, unk, bos, eos, mask, cls, sep; they take the first ids. "
        "Without unk, text outside the vocabulary is an error; with eos, one stands between the documents of a dataset.",
    )


@dataclass
class CharConfig(TokenizerConfig):
    """Settings of `char`."""


@dataclass
class ByteConfig(TokenizerConfig):
    """Settings of `byte`."""

    special_tokens: list[str] = option(
        lambda: ["eos"],
        "Special tokens beside the bytes, any of pad, unk, bos, eos, mask, cls, sep; they take the first ids. "
        "No text is unknown; with eos, one stands between the documents of a dataset.",
    )


@dataclass
class LoadableConfig(TokenizerConfig):
    """Fields that every tokenizer of Hugging Face has."""

    path: str | None = option(
        None,
        "A tokenizer.json of Hugging Face tokenizers, or a folder with one, to use as it is, in place of training; "
        "other fields then rest.",
    )


@dataclass
class WordConfig(LoadableConfig):
    """Settings of `word`."""

    vocab_size: int | None = option(
        None,
        "Tokens in the vocabulary, special ones included, the most frequent words first; all words unless given.",
        ge=1,
    )
    min_frequency: int = option(2, "Times a word must occur in the training text to have a token.", ge=1)
    lowercase: bool = option(False, "Turn the text to lower case first.")


@dataclass
class WordPieceConfig(LoadableConfig):
    """Settings of `wordpiece`."""

    special_tokens: list[str] = option(
        lambda: ["pad", "unk", "cls", "sep", "mask"],
        "Special tokens beside the pieces, any of pad, unk, bos, eos, mask, cls, sep, unk always; they take the first "
        "ids. With eos, one stands between the documents of a dataset.",
        source="Devlin et al. 2019, https://arxiv.org/abs/1810.04805",
    )
    vocab_size: int = option(2048, "Tokens in the vocabulary: special ones, characters, and pieces.", ge=1)
    min_frequency: int = option(2, "Times a pair must occur in the training text to be merged.", ge=1)
    lowercase: bool = option(
        True, "Turn the text to lower case and take accents off first, as BERT's uncased models do."
    )
    path: str | None = option(
        None,
        "A tokenizer.json of Hugging Face tokenizers, a vocab.txt of BERT, or a folder with one, to use as it is, in "
        "place of training; other fields then rest, but for lowercase beside a vocab.txt.",
    )


@dataclass
class BPEConfig(LoadableConfig):
    """Settings of `bpe`."""

    special_tokens: list[str] = option(
        lambda: ["eos"],
        "Special tokens beside bytes and merges, any of pad, unk, bos, eos, mask, cls, sep; they take the first ids. "
        "No text is unknown; with eos, one stands between the documents of a dataset.",
    )
    vocab_size: int = option(2048, "Tokens in the vocabulary: special ones, 256 bytes, and merges.", ge=256)
    min_frequency: int = option(2, "Times a pair must occur in the training text to be merged.", ge=1)


@dataclass
class SubwordConfig(LoadableConfig):
    """Fields that `char_bpe` and `unigram` have in common."""

    special_tokens: list[str] = option(
        lambda: ["unk", "eos"],
        "Special tokens beside the text's own, any of pad, unk, bos, eos, mask, cls, sep; they take the first ids. "
        "With eos, one stands between the documents of a dataset.",
    )
    vocab_size: int = option(
        2048, "Tokens in the vocabulary: special ones, 256 bytes with byte_fallback, characters, and longer ones.", ge=1
    )
    byte_fallback: bool = option(
        True,
        "Spell characters that the training text did not have in bytes; otherwise they are unk.",
    )
    normalization: Literal["none", "nfc", "nfkc"] = option(
        "none", "Unicode normalisation of the text; with any, the text comes back in that form, not as it was."
    )


@dataclass
class CharBPEConfig(SubwordConfig):
    """Settings of `char_bpe`."""

    min_frequency: int = option(2, "Times a pair must occur in the training text to be merged.", ge=1)


@dataclass
class UnigramConfig(SubwordConfig):
    """Settings of `unigram`."""
