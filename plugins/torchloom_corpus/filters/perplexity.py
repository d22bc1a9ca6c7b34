"""A small n-gram model of good text, and the filter that drops what it finds unlikely."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import PerplexityConfig
from torchloom_corpus.filters.samples import Samples, hold_out

__all__ = ["ByteModel", "Perplexity"]

LEAST = 100
"""Fewest samples to learn from; a fifth of them sets the threshold."""
CHUNK = 1 << 20
"""Bytes scored at once, which bounds memory."""
_BYTE = np.uint64(8)

_Floats = NDArray[np.float64]
_Keys = NDArray[np.uint64]


class ByteModel:
    """An n-gram model of bytes with interpolated Kneser-Ney smoothing.

    Bytes need no vocabulary: any text of any language has a probability, and up to eight of them are exactly one 64-bit
    number, so that n-grams are looked up in sorted arrays. The training text is read as a ring, so that whatever is a
    context of some n-gram is an n-gram of the next lower order, and probabilities add up to one in every context.

    Args:
        texts: What to learn from.
        order: Longest n-gram, in [1, 8].

    Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1999), section 3.
    """

    def __init__(self, texts: Sequence[str], order: int) -> None:
        self.order = order
        data = _bytes("\n".join(texts) + "\n")
        ring = np.concatenate([data, np.resize(data, order - 1)])
        keys, counts = np.unique(_keys(ring, order), return_counts=True)
        levels = [self._level(keys, counts)]
        for length in range(order - 1, 0, -1):
            # below the highest order what counts is after how many different bytes an n-gram occurs
            keys, counts = np.unique(keys & np.uint64((1 << 8 * length) - 1), return_counts=True)
            levels.insert(0, self._level(keys, counts))
        self._levels = levels

    @staticmethod
    def _level(keys: _Keys, counts: NDArray[np.int64]) -> tuple[_Keys, _Floats, _Floats]:
        """Return n-grams, the share of each above the next lower order, and that order's share in each context."""
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        discount = once / (once + 2 * twice) if once and twice else 0.5
        _, begins, contexts = np.unique(keys >> _BYTE, return_index=True, return_inverse=True)
        totals = np.add.reduceat(counts, begins)
        kinds = np.diff(np.append(begins, len(keys)))
        return keys, (counts - discount) / totals[contexts], discount * kinds / totals

    def log_probabilities(self, text: bytes) -> _Floats:
        """Return the natural logarithm of each byte's probability after the bytes before it."""
        data = np.frombuffer(text, dtype=np.uint8)
        probabilities = np.full(len(data), 1 / 256)
        # of each byte but the first ones: where its context is among the n-grams of the order below, and whether it is
        places, known = np.zeros(len(data), dtype=np.intp), np.ones(len(data), dtype=bool)
        for length, (keys, above, below) in enumerate(self._levels[: len(data)], 1):
            wanted = _keys(data, length)
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            seen = keys[found] == wanted
            rest = probabilities[length - 1 :]
            rest *= np.where(known, below[places], 1.0)
            rest += np.where(seen, above[found], 0.0)
            places, known = found[:-1], seen[:-1]
        logarithms: _Floats = np.log(probabilities)
        return logarithms

    def perplexity(self, text: str) -> float:
        """Return the perplexity of a text per byte, at least 1, to six digits; that of nothing is infinite."""
        data = ("\n" + text).encode("utf-8", "replace")
        total, before = 0.0, self.order - 1
        for begin in range(1, len(data), CHUNK):
            context = max(begin - before, 0)
            total += float(self.log_probabilities(data[context : begin + CHUNK])[begin - context :].sum())
        # rounded, so that machines that sum in another order judge alike
        return float(f"{np.exp(-total / (len(data) - 1)):.6g}") if len(data) > 1 else float("inf")


class Perplexity(CorpusStep):
    """Drops documents whose perplexity, noted in the metadata, is above that of nearly all held-out good samples.

    Args:
        config: The samples and the threshold.

    Raises:
        ConfigError: No samples are given.
        DataError: There is no such file or folder.

    Source: Wenzek et al., "CCNet" (arXiv:1911.00359), which cuts the corpus at its terciles.
    """

    config: PerplexityConfig

    def __init__(self, config: PerplexityConfig) -> None:
        super().__init__(config)
        Samples.at(config.good, "steps.perplexity.good")

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Learn from the samples; each task does, and all arrive at the same.

        Raises:
            DataError: The samples cannot be read, or are too few.
        """
        super().start(tally, rank, world)
        samples = Samples.at(self.config.good, "steps.perplexity.good")
        self._model, held_out = _learn(samples, self.config.max_samples, self.config.order)
        self.threshold = float(np.percentile(held_out, self.config.percentile))
        if rank == 0:
            tally.count("good samples held out", len(held_out))
            tally.count("good samples held out and let through", sum(value <= self.threshold for value in held_out))

    def process(self, document: Document) -> str | None:
        """Compare its perplexity with the threshold."""
        perplexity = self._model.perplexity(document.text)
        document.metadata["perplexity"] = perplexity
        return "perplexity too high" if perplexity > self.threshold else None


@lru_cache(maxsize=2)
def _learn(samples: Samples, most: int, order: int) -> tuple[ByteModel, tuple[float, ...]]:
    learnt_from, held_out = hold_out(samples.read(LEAST, most))
    model = ByteModel(learnt_from, order)
    return model, tuple(model.perplexity(text) for text in held_out)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)


def _keys(data: NDArray[np.uint8], length: int) -> _Keys:
    """Return each run of bytes as a number, the first byte the most significant."""
    keys = np.zeros(len(data) - length + 1, dtype=np.uint64)
    for at in range(length):
        keys = (keys << _BYTE) | data[at : at + len(keys)]
    return keys
