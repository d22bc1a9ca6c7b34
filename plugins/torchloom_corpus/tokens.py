"""Blocks that make tokens of documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError
from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.documents import Block, read_documents, write_tallies
from torchloom_corpus.shards import Shard, ShardWriter, TokenizerRecord, content_hash, write_whole

_BATCH_CHARACTERS = 1 << 20
_BATCH_DOCUMENTS = 1024


class TrainTokenizer(Block):
    """Trains a tokenizer on the documents of all tasks, in order, unless it is trained already; saves its state.

    Args:
        tokenizer: Untrained, or loaded when it was built.
        documents: Folder of the documents.
        tasks: Number of their tasks.
        sample: Share of the documents to train on, chosen by their ids.
        state: File for the state.
    """

    def __init__(self, tokenizer: Tokenizer, documents: Path, tasks: int, sample: int | None, state: Path) -> None:
        super().__init__()
        self.tokenizer, self.documents, self.tasks, self.sample, self.state = tokenizer, documents, tasks, sample, state

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Train, as the only task."""
        if not self.tokenizer.trained:
            self.tokenizer.train(self._texts())
        write_whole(self.state, self.tokenizer.state().encode("utf-8"))

    def _texts(self) -> Iterator[str]:
        bound = 2**64
        if self.sample is not None:
            count = sum(1 for _ in self._documents())
            bound = bound * self.sample // max(count, self.sample)
        for document in self._documents():
            if _random(document.id) < bound:
                yield document.text

    def _documents(self) -> Iterator[Document]:
        for task in range(self.tasks):
            yield from read_documents(self.documents, task)


class Tokenise(Block):
    """Writes the tokens of a task's documents as a shard.

    Args:
        tokenizer: Untrained; takes what `TrainTokenizer` saved.
        name: Of its component.
        config: Its settings, as plain values.
        state: File of its state.
        out: Folder of the corpus.
        shards: Folder for what the manifest says of shards.
        tallies: Folder for counts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str,
        config: dict[str, Any],
        state: Path,
        out: Path,
        shards: Path,
        tallies: Path,
    ) -> None:
        super().__init__()
        self.tokenizer, self.component, self.config, self.state = tokenizer, name, config, state
        self.out, self.shards, self.tallies = out, shards, tallies

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> None:
        """Write the shard of a task."""
        tokenizer, tally = self.tokenizer, StepTally("tokens")
        tokenizer.load_state(self.state.read_text(encoding="utf-8"))
        unknown = tokenizer.special_id("unk")
        with ShardWriter(self.out, rank, TokenizerRecord.of(self.component, self.config, tokenizer)) as writer:
            for batch in _batches(data):
                for document, ids in zip(batch, _encode(tokenizer, batch), strict=True):
                    tokens = writer.add(ids, content_hash(document.text))
                    if not tokens:
                        tally.drop("no tokens", example=document.id, text=document.text)
                        continue
                    tally.keep(document.id, document.text)
                    tally.count("tokens", tokens)
                    tally.observe("tokens", str(tokens.bit_length() - 1))
                    if unknown is not None:
                        tally.count("unknown tokens", int(np.count_nonzero(ids == unknown)))
        self.shards.mkdir(parents=True, exist_ok=True)
        write_whole(self.shards / f"{rank:05d}.json", json.dumps(asdict(writer.shard)).encode())
        write_tallies(self.tallies, rank, [tally])


def read_shards(folder: Path) -> list[Shard]:
    """Return what `Tokenise` wrote of each shard, in order."""
    return [Shard(**json.loads(path.read_bytes())) for path in sorted(folder.glob("*.json"))]


def tokens_a_byte(tokenizer: Tokenizer, texts: list[str]) -> float | None:
    """Return the number of tokens a byte of UTF-8 in a sample, or None where the tokenizer does not know its characters."""
    size = sum(len(text.encode()) for text in texts)
    if not size:
        return None
    try:
        return sum(len(ids) for ids in tokenizer.encode_batch(texts)) / size
    except DataError:
        return None


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents: few enough to hold, enough to keep a tokenizer's threads busy."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(tokenizer: Tokenizer, batch: list[Document]) -> Iterable[NDArray[np.integer[Any]]]:
    try:
        return tokenizer.encode_batch([document.text for document in batch])
    except DataError:
        for document in batch:  # which of them was it?
            try:
                tokenizer.encode(document.text)
            except DataError as error:
                raise DataError(f"document '{document.id}': {error}") from error
        raise


def _random(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "replace"), digest_size=8, key=b"sample").digest())
