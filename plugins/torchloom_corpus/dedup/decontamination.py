"""Decontamination: finding text of evaluation sets in a corpus, by n-grams of words.

datatrove's ``NGramsDecontIndexer`` needs lighteval, which downloads its tasks; evaluation sets are files here.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchloom.errors import ConfigError, DataError, Problem
from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.dedup.configs import DecontaminateConfig
from torchloom_corpus.dedup.words import Hashes, ngram_hashes, word_hashes, word_spans

SUFFIXES = (".txt", ".jsonl", ".json", ".tsv", ".csv")


@dataclass
class _Sought:
    """N-grams of evaluation sets: 12 bytes each."""

    ngrams: Hashes  # in order, each once
    sources: npt.NDArray[np.int32]  # the file each is from, the first one if several
    files: list[str]
    counts: Counter[str] = field(default_factory=Counter)


class Decontaminate(CorpusStep):
    """Drops documents that share n-grams with an evaluation set, or cuts the passages out.

    A dropped document says what it shares text with: ``metadata["contaminated_by"]``. With ``action="cut"``, what
    remains of a document between cuts is put together with blank lines.

    Source: Brown et al. 2020 (GPT-3), appendix C, https://arxiv.org/abs/2005.14165.
    """

    config: DecontaminateConfig

    def __init__(self, config: DecontaminateConfig) -> None:
        super().__init__(config)
        if not config.paths:
            place = "steps.decontaminate.paths"
            raise ConfigError([Problem(place, "no evaluation set is named", f"{place}=[FILE or FOLDER, ...]")])

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read the evaluation sets.

        Raises:
            DataError: A file is missing, of another kind, or cannot be read; or no text is long enough to be sought.
        """
        super().start(tally, rank, world)
        config = self.config
        self._sought = _read(tuple(config.paths), tuple(config.fields), config.ngram)
        if rank == 0:
            for what, number in self._sought.counts.items():
                tally.count(what, number)

    def process(self, document: Document) -> str | None:
        """Drop or cut the document if it shares text with an evaluation set."""
        words = word_hashes(document.text)
        if len(words) < self.config.ngram:
            return None
        shared, sources = self._matches(ngram_hashes(words, self.config.ngram))
        if len(shared) < self.config.min_matches:
            return None
        files = [self._sought.files[source] for source in np.unique(sources).tolist()]
        for file in files:
            self.tally.count(f"documents that share text with {file}")
        text = self._cut(document.text, shared) if self.config.action == "cut" else None
        if text is None:
            document.metadata["contaminated_by"] = files[0]
            return "contaminated"
        self.tally.count("documents cut")
        self.tally.count(
            "bytes cut", len(document.text.encode("utf-8", "replace")) - len(text.encode("utf-8", "replace"))
        )
        document.text = text
        return None

    def _matches(self, ngrams: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """Return which n-grams of a document are sought, and the files that they are from."""
        at = np.minimum(np.searchsorted(self._sought.ngrams, ngrams), len(self._sought.ngrams) - 1)
        shared = np.flatnonzero(self._sought.ngrams[at] == ngrams)
        return shared, self._sought.sources[at[shared]]

    def _cut(self, text: str, shared: npt.NDArray[np.intp]) -> str | None:
        """Return what is left without the n-grams at these places, or None where that is too little or too torn."""
        spans = word_spans(text)
        starts = spans[shared, 0] - self.config.window
        ends = spans[shared + self.config.ngram - 1, 1] + self.config.window
        # Both grow from match to match, so cuts meet where one begins before the one ahead of it ends.
        apart = np.flatnonzero(starts[1:] > ends[:-1]) + 1
        before = [0, *ends[np.append(apart - 1, len(ends) - 1)].tolist()]
        behind = [*starts[np.append(0, apart)].tolist(), len(text)]
        pieces = [text[max(start, 0) : max(end, 0)].strip() for start, end in zip(before, behind, strict=True)]
        pieces = [piece for piece in pieces if piece]
        left = [piece for piece in pieces if len(piece) >= self.config.min_piece]
        return "\n\n".join(left) if left and len(pieces) <= self.config.max_pieces else None


@lru_cache(maxsize=1)  # a process that serves several tasks reads them once
def _read(paths: tuple[str, ...], fields: tuple[str, ...], n: int) -> _Sought:
    files = [file for path in paths for file in _files(Path(path).expanduser())]
    counts: Counter[str] = Counter()
    ngrams, sources = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for source, file in enumerate(files):
        try:
            for text in _texts(file, frozenset(fields), counts):
                words = word_hashes(text)
                if len(words) < n:
                    counts[f"evaluation texts of fewer than {n} words, not sought"] += 1
                    continue
                counts["evaluation texts sought"] += 1
                ngrams.append(np.unique(ngram_hashes(words, n)))
                sources.append(np.full(len(ngrams[-1]), source, np.int32))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{file}: cannot be read as an evaluation set ({error}).") from error
    unique, first = np.unique(np.concatenate(ngrams), return_index=True)
    if not len(unique):
        where = f" in the fields {', '.join(fields)}" if fields else ""
        raise DataError(
            f"{', '.join(paths)}: no text{where} has {n} words, so nothing would be found.\n"
            "    Lower steps.decontaminate.ngram, or name other files or fields."
        )
    return _Sought(unique, np.concatenate(sources)[first], [str(file) for file in files], counts)


def _files(path: Path) -> list[Path]:
    known = f"Evaluation sets are {', '.join(SUFFIXES)} files, or folders of them."
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"{path}: no evaluation set in this folder.\n    {known}")
        return found
    if not path.is_file():
        raise DataError(f"{path}: no such evaluation set (steps.decontaminate.paths).")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: not a kind of file that evaluation sets are read from.\n    {known}")
    return [path]


def _texts(file: Path, fields: frozenset[str], counts: Counter[str]) -> Iterator[str]:
    """Yield the texts of an evaluation set, passing over records that are broken."""
    suffix = file.suffix.lower()
    with file.open(encoding="utf-8", errors="replace", newline="" if suffix == ".csv" else None) as lines:
        if suffix == ".txt":
            yield lines.read()
        elif suffix == ".json":
            yield from _strings(json.load(lines), fields)
        elif suffix == ".jsonl":
            for line in lines:
                try:
                    record = json.loads(line) if line.strip() else None
                except ValueError:
                    counts["broken evaluation records"] += 1
                    continue
                yield from _strings(record, fields)
        else:
            # Quotes in tab-separated evaluation sets are part of the text.
            rows = csv.reader(lines) if suffix == ".csv" else (line.rstrip("\r\n").split("\t") for line in lines)
            header = next(rows, [])
            if not fields:
                yield from header  # there may be none, and then this is the first record
            for row in rows:
                yield from (cell for name, cell in zip(header, row, strict=False) if name in fields) if fields else row


def _strings(value: Any, fields: frozenset[str], inside: bool = False) -> Iterator[str]:
    """Yield the strings in a JSON value that stand under one of the fields, however deep, or all without fields."""
    if isinstance(value, str):
        if inside or not fields:
            yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, fields, inside or name in fields)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, fields, inside)
