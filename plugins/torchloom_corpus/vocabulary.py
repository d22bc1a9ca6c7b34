"""How a tokenizer divides text, and which of its tokens a corpus uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchloom.contracts.tokenizer import Tokenizer
from torchloom_corpus.shards import Corpus

_WORD = re.compile(r"\w+")
_SHOWN = 12
_CHUNK = 1 << 22
_SPECIAL = ("pad", "unk", "bos", "eos", "mask", "cls", "sep")


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer makes of some texts.

    Attributes:
        vocab_size: Tokens it has.
        tokens: Tokens of the texts.
        fertility: Tokens a word (run of letters and digits), all tokens of the texts counted.
        bytes_per_token: UTF-8 bytes a token.
        unknown_rate: Share of the tokens that are unknown, in ``[0, 1]``; 0 if nothing can be.
        used: Share of the vocabulary that occurs in the texts.
        whole_words: Share of the words, as often as they occur, that are one token.
        exact: Whether every text comes back exactly from its tokens, as the tokenizer promises.
        frequent: The commonest tokens, decoded, with their counts.
        longest: The longest tokens that occur, decoded.
        unused: Number of tokens that never occur, special ones aside.
        unused_shown: Some of them, decoded.
        lengths: Tokens of the vocabulary by their characters, special ones aside, shortest first; a token that is a part
            of a character counts as one.
    """

    vocab_size: int
    tokens: int
    fertility: float
    bytes_per_token: float
    unknown_rate: float
    used: float
    whole_words: float
    exact: bool
    frequent: list[tuple[str, int]]
    longest: list[str]
    unused: int
    unused_shown: list[str]
    lengths: list[tuple[int, int]]


def count_tokens(corpus: Corpus, size: int) -> NDArray[np.int64]:
    """Return how often each token stands in a corpus, ``(size,)``.

    Args:
        corpus: The corpus.
        size: Of its vocabulary.
    """
    counts = np.zeros(size, np.int64)
    for number, shard in enumerate(corpus.shards):
        if not shard.tokens:
            continue  # an empty file cannot be mapped
        tokens = corpus.tokens(number)
        for start in range(0, len(tokens), _CHUNK):
            counts += np.bincount(tokens[start : start + _CHUNK], minlength=size)
    return counts


def vocabulary_report(
    tokenizer: Tokenizer, texts: Sequence[str], counts: NDArray[np.int64] | None = None
) -> Vocabulary:
    """Measure a trained tokenizer on texts, and its vocabulary on a corpus.

    Args:
        tokenizer: Trained.
        texts: A sample of what it is to encode; at least one token in all.
        counts: How often each token occurs, ``(vocab_size,)``; in the texts unless given.

    Raises:
        DataError: It does not know a part of the texts and has no unknown token.
    """
    size = tokenizer.vocab_size
    sampled = np.zeros(size, np.int64)
    for ids in tokenizer.encode_batch(list(texts)):
        sampled += np.bincount(ids, minlength=size)
    counts = sampled if counts is None else counts
    tokens = int(sampled.sum())
    words = Counter(word for text in texts for word in _WORD.findall(text))
    kinds = list(words)
    # A word stands behind a space in most texts, and tokenizers that keep spaces give it another token there.
    lengths = [len(ids) for ids in tokenizer.encode_batch([f" {word}" for word in kinds])]
    whole = sum(words[word] for word, length in zip(kinds, lengths, strict=True) if length == 1)
    unknown = tokenizer.special_id("unk")
    special = {tokenizer.special_id(name) for name in _SPECIAL}
    shown = {token: tokenizer.decode([token]) for token in range(size) if token not in special}
    common = [token for token in np.argsort(-counts, kind="stable").tolist() if counts[token] and token in shown]
    unused = [text for token, text in shown.items() if not counts[token]]
    return Vocabulary(
        vocab_size=size,
        tokens=tokens,
        fertility=tokens / max(words.total(), 1),
        bytes_per_token=sum(len(text.encode("utf-8", "replace")) for text in texts) / max(tokens, 1),
        unknown_rate=0.0 if unknown is None else float(counts[unknown]) / max(int(counts.sum()), 1),
        used=np.count_nonzero(counts) / size,
        whole_words=whole / max(words.total(), 1),
        exact=tokenizer.exact,
        frequent=[(shown[token], int(counts[token])) for token in common[:_SHOWN]],
        longest=sorted({shown[token] for token in common}, key=lambda text: (-len(text), text))[:_SHOWN],
        unused=len(unused),
        unused_shown=sorted(set(unused), key=lambda text: (-len(text), text))[:_SHOWN],
        lengths=sorted(Counter(len(text) for text in shown.values()).items()),
    )


def segments(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the pieces of a text that its tokens stand for, in order; a byte of a longer character is U+FFFD."""
    return [tokenizer.decode([token]) for token in tokenizer.encode(text).tolist()]
