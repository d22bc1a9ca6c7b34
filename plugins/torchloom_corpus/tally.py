"""Counts of what a build did: they are made in every task, saved when it is complete, and added up for the report."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Examples kept of each reason."""
SAMPLES = 100
"""Documents kept of each step's output, from which tokens are estimated."""
SAMPLE_CHARACTERS = 2000
"""Characters kept of each: a task saves a sample of every step, so that it must be small."""
EXCERPT = 300
"""Characters of a document that an example shows."""


@dataclass
class Sample:
    """A fixed-size random sample: the items whose keys have the smallest hashes.

    It is the same whatever the order of the items and however they were dealt to tasks, and samples can be merged.
    """

    size: int
    items: list[tuple[int, str, Any]] = field(default_factory=list)  # a heap of (-hash, key, item)

    def wants(self, key: str) -> bool:
        """Whether an item of this key would be kept, for items that are dear to make."""
        return len(self.items) < self.size or -_hash(key) > self.items[0][0]

    def add(self, key: str, item: Any) -> None:
        """Offer an item."""
        entry = (-_hash(key), key, item)
        if len(self.items) < self.size:
            heapq.heappush(self.items, entry)
        elif entry[0] > self.items[0][0]:
            heapq.heapreplace(self.items, entry)

    def merge(self, other: Sample) -> None:
        """Take in another sample."""
        for _, key, item in other.items:
            self.add(key, item)

    def values(self) -> list[Any]:
        """Return the items in an order that depends on nothing but them."""
        return [item for _, _, item in sorted(self.items, key=lambda entry: entry[:2])]


class StepTally:
    """What one step did in one task, or in all of them once merged.

    Attributes:
        name: Name of the step's component.
        documents: Documents it let through.
        bytes: UTF-8 bytes of them.
        characters: Characters of them.
        dropped: Documents dropped, by reason.
        dropped_bytes: UTF-8 bytes of the dropped ones, by reason.
        counts: Whatever else the step counts.
        histograms: Named histograms: of lengths (documents by floor(log2(characters)) of their text) and of languages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents = 0
        self.bytes = 0
        self.characters = 0
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.histograms: dict[str, Counter[str]] = {}
        self._examples: dict[str, Sample] = {}
        self._texts = Sample(SAMPLES)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a named count."""
        if number:
            self.counts[what] += number

    def observe(self, histogram: str, value: str, number: int = 1) -> None:
        """Add to a bar of a named histogram."""
        self.histograms.setdefault(histogram, Counter())[value] += number

    def drop(
        self, reason: str, *, example: str, text: str = "", size: int | None = None, like: str | None = None
    ) -> None:
        """Count a document or record that was dropped.

        Args:
            reason: One of a small fixed set.
            example: Names it: the document's id, the file and record.
            text: Its text, of which an excerpt is kept where it becomes an example.
            size: Its bytes; of the text unless given.
            like: The document that it is a copy of.
        """
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += _bytes(text) if size is None else size
        examples = self._examples.setdefault(reason, Sample(EXAMPLES))
        if examples.wants(example):
            shown = {"id": example, "text": text[:EXCERPT]}
            examples.add(example, shown if like is None else {**shown, "like": like})

    def keep(self, identity: str, text: str) -> None:
        """Count a document that was let through."""
        self.documents += 1
        self.bytes += _bytes(text)
        self.characters += len(text)
        if self._texts.wants(identity):
            self._texts.add(identity, text[:SAMPLE_CHARACTERS])
        self.observe("length", str(len(text).bit_length() - 1) if text else "empty")

    @property
    def examples(self) -> dict[str, list[dict[str, str]]]:
        """Examples of dropped documents by reason: ``{"id", "text"}`` each, and ``"like"`` for a copy."""
        return {reason: sample.values() for reason, sample in sorted(self._examples.items())}

    @property
    def texts(self) -> list[str]:
        """A random sample of the texts let through, each at most `SAMPLE_CHARACTERS` long."""
        return self._texts.values()

    def merge(self, other: StepTally) -> None:
        """Add another task's tally of the same step."""
        self.documents += other.documents
        self.bytes += other.bytes
        self.characters += other.characters
        self.dropped += other.dropped
        self.dropped_bytes += other.dropped_bytes
        self.counts += other.counts
        for name, bars in other.histograms.items():
            self.histograms.setdefault(name, Counter()).update(bars)
        for reason, sample in other._examples.items():
            self._examples.setdefault(reason, Sample(EXAMPLES)).merge(sample)
        self._texts.merge(other._texts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `from_dict` takes them."""
        return {
            "name": self.name,
            "documents": self.documents,
            "bytes": self.bytes,
            "characters": self.characters,
            "dropped": dict(self.dropped),
            "dropped_bytes": dict(self.dropped_bytes),
            "counts": dict(self.counts),
            "histograms": {name: dict(bars) for name, bars in self.histograms.items()},
            "examples": {reason: sample.items for reason, sample in self._examples.items()},
            "texts": self._texts.items,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StepTally:
        """Rebuild a tally from `to_dict`."""
        tally = cls(values["name"])
        tally.documents, tally.bytes, tally.characters = values["documents"], values["bytes"], values["characters"]
        tally.dropped, tally.dropped_bytes = Counter(values["dropped"]), Counter(values["dropped_bytes"])
        tally.counts = Counter(values["counts"])
        tally.histograms = {name: Counter(bars) for name, bars in values["histograms"].items()}
        tally._examples = {reason: _sample(EXAMPLES, items) for reason, items in values["examples"].items()}
        tally._texts = _sample(SAMPLES, values["texts"])
        return tally


def _sample(size: int, items: list[list[Any]]) -> Sample:
    return Sample(size, [(entry[0], entry[1], entry[2]) for entry in items])


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest(), "big")
