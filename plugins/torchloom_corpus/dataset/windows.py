"""Windows over the documents of a split, read from shards where they lie."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom_corpus.shards import Corpus

_FOREVER = 1 << 60

Ints = NDArray[np.int64]
Chooser = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]


class Stream:
    """The documents of one split of a corpus, end to end as if the others were not there.

    Neighbouring documents of a shard are one piece, so that what is kept in memory grows with the number of documents
    left out, not with the tokens.
    """

    def __init__(self, corpus: Corpus, choose: Chooser | None = None) -> None:
        """Find the documents.

        Args:
            corpus: Opened.
            choose: Content hashes ``(documents,)`` to whether each is of this split; all are, and no index is read,
                unless given.
        """
        self.corpus = corpus
        self.documents = 0
        shards: list[Ints] = []
        begins: list[Ints] = []
        sizes: list[Ints] = []
        for number, shard in enumerate(corpus.shards):
            if choose is None:
                self.documents += shard.documents
                edges = np.array([0, shard.tokens], np.int64) if shard.documents else np.zeros(0, np.int64)
            else:
                chosen = choose(corpus.hashes(number))
                self.documents += int(chosen.sum())
                # Where a run of chosen documents begins or ends, by turns.
                edges = corpus.offsets(number)[np.flatnonzero(np.diff(chosen, prepend=False, append=False))]
            begins.append(edges[::2])
            sizes.append(edges[1::2] - edges[::2])
            shards.append(np.full(len(edges) // 2, number))
        # Behind the last document there is padding without end, as a piece of shard -1.
        self._shards = np.concatenate([*shards, [-1]])
        self._begins = np.concatenate([*begins, [0]])
        self._starts = np.concatenate([[0], *sizes, [_FOREVER]]).cumsum()
        described = corpus.manifest["tokenizer"]
        self._mark = described["end"] if described["begin"] is None else described["begin"]

    def __len__(self) -> int:
        return int(self._starts[-2])

    def read(self, starts: Ints, size: int, packed: bool) -> dict[str, Ints]:
        """Read windows.

        Args:
            starts: Place of the first token of each ``(batch,)``.
            size: Tokens of each; what reaches behind the last document is 0.
            packed: Whether to tell the documents apart.

        Returns:
            ``tokens``: int64 ``(batch, size)``. ``documents``, where ``packed``: int64 ``(batch, size)``, a number that
            grows wherever a document begins. Where the end of a document is marked by a token and its beginning is not,
            that token counts as the first of the document behind it.
        """
        pieces = self._pieces(starts, size)
        tokens = np.empty((len(starts), size), np.int64)
        corpus, padding = self.corpus, np.zeros(size, np.uint16)
        slices = [
            corpus.tokens(shard)[begin : begin + length] if shard >= 0 else padding[:length]
            for shard, begin, length in pieces
        ]
        np.concatenate(slices, out=tokens.reshape(-1))
        if not packed:
            return {"tokens": tokens}
        # The marking token tells where documents begin without a look at the index.
        begins = tokens == self._mark if self._mark is not None else self._beginnings(pieces, tokens.shape)
        return {"tokens": tokens, "documents": begins.cumsum(axis=1, dtype=np.int64)}

    def _pieces(self, starts: Ints, size: int) -> list[tuple[int, int, int]]:
        """Return ``(shard, first token, length)`` of everything that windows are put together from, in order."""
        pieces = []
        first = self._starts.searchsorted(starts, "right") - 1
        begins, rooms = self._begins[first] + starts - self._starts[first], self._starts[first + 1] - starts
        rows = zip(first.tolist(), self._shards[first].tolist(), begins.tolist(), rooms.tolist(), strict=True)
        for piece, shard, begin, room in rows:
            wanted = size
            while room < wanted:
                pieces.append((shard, begin, room))
                wanted -= room
                piece += 1
                shard, begin = int(self._shards[piece]), int(self._begins[piece])
                room = int(self._starts[piece + 1] - self._starts[piece])
            pieces.append((shard, begin, wanted))
        return pieces

    def _beginnings(self, pieces: Sequence[tuple[int, int, int]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return where documents begin, ``shape``, by the indices of the shards."""
        marks = np.zeros(shape, np.bool_)
        flat, place = marks.reshape(-1), 0
        for shard, begin, length in pieces:
            if shard >= 0:
                offsets = self.corpus.offsets(shard)
                low, high = offsets.searchsorted((begin, begin + length))
                flat[offsets[low:high] + (place - begin)] = True
            place += length
        return marks


class MixedWindows(Split):
    """Training windows over one stream or several, each giving its share of every epoch.

    A stream is tiled by windows from an offset which every pass over it draws anew; neighbours share one token, the last
    target of one being the first input of the next, so that a pass predicts no token twice. An epoch takes as many
    windows of a stream as its weight says, the next epoch goes on behind them, and when all have been taken a new pass
    begins: what a stream gives is a function of its share of all draws so far, so that an epoch may take a part of a
    pass, or several. In which order it gives its windows is drawn too.
    """

    def __init__(self, streams: Sequence[Stream], weights: Sequence[float], context_length: int, packed: bool) -> None:
        """Lay windows over streams.

        Args:
            streams: At least ``context_length + 1`` tokens long.
            weights: Share of each, in any unit.
            context_length: Distance of windows; each holds one token more.
            packed: Whether batches tell documents apart.
        """
        self._streams = streams
        self._context_length = context_length
        self._packed = packed
        targets = [len(stream) - 1 for stream in streams]
        # One window fewer than there is room for, so that an offset of `context_length` always has room too.
        self._windows = [max(1, count // context_length - 1) for count in targets]
        self._slack = [count - windows * context_length for count, windows in zip(targets, self._windows, strict=True)]
        edges = np.cumsum([0, *weights]) / sum(weights) * sum(self._windows)
        self._edges = np.rint(edges).astype(np.int64)

    def __len__(self) -> int:
        return int(self._edges[-1])

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return windows: see `Stream.read`; without a key, those of a first pass whose offset is 0."""
        numbers = indices.numpy()
        if len(self._streams) == 1:
            return _tensors(self._read(0, numbers, key))
        batch: dict[str, Ints] = {}
        owners = self._edges.searchsorted(numbers, "right") - 1
        for owner in np.unique(owners).tolist():
            rows = np.flatnonzero(owners == owner)
            for name, values in self._read(owner, numbers[rows], key).items():
                batch.setdefault(name, np.empty((len(numbers), values.shape[1]), np.int64))[rows] = values
        return _tensors(batch)

    def _read(self, stream: int, indices: Ints, key: EpochKey | None) -> dict[str, Ints]:
        first, end = self._edges[stream : stream + 2].tolist()
        windows = self._windows[stream]
        draws = indices - first + (end - first) * (0 if key is None else key.epoch)
        passes, places = np.divmod(draws, windows)
        offsets: Ints | int = 0
        if key is not None:
            earliest = int(passes.min())
            orders = [
                _order(windows, self._slack[stream], f"{key.seed} {stream} {number}")
                for number in range(earliest, int(passes.max()) + 1)
            ]
            factors, shifts, offsets = np.array(orders).T[:, passes - earliest]
            places = (places * factors + shifts) % windows
        return self._streams[stream].read(
            places * self._context_length + offsets, self._context_length + 1, self._packed
        )


class FixedWindows(Split):
    """Evaluation windows that cover streams wholly: every token but the first of each is predicted, exactly once."""

    def __init__(self, streams: Sequence[Stream], context_length: int, pad_id: int | None, packed: bool) -> None:
        """Lay windows over streams; none crosses from one to the next.

        Args:
            streams: What is evaluated.
            context_length: Distance of windows; each holds one token more.
            pad_id: What fills the last window of a stream; 0 if there is no such token.
            packed: Whether batches tell documents apart.
        """
        self._streams = streams
        self._context_length = context_length
        self._pad_id = pad_id or 0
        self._packed = packed
        self._edges = np.cumsum([0, *(-(-max(len(stream) - 1, 0) // context_length) for stream in streams)])

    def __len__(self) -> int:
        return int(self._edges[-1])

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return windows as `Stream.read` does, and ``length``: int64 ``(batch,)``, real tokens of each row."""
        numbers, size = indices.numpy(), self._context_length + 1
        owners = self._edges.searchsorted(numbers, "right") - 1
        batch: dict[str, Any] = {"length": np.empty(len(numbers), np.int64)}
        for owner in np.unique(owners).tolist():
            rows = np.flatnonzero(owners == owner)
            starts = (numbers[rows] - self._edges[owner]) * self._context_length
            batch["length"][rows] = np.minimum(len(self._streams[owner]) - starts, size)
            for name, values in self._streams[owner].read(starts, size, self._packed).items():
                batch.setdefault(name, np.empty((len(numbers), size), np.int64))[rows] = values
        batch["tokens"][np.arange(size) >= batch["length"][:, None]] = self._pad_id
        return _tensors(batch)


@lru_cache(1024)
def _order(windows: int, slack: int, seed: str) -> tuple[int, int, int]:
    """Draw a pass: factor and shift that permute its windows, and the offset of the first of them."""
    generator = random.Random(seed)
    largest = min(windows, 1 << 30)  # so that no product leaves 64 bits
    factor = generator.randint(1, largest)
    while math.gcd(factor, windows) > 1:
        factor = generator.randint(1, largest)
    return factor, generator.randrange(windows), generator.randint(0, slack)


def _tensors(arrays: dict[str, Any]) -> Batch:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
