"""Words as deduplication compares them, in any language and without a model: hashes of words and of runs of words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

Hashes: TypeAlias = npt.NDArray[np.uint64]

# Scripts written without spaces between words, in which each letter is a word of its own: Thai and Lao, Tibetan,
# Myanmar, Khmer, Japanese, Chinese.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_NUMBER = re.compile(r"\d+(?:[.,٫]\d+)*")
_LONG = 1 << 20
"""Characters from which on the words of a text are not held all at once."""


@cache
def word_pattern() -> re.Pattern[str]:
    """Return what a word is: a number, a run of letters, marks and digits, or a letter of a script without spaces.

    No word is longer than some hundred characters, so that what is remembered of one stays small whatever the text.
    """
    unspaced = re.compile(f"[{_UNSPACED}]")
    # `\w` lacks the marks that belong to letters, and a class of single characters is matched faster than a category.
    letters = [c for c in map(chr, range(1 << 16)) if unicodedata.category(c)[0] in "LMN" and not unspaced.match(c)]
    spaced = "".join(map(re.escape, letters))
    return re.compile(
        rf"\d{{1,64}}(?:[.,٫]\d{{1,64}}){{0,8}}|[{spaced}]{{1,64}}|[{_UNSPACED}]|[^\W_\u0000-\uffff]{{1,64}}"
    )


def fold(word: str) -> str:
    """Return a word without case, accents and the digits of numbers; one of accents alone is kept as it is.

    Example:
        >>> fold("Café"), fold("1,024.5")
        ('cafe', '0')
    """
    word = _NUMBER.sub("0", word.lower())
    if word.isascii():
        return word
    # Without its marks a word of nothing else would be no word, and the same as every other such.
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn") or word


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return xxhash.xxh64_intdigest(fold(word).encode("utf-8", "surrogatepass"))


def word_hashes(text: str) -> Hashes:
    """Return a 64-bit hash of each word of a text, in order, the same for words that `fold` makes the same."""
    words: Any = word_pattern().findall(text) if len(text) < _LONG else _words(text)
    return np.fromiter(map(_hash, words), np.uint64)


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in word_pattern().finditer(text))


def word_spans(text: str) -> npt.NDArray[np.int64]:
    """Return where the words of `word_hashes` begin and end in the text, one row each."""
    spans = [match.span() for match in word_pattern().finditer(text)]
    return np.array(spans, np.int64).reshape(-1, 2)


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """Return a 64-bit hash of every n words in a row, in order; one of all of them when there are fewer.

    Args:
        words: From `word_hashes`.
        n: Words in a row, at least 1.
    """
    n = min(n, len(words))
    if not n:
        return words
    factors = _constants(0, n)
    mixed: Hashes = words[: len(words) - n + 1] * factors[0]
    for place in range(1, n):
        mixed += words[place : len(words) - n + 1 + place] * factors[place]
    # A sum of products is linear, as the permutations of MinHash are; this finaliser (of MurmurHash3) is not.
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed ^= mixed >> np.uint64(33)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(33)
    return mixed


@lru_cache(maxsize=64)
def _constants(seed: int, number: int) -> Hashes:
    # numpy keeps this generator's stream the same for ever, so that a saved index stays good.
    drawn: Hashes = np.frombuffer(np.random.RandomState(seed).bytes(8 * number), "<u8").astype(np.uint64)
    drawn |= np.uint64(1)  # odd, so that products are one to one
    return drawn


def permutations(seed: int, number: int) -> tuple[Hashes, Hashes]:
    """Return factors and summands of random permutations x -> factor * x + summand modulo 2^64, a column each."""
    drawn = _constants(seed + 1, 2 * number).reshape(2, number, 1)
    return drawn[0], drawn[1]


def signature(shingles: Hashes, factors: Hashes, summands: Hashes) -> Hashes:
    """Return the MinHash signature of a set: the smallest hash under each permutation.

    Two sets' signatures agree at each place with the probability of their Jaccard similarity.

    Args:
        shingles: Hashes of the set's members, at least one.
        factors: From `permutations`.
        summands: From `permutations`.

    Source: Broder 1997, On the resemblance and containment of documents.
    """
    smallest = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(shingles), 256):  # what is computed at once fits a processor's cache
        hashes = factors * shingles[start : start + 256]
        hashes += summands
        np.minimum(smallest, hashes.min(axis=1), out=smallest)
    return smallest


def digest(text: str, normalise: str) -> bytes:
    """Return 16 bytes that are the same for texts that are the same once normalised.

    Args:
        text: Any text.
        normalise: ``"none"``, ``"whitespace"`` or ``"simplified"``; a text without words is compared by its characters.
    """
    if normalise == "simplified" and len(words := word_hashes(text)):
        return xxhash.xxh3_128_digest(words.tobytes())
    plain = text if normalise == "none" else " ".join(text.split())
    return xxhash.xxh3_128_digest(plain.encode("utf-8", "surrogatepass"))
