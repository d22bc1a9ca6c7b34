"""Near-duplicate documents by MinHash and locality-sensitive hashing.

Of datatrove's blocks for the same, the signature needs a tokenizer of the document's language, keeps a matrix of all
shingles by all hashes in memory, and multiplies modulo 2^61 - 1 in 64 bits, which overflow; here words are found in any
language (`torchloom_corpus.dedup.words`), and permutations are modulo 2^64. The later ones are replaced as told in
`torchloom_corpus.dedup.runs`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash
from datatrove.pipeline.base import PipelineStep
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from torchloom_corpus.contracts import Pass
from torchloom_corpus.dedup.runs import (
    EDGE,
    HELD,
    PIECE,
    Names,
    Records,
    natural,
    pack,
    records,
    unpack,
    write_sizes,
)
from torchloom_corpus.dedup.step import DocumentDeduplication
from torchloom_corpus.dedup.words import ngram_hashes, permutations, signature, word_hashes


class MinHash(DocumentDeduplication):
    """Drops documents that share all rows of a band of their signatures with another one, directly or in a chain.

    A document without a word is never alike.

    Source: Broder 1997, On the resemblance and containment of documents; Leskovec et al., Mining of Massive Datasets,
    chapter 3; Penedo et al. 2024 (FineWeb), https://arxiv.org/abs/2406.17557.
    """

    label = "minhash"
    settings = ("bands", "rows", "shingle", "seed")
    reason = "near duplicate"
    verdicts = "verdicts"

    def digests(self, text: str) -> Iterator[tuple[int, bytes]]:
        """Return the hash of each band of the text's signature."""
        bands, rows = self.config.bands, self.config.rows
        shingles = ngram_hashes(word_hashes(text), self.config.shingle)
        if len(shingles):
            smallest = signature(shingles, *permutations(self.config.seed, bands * rows)).tobytes()
            for band in range(bands):
                yield band, xxhash.xxh3_128_digest(smallest[8 * rows * band : 8 * rows * (band + 1)], seed=band)

    def passes(self, tasks: int) -> list[Pass]:
        """Return the passes that find equal bands, make clusters of documents, and thin the index out."""
        passes = [
            Pass("merge", [self.merge("one")], tasks),
            Pass("cluster", [Cluster(self.folder, self.names, self.indexes, self.config.keep)]),
        ]
        if self.config.save_index:
            passes.append(Pass("index", [Thin(self.folder)], tasks))
        return passes


class Cluster(PipelineStep):  # type: ignore[misc]
    """Finds the clusters of documents that edges connect, and writes which documents are dropped.

    Memory holds some hundred bytes for each document that is like another one, and nothing of the rest.

    Args:
        folder: Holds ``edges``; gets ``verdicts`` and ``sizes``.
        names: Folder of the ids.
        against: Folders of existing corpora's indexes.
        keep: What stays of a cluster. Nothing does of one that meets an existing corpus.
    """

    name = "Cluster"
    type = "DEDUP"

    def __init__(self, folder: Path, names: Path, against: list[Path], keep: Literal["one", "none"]) -> None:
        super().__init__()
        self.folder = folder
        self.names = names
        self.against = against
        self.keep = keep

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the verdicts, over those of an earlier try."""
        places = np.empty(0, np.uint64)
        for here, found in self._edges():
            own = found["corpus"] == 0
            places = np.unique(np.concatenate([places, here, pack(found["task"], found["other"])[own]]))
        labels, existing = self._connect(places)
        verdicts = np.zeros(len(places), EDGE)
        dropped = np.ones(len(places), np.bool_)
        sizes: Counter[int] = Counter()
        order = np.argsort(labels, kind="stable")
        names = Names(self.names)
        bounds = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
        for start, end in pairwise(bounds.tolist()):
            members = order[start:end]
            met = members[existing["corpus"][members] > 0]
            sizes[len(members) + (len(met) > 0)] += 1
            if len(met):
                own = existing["corpus"][members] > 0
                kept = np.where(own, members, met[0])
                for field in ("corpus", "task", "other"):
                    verdicts[field][members] = existing[field][kept]
            else:
                ids = names(places[members].tolist())
                first = members[min(range(len(ids)), key=lambda member: natural(ids[member]))]
                verdicts["task"][members], verdicts["other"][members] = unpack(int(places[first]))
                dropped[first] = self.keep == "none"
        verdicts["document"] = places & np.uint64(0xFFFFFFFF)
        tasks = places >> np.uint64(32)
        shutil.rmtree(self.folder / "verdicts", ignore_errors=True)
        for task in np.unique(tasks).tolist():
            folder = self.folder / "verdicts" / f"{task:05d}"
            folder.mkdir(parents=True)
            (folder / "cluster.bin").write_bytes(verdicts[(tasks == task) & dropped].tobytes())
        shutil.rmtree(self.folder / "sizes", ignore_errors=True)  # those of bands
        write_sizes(self.folder / "sizes" / "cluster.json", sizes)

    def _edges(self) -> Iterator[tuple[Any, Records]]:
        """Yield edges, so many at a time as fit, with the places they begin at."""
        held: list[tuple[Any, Records]] = []
        for folder in sorted((self.folder / "edges").iterdir()):
            for path in sorted(folder.glob("*.bin")):
                for start in range(0, path.stat().st_size // EDGE.itemsize, HELD):
                    taken = records(path, EDGE, start, HELD)
                    held.append((pack(int(folder.name), taken["document"]), taken))
                    if sum(len(taken) for _, taken in held) >= HELD:
                        yield np.concatenate([here for here, _ in held]), np.concatenate([taken for _, taken in held])
                        held = []
        if held:
            yield np.concatenate([here for here, _ in held]), np.concatenate([taken for _, taken in held])

    def _connect(self, places: Any) -> tuple[Any, Records]:
        """Return the cluster of each place, and where it meets an existing corpus."""
        labels = np.arange(len(places))
        existing = np.zeros(len(places), EDGE)
        for here, found in self._edges():
            own = found["corpus"] == 0
            starts = np.searchsorted(places, here)
            ends = np.searchsorted(places, pack(found["task"], found["other"])[own])
            pairs = (labels[starts[own]], labels[ends])
            graph = coo_array((np.ones(len(ends), np.bool_), pairs), shape=(len(places), len(places)))
            labels = connected_components(graph, directed=False)[1][labels]
            existing[starts[~own]] = found[~own]
        return labels, existing


class Thin(PipelineStep):  # type: ignore[misc]
    """Takes out of the index what stands for no document that stays.

    Args:
        folder: Holds ``verdicts`` and ``index``.
    """

    name = "Thin"
    type = "DEDUP"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write one file of the index anew."""
        path = self.folder / "index" / "pieces" / f"{rank:05d}.bin"
        gone = [np.empty(0, np.uint64)]
        for file in sorted((self.folder / "verdicts").glob("*/cluster.bin")):
            gone.append(pack(int(file.parent.name), records(file, EDGE)["document"]))
        dropped = np.concatenate(gone)
        part = path.with_suffix(".part")
        with part.open("wb") as target:
            for start in range(0, path.stat().st_size // PIECE.itemsize, HELD):
                held = records(path, PIECE, start, HELD)
                # A piece stands under the first of its documents, which is dropped only if the others are.
                target.write(held[~np.isin(pack(held["task"], held["document"]), dropped)].tobytes())
        part.replace(path)
