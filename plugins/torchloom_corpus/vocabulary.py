"""How a tokenizer divides text: measured on a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torchloom.contracts.tokenizer import Tokenizer

_WORD = re.compile(r"\w+")
_SHOWN = 12


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


def vocabulary_report(tokenizer: Tokenizer, texts: Sequence[str]) -> Vocabulary:
    """Measure a trained tokenizer on texts.

    Args:
        tokenizer: Trained.
        texts: A sample of what it is to encode; at least one token in all.

    Raises:
        DataError: It does not know a part of the texts and has no unknown token.
    """
    counts: Counter[int] = Counter()
    for ids in tokenizer.encode_batch(list(texts)):
        counts.update(ids.tolist())
    tokens = counts.total()
    words = Counter(word for text in texts for word in _WORD.findall(text))
    kinds = list(words)
    # A word stands behind a space in most texts, and tokenizers that keep spaces give it another token there.
    lengths = [len(ids) for ids in tokenizer.encode_batch([f" {word}" for word in kinds])]
    whole = sum(words[word] for word, length in zip(kinds, lengths, strict=True) if length == 1)
    unknown = tokenizer.special_id("unk")
    shown = {token: tokenizer.decode([token]) for token in counts}
    return Vocabulary(
        vocab_size=tokenizer.vocab_size,
        tokens=tokens,
        fertility=tokens / max(words.total(), 1),
        bytes_per_token=sum(len(text.encode("utf-8", "replace")) for text in texts) / max(tokens, 1),
        unknown_rate=0.0 if unknown is None else counts[unknown] / max(tokens, 1),
        used=len(counts) / tokenizer.vocab_size,
        whole_words=whole / max(words.total(), 1),
        exact=tokenizer.exact,
        frequent=[(shown[token], count) for token, count in counts.most_common(_SHOWN)],
        longest=sorted(shown.values(), key=lambda text: (-len(text), text))[:_SHOWN],
    )


def segments(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the pieces of a text that its tokens stand for, in order; a byte of a longer character is U+FFFD."""
    return [tokenizer.decode([token]) for token in tokenizer.encode(text).tolist()]
