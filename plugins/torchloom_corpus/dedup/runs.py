"""Finding equal things among more than memory holds: hashes in sorted runs on disk, merged range by range.

Whatever is compared (a document, a line, a band of a MinHash signature) is a *piece*: one record of its 128-bit hash and
its place. In a run, pieces that are equal are settled at once: one record stays for all of them, and an *edge* is written
from each other's place to it. Runs are then merged, each task taking one range of hashes, and in it as many hashes at a
time as fit; that leaves edges between documents of different runs and tasks. So memory depends on how much is held at a
time, not on how large the corpus is or how often a piece occurs in it.

datatrove's own blocks (``ExactDedup``, ``MinhashDedupBuckets``) are not used, as they keep whichever copy comes to stand
first, cannot drop all copies, forget which document of an existing corpus was met, and merge one record at a time.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from datatrove.pipeline.base import PipelineStep

from torchloom_corpus.contracts import Document

PIECE = np.dtype(
    [
        ("hash", "<u8"),
        ("check", "<u8"),  # the other half of the hash
        ("corpus", "<u4"),  # 0: the one being built; k: the k-th existing one
        ("task", "<u4"),
        ("document", "<u4"),  # its number in the task
        ("piece", "<u4"),  # its number in the document
        ("copies", "<u4"),  # how many equal pieces the record stands for
    ]
)
EDGE = np.dtype(
    [
        ("document", "<u4"),
        ("piece", "<u4"),
        ("corpus", "<u4"),  # of the place that the piece equals
        ("task", "<u4"),
        ("other", "<u4"),  # document of that place
    ]
)
Records: TypeAlias = npt.NDArray[Any]
Digests: TypeAlias = Callable[[str], Iterable[tuple[int, bytes]]]

HELD = 1 << 17
"""Pieces held at a time, 36 bytes each."""


def natural(identity: str) -> str:
    """Return what orders ids as people do: numbers by value, ``page/9`` before ``page/10``."""
    ordered = re.sub("[0-9]+", lambda found: f"{chr(48 + len(number := found[0].lstrip('0')))}{number}", identity)
    return f"{ordered}\0{identity}"


class Names:
    """Ids of documents by place (see `pack`), read from disk as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, places: Iterable[int]) -> list[str]:
        """Return the ids of documents."""
        found = []
        for task, places_there in groupby(places, lambda place: place >> 32):
            texts, ends = files_of_names(self._folder, task)
            with texts.open("rb", buffering=0) as text_file, ends.open("rb", buffering=0) as end_file:
                for place in places_there:
                    bounds = os.pread(end_file.fileno(), 16, 8 * (place & 0xFFFFFFFF))
                    start, end = (int.from_bytes(bound, "little") for bound in (bounds[:8], bounds[8:]))
                    found.append(os.pread(text_file.fileno(), end - start, start).decode("utf-8", "surrogatepass"))
        return found


def files_of_names(folder: Path, task: int) -> tuple[Path, Path]:
    """Return where a task's ids are: one behind the other, and where each ends (and, ahead, 0)."""
    return folder / f"{task:05d}.txt", folder / f"{task:05d}.ends"


def records(path: Path, dtype: np.dtype[Any], start: int = 0, count: int = -1) -> Records:
    """Read records of a file: `count` of them, or all, from number `start` on.

    Files are not mapped, as their pages would be counted as the process's memory.
    """
    return np.fromfile(path, dtype, count, offset=start * dtype.itemsize)


def position(path: Path, bound: int) -> int:
    """Return how many pieces of a run have hashes below a bound."""
    with path.open("rb", buffering=0) as file:
        numbers = range(path.stat().st_size // PIECE.itemsize)
        return bisect_left(
            numbers,
            bound,
            key=lambda number: int.from_bytes(os.pread(file.fileno(), 8, number * PIECE.itemsize), "little"),
        )


def settle(pieces: Records, names: Callable[[list[int]], list[str]]) -> tuple[Records, npt.NDArray[np.bool_], Records]:
    """Bring equal pieces together.

    Args:
        pieces: Records of `PIECE`.
        names: Gives the ids of documents of the corpus being built, by place.

    Returns:
        The pieces by hash and, among equal ones, those of existing corpora first, then by id and place in the document;
        whether each is the first of its equals; and the group it belongs to.
    """
    pieces = pieces[np.lexsort((pieces["check"], pieces["hash"]))]
    first = np.ones(len(pieces), np.bool_)
    first[1:] = (pieces["hash"][1:] != pieces["hash"][:-1]) | (pieces["check"][1:] != pieces["check"][:-1])
    group = np.cumsum(first) - 1
    shared = np.bincount(group)[group] > 1
    if shared.any():
        part = pieces[shared]
        own = part["corpus"] == 0
        places, inverse = np.unique(pack(part["task"], part["document"])[own], return_inverse=True)
        keys = [natural(name) for name in names(places.tolist())]
        rank = np.empty(len(keys), np.int64)
        rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        order = part["corpus"].astype(np.int64) - (1 << 32)  # before any rank
        order[own] = rank[inverse]
        pieces[shared] = part[np.lexsort((part["piece"], order, group[shared]))]
    return pieces, first, group


def pack(task: Any, document: Any) -> Any:
    """Return one number for the place of a document."""
    return (np.asarray(task, np.uint64) << np.uint64(32)) | np.asarray(document, np.uint64)


def unpack(place: int) -> tuple[int, int]:
    """Return task and number in it from `pack`."""
    return place >> 32, place & 0xFFFFFFFF


def edges(dropped: Records, firsts: Records) -> Records:
    """Return the edges from pieces to the ones that stand for them."""
    made = np.empty(len(dropped), EDGE)
    made["document"], made["piece"] = dropped["document"], dropped["piece"]
    made["corpus"], made["task"], made["other"] = firsts["corpus"], firsts["task"], firsts["document"]
    return made


class Observe(PipelineStep):  # type: ignore[misc]
    """Writes the pieces of a task's documents as sorted runs, the edges within each, and the documents' ids.

    Args:
        digests: Gives number and 128-bit hash of each piece of a text.
        folder: Gets ``runs`` and ``edges``.
        names: Folder for the ids.
    """

    name = "Observe"
    type = "DEDUP"

    def __init__(self, digests: Digests, folder: Path, names: Path) -> None:
        super().__init__()
        self.digests = digests
        self.folder = folder
        self.names = names

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> None:
        """Consume the documents; everything written by an earlier try is overwritten."""
        runs, kept = self.folder / "runs", self.folder / "edges" / f"{rank:05d}"
        for folder in (runs, kept, self.names):
            folder.mkdir(parents=True, exist_ok=True)
        for path in runs.glob(f"{rank:05d}_*"):
            path.unlink()
        texts, ends = files_of_names(self.names, rank)
        run = _Run(rank)
        written = end = 0
        with texts.open("wb") as text_file, ends.open("wb") as end_file, (kept / "local.bin").open("wb") as edge_file:
            end_file.write(bytes(8))
            for number, document in enumerate(data):
                identity = document.id.encode("utf-8", "surrogatepass")
                text_file.write(identity)
                end += len(identity)
                end_file.write(end.to_bytes(8, "little"))
                run.add(number, document.id, self.digests(document.text))
                if len(run.pieces) >= HELD:
                    run.write(runs / f"{rank:05d}_{written:06d}.bin", edge_file)
                    written += 1
                    run = _Run(rank)
            run.write(runs / f"{rank:05d}_{written:06d}.bin", edge_file)


class _Run:
    """Pieces of consecutive documents of a task, until there are enough of them."""

    def __init__(self, task: int) -> None:
        self.task = task
        self.ids: dict[int, str] = {}
        self.documents: list[int] = []
        self.pieces: list[int] = []
        self.hashes = bytearray()

    def add(self, number: int, identity: str, digests: Iterable[tuple[int, bytes]]) -> None:
        self.ids[number] = identity
        for piece, hashed in digests:
            self.documents.append(number)
            self.pieces.append(piece)
            self.hashes += hashed

    def write(self, path: Path, edge_file: BinaryIO) -> None:
        pieces = np.zeros(len(self.pieces), PIECE)
        hashes = np.frombuffer(self.hashes, "<u8").reshape(-1, 2)
        pieces["hash"], pieces["check"] = hashes[:, 0], hashes[:, 1]
        pieces["task"], pieces["document"], pieces["piece"], pieces["copies"] = (
            self.task,
            self.documents,
            self.pieces,
            1,
        )
        if len(pieces):
            pieces, first, group = settle(pieces, lambda places: [self.ids[place & 0xFFFFFFFF] for place in places])
            firsts = pieces[first]
            edge_file.write(edges(pieces[~first], firsts[group[~first]]).tobytes())
            firsts["copies"] = np.bincount(group)
            pieces = firsts
        path.write_bytes(pieces.tobytes())


class Merge(PipelineStep):  # type: ignore[misc]
    """Merges the runs of all tasks; each of its own tasks takes one range of hashes.

    Args:
        folder: Holds ``runs``, and gets more ``edges``, and ``sizes`` of groups.
        names: Folder of the ids.
        against: Folders of existing corpora's indexes.
        keep: Whether one of equal pieces stays. One that meets an existing corpus never does.
        index: Folder that gets the pieces that stay, where an index is kept.
    """

    name = "Merge"
    type = "DEDUP"

    def __init__(
        self, folder: Path, names: Path, against: Sequence[Path], keep: Literal["one", "none"], index: Path | None
    ) -> None:
        super().__init__()
        self.folder = folder
        self.names = names
        self.against = list(against)
        self.keep = keep
        self.index = index

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Merge one range of hashes; everything written by an earlier try is overwritten."""
        names = Names(self.names)
        corpora = [(0, self.folder / "runs"), *((k, index / "pieces") for k, index in enumerate(self.against, 1))]
        files = [(corpus, path) for corpus, folder in corpora for path in sorted(folder.glob("*.bin"))]
        targets = {int(folder.name): folder / f"{rank:05d}.bin" for folder in (self.folder / "edges").iterdir()}
        for path in targets.values():
            path.write_bytes(b"")
        if self.index is not None:
            (self.index / "pieces").mkdir(parents=True, exist_ok=True)
            index_path = self.index / "pieces" / f"{rank:05d}.bin"
            index_path.write_bytes(b"")

        low, high = (rank << 64) // world_size, ((rank + 1) << 64) // world_size
        starts = [position(path, low) for _, path in files]
        parts = 1 + sum(position(path, high) - start for (_, path), start in zip(files, starts, strict=True)) // HELD
        sizes: Counter[int] = Counter()
        for part in range(parts):
            ends = [position(path, low + (high - low) * (part + 1) // parts) for _, path in files]
            taken = [np.empty(0, PIECE)]
            for (corpus, path), start, end in zip(files, starts, ends, strict=True):
                taken.append(records(path, PIECE, start, end - start))
                taken[-1]["corpus"] = corpus
            starts = ends
            pieces = np.concatenate(taken)
            if not len(pieces):
                continue
            pieces, first, group = settle(pieces, names)
            copies = np.bincount(group, weights=pieces["copies"]).astype(np.int64)
            sizes.update(copies[copies > 1].tolist())
            own = pieces["corpus"] == 0
            stays = first & own & (copies[group] == 1 if self.keep == "none" else True)
            dropped = own & ~stays
            found = edges(pieces[dropped], pieces[first][group[dropped]])
            tasks = pieces["task"][dropped]
            for task in np.unique(tasks).tolist():
                with targets[task].open("ab") as file:
                    file.write(found[tasks == task].tobytes())
            if self.index is not None:
                staying = pieces[stays]
                staying["copies"] = 1
                with index_path.open("ab") as file:
                    file.write(staying.tobytes())
        write_sizes(self.folder / "sizes" / f"{rank:05d}.json", sizes)


def write_sizes(path: Path, sizes: Counter[int]) -> None:
    """Write how many groups of each size there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sorted(sizes.items())), encoding="utf-8")


def read_sizes(folder: Path) -> Counter[int]:
    """Add up what `write_sizes` wrote."""
    total: Counter[int] = Counter()
    for path in folder.glob("*.json"):
        total.update(dict(json.loads(path.read_text(encoding="utf-8"))))
    return total
