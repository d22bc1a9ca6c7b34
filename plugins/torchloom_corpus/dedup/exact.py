"""Exact deduplication of documents, paragraphs and lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.dedup.runs import EDGE, records
from torchloom_corpus.dedup.step import Deduplication, DocumentDeduplication
from torchloom_corpus.dedup.words import digest, word_pattern


class ExactDocuments(DocumentDeduplication):
    """Drops documents whose normalised text another document has."""

    label = "exact_documents"
    settings = ("normalise",)
    reason = "exact duplicate"
    verdicts = "edges"

    def digests(self, text: str) -> Iterator[tuple[int, bytes]]:
        """Return the hash of the whole text."""
        yield 0, digest(text, self.config.normalise)


class ExactLines(Deduplication):
    """Cuts lines out that stand elsewhere, in the same document too."""

    label = "exact_lines"
    settings = ("normalise", "min_characters")
    unit = "lines"
    glue = "\n"

    def split(self, text: str) -> list[str]:
        """Return the lines of a text, which `glue` puts together again."""
        return text.split("\n")

    def digests(self, text: str) -> Iterator[tuple[int, bytes]]:
        """Return the hashes of the lines that are long enough."""
        for number, line in enumerate(self.split(text)):
            if len(line.strip()) >= self.config.min_characters:
                yield number, digest(line, self.config.normalise)

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read which lines of the task are cut: 8 bytes each."""
        super().start(tally, rank, world)
        keys = []
        for path in sorted((self.folder / "edges" / f"{rank:05d}").glob("*.bin")):
            found = records(path, EDGE)
            # One number each, in the order in which they are asked for; the lowest bit: in an existing corpus.
            keys.append(found["document"].astype(np.uint64) << np.uint64(32))
            keys[-1] |= (found["piece"].astype(np.uint64) << np.uint64(1)) | (found["corpus"] > 0)
        self._keys = np.concatenate([np.empty(0, np.uint64), *keys])
        self._keys.sort()
        self._at = 0
        self._number = -1

    def process(self, document: Document) -> str | None:
        """Cut repeated lines; drop the document if too little is left of it."""
        self._number += 1
        cut: set[int] = set()
        existing = 0
        while self._at < len(self._keys) and int(self._keys[self._at]) >> 32 == self._number:
            key = int(self._keys[self._at]) & 0xFFFFFFFF
            cut.add(key >> 1)
            existing += key & 1
            self._at += 1
        if not cut:
            return None
        parts = self.split(document.text)
        size = sum(len(parts[number].encode("utf-8", "replace")) for number in cut)
        self.tally.count(f"repeated {self.unit} cut", len(cut) - existing)
        self.tally.count(f"{self.unit} of existing corpora cut", existing)
        self.tally.count(f"bytes of {self.unit} cut", size)
        text = self.glue.join(part for number, part in enumerate(parts) if number not in cut).strip()
        words = word_pattern().finditer(text)
        if sum(1 for _, _ in zip(range(self.config.min_words_left), words, strict=False)) < self.config.min_words_left:
            return "too little left"
        document.text = text
        return None


class ExactParagraphs(ExactLines):
    """Cuts paragraphs out that stand elsewhere, in the same document too; blank lines part paragraphs."""

    label = "exact_paragraphs"
    unit = "paragraphs"
    glue = "\n\n"

    def split(self, text: str) -> list[str]:
        """Return the paragraphs of a text."""
        return re.split(r"\n[^\S\n]*\n\s*", text)
