"""Small corpora for the tests of shards and of the dataset, made without a build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchloom import registry
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.schema import to_config
from torchloom_corpus.shards import ShardWriter, TokenizerRecord, content_hash, write_manifest

ALPHABET = "abcdefghijklmnopqrstuvwxyz "


def char_tokenizer(special_tokens: Sequence[str] = ("eos",), alphabet: str = ALPHABET) -> Tokenizer:
    component = registry.current().get("tokenizer", "char")
    config = to_config(component, {"special_tokens": list(special_tokens)})
    tokenizer: Tokenizer = registry.current().load(component)(config)
    tokenizer.train([alphabet])
    return tokenizer


def char_record(special_tokens: Sequence[str] = ("eos",), alphabet: str = ALPHABET) -> TokenizerRecord:
    config = {"special_tokens": list(special_tokens)}
    return TokenizerRecord.of("char", config, char_tokenizer(special_tokens, alphabet))


def write_corpus(
    folder: Path,
    texts: Sequence[str],
    *,
    shards: int = 1,
    special_tokens: Sequence[str] = ("eos",),
    alphabet: str = ALPHABET,
    **more: Any,
) -> Path:
    """Write texts as a corpus of characters, each n-th to the n-th shard."""
    tokenizer, record = char_tokenizer(special_tokens, alphabet), char_record(special_tokens, alphabet)
    written = []
    for rank in range(shards):
        with ShardWriter(folder, rank, record) as writer:
            for text in texts[rank::shards]:
                writer.add(tokenizer.encode(text), content_hash(text))
        written.append(writer.shard)
    write_manifest(folder, written, record, **more)
    return folder
