"""Token shards: what a built corpus holds, and what is trained from.

A corpus is a folder::

    manifest.json       what it was made of, by what, its shards and its tokenizer; written last
    tokenizer.json      the tokenizer's state
    tokens/00000.bin    tokens of all documents of task 0, end to end, little-endian, 2 or 4 bytes each
    tokens/00000.idx    where its documents begin, and what tells equal ones

An index is a header of 32 bytes, ``magic 8s, version u32, bytes a token u32, documents u64, tokens u64``; then
``documents + 1`` offsets u64, of which the first is 0 and the last the number of tokens; then ``documents`` content
hashes u64. All of it is little-endian.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchloom.errors import DataError

if TYPE_CHECKING:
    from torchloom.contracts.tokenizer import Tokenizer

MANIFEST = "manifest.json"
FORMAT = "torchloom corpus"
VERSION = 1
TOKENS = "tokens"
TOKENIZER = "tokenizer.json"

_MAGIC = b"TLSHARD\n"
_HEADER = struct.Struct("<8sIIQQ")
_CHUNK = 1 << 20
_OPEN = 256
"""Most files that a corpus keeps mapped; each holds a file descriptor, and a process may have 1024 of them."""


def content_hash(text: str) -> int:
    """Return 64 bits that are the same for equal texts, and as good as never for others."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True)
class TokenizerRecord:
    """A trained tokenizer as a corpus carries it.

    Attributes:
        name: Of the tokenizer's component.
        config: Its settings, as plain values.
        state: `Tokenizer.state`.
        vocab_size: Number of different tokens.
        begin: Token before each document, the tokenizer's ``bos``; None if it has none.
        end: Token behind each document, the tokenizer's ``eos``; None if it has none.
    """

    name: str
    config: dict[str, Any]
    state: str
    vocab_size: int
    begin: int | None = None
    end: int | None = None

    @classmethod
    def of(cls, name: str, config: dict[str, Any], tokenizer: Tokenizer) -> TokenizerRecord:
        """Describe a trained tokenizer; one that was itself taken from a corpus is described as it is there.

        Args:
            name: Of its component.
            config: Its settings, as plain values.
            tokenizer: The tokenizer.
        """
        taken = getattr(tokenizer, "record", None)
        if isinstance(taken, cls):
            return taken
        begin, end = tokenizer.special_id("bos"), tokenizer.special_id("eos")
        return cls(name, config, tokenizer.state(), tokenizer.vocab_size, begin, end)

    @property
    def dtype(self) -> str:
        """Narrowest type that holds every token: ``"uint16"`` for up to 65536 of them, else ``"uint32"``."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    def __str__(self) -> str:
        return f"{self.name} of {self.vocab_size:,} tokens ({self.hash[:8]})"

    @property
    def hash(self) -> str:
        """SHA-256 that is the same for tokenizers that encode alike."""
        return hashlib.sha256(f"{self.name}\n{self.state}".encode()).hexdigest()


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a shard.

    Attributes:
        file: Its tokens, relative to the corpus's folder, such as ``"tokens/00000.bin"``.
        tokens: Number of tokens.
        documents: Number of documents.
        sha256: Of the bytes of the tokens' file, followed by those of the index.
    """

    file: str
    tokens: int
    documents: int
    sha256: str


class ShardWriter:
    """Writes one shard, which is there whole under its name or not at all.

    Used as a context manager it is closed at the end, and leaves nothing behind if an error comes first.

    Example:
        >>> with ShardWriter(folder, rank, TokenizerRecord.of(name, config, tokenizer)) as writer:
        ...     for text in texts:
        ...         writer.add(tokenizer.encode(text), content_hash(text))
        >>> writer.shard
    """

    def __init__(self, folder: Path, rank: int, tokenizer: TokenizerRecord) -> None:
        """Begin a shard.

        Args:
            folder: The corpus's; made if it is not there.
            rank: Number of the task, in ``[0, 99999]``.
            tokenizer: Says how wide a token is, and which tokens stand before and behind a document.
        """
        self._vocab_size = tokenizer.vocab_size
        self._dtype = np.dtype(tokenizer.dtype).newbyteorder("<")
        edges = (tokenizer.begin, tokenizer.end)
        self._edges = [b"" if one is None else np.array([one], self._dtype).tobytes() for one in edges]
        self._name = f"{TOKENS}/{rank:05d}.bin"
        self._path = folder / self._name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._path.with_suffix(".bin.partial")
        self._file = self._partial.open("wb", buffering=_CHUNK)
        self._sha256 = hashlib.sha256()
        self._offsets = array("Q", [0])
        self._hashes = array("Q")

    def add(self, ids: Sequence[int] | NDArray[Any], content_hash: int) -> int:
        """Write a document.

        Args:
            ids: Its tokens ``(length,)``: a list, an array or a tensor. One without tokens is passed over.
            content_hash: 64 bits that are the same for equal texts, see `content_hash`: equal ones share a split.

        Returns:
            Number of tokens written, ``begin`` and ``end`` included.

        Raises:
            ValueError: A token is outside the vocabulary.
        """
        tokens = np.asarray(ids)
        if not len(tokens):
            return 0
        if tokens.min() < 0 or tokens.max() >= self._vocab_size:
            wrong = tokens.max() if tokens.min() >= 0 else tokens.min()
            raise ValueError(f"token {wrong} is outside a vocabulary of {self._vocab_size}")
        begin, end = self._edges
        content = begin + tokens.astype(self._dtype).tobytes() + end
        self._file.write(content)
        self._sha256.update(content)
        count = len(content) // self._dtype.itemsize
        self._offsets.append(self._offsets[-1] + count)
        self._hashes.append(content_hash)
        return count

    def close(self) -> Shard:
        """Put the shard in its place and return what the manifest says of it, also kept as ``self.shard``."""
        documents, tokens = len(self._hashes), self._offsets[-1]
        header = _HEADER.pack(_MAGIC, VERSION, self._dtype.itemsize, documents, tokens)
        index = header + b"".join(np.asarray(part, "<u8").tobytes() for part in (self._offsets, self._hashes))
        self._sha256.update(index)
        _sync_and_close(self._file)
        # The index comes last: where it stands, the shard is whole.
        index_path = self._path.with_suffix(".idx")
        index_path.unlink(missing_ok=True)
        self._partial.replace(self._path)
        write_whole(index_path, index)
        self.shard = Shard(self._name, tokens, documents, self._sha256.hexdigest())
        return self.shard

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._partial.unlink()


def write_manifest(folder: Path, shards: Sequence[Shard], tokenizer: TokenizerRecord, **more: Any) -> None:
    """Write the tokenizer's state and, last of all, the manifest, which makes the folder a corpus.

    Args:
        folder: The corpus's.
        shards: In the order of their tasks.
        tokenizer: The one they were written with.
        **more: What else the manifest says; plain values.
    """
    described = {**asdict(tokenizer), "state_file": TOKENIZER, "hash": tokenizer.hash}
    write_whole(folder / TOKENIZER, described.pop("state").encode("utf-8"))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokens": sum(shard.tokens for shard in shards),
        "documents": sum(shard.documents for shard in shards),
        "dtype": tokenizer.dtype,
        "tokenizer": described,
        "shards": [asdict(shard) for shard in shards],
        **more,
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2).encode("utf-8") + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    file = partial.open("wb")
    file.write(content)
    _sync_and_close(file)
    partial.replace(path)


def _sync_and_close(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


class Corpus:
    """A built corpus, opened for reading: its files are mapped into memory when they are first looked at.

    Attributes:
        folder: Where it is.
        manifest: What `write_manifest` wrote.
        shards: Its shards, in order.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        """Open a corpus: read its manifest, and see that all of its files are there and as long as they should be.

        Args:
            folder: The corpus's.
            verify: Read every file too, and compare its SHA-256.

        Raises:
            DataError: Not a corpus, or not a finished one, or one of another version; a shard is missing, cut short or
                changed.
        """
        self.folder = folder
        self.manifest = _read_manifest(folder)
        try:
            self.shards = [Shard(**shard) for shard in self.manifest["shards"]]
            self._dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[self.manifest["dtype"]])
            described = self.manifest["tokenizer"]
            names = [field.name for field in fields(TokenizerRecord) if field.name != "state"]
            self._tokenizer = {name: described[name] for name in names}
            self._state, self._hash = folder / described["state_file"], described["hash"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / MANIFEST}: is damaged ({error!r}); {_REBUILD}") from error
        for shard in self.shards:
            self._check(shard, verify)
        self._tokens, self._offsets = lru_cache(_OPEN)(self._map_tokens), lru_cache(_OPEN)(self._map_offsets)

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return type(self), (self.folder,)

    @property
    def tokenizer(self) -> TokenizerRecord:
        """The tokenizer that it was written with.

        Raises:
            DataError: Its file is missing, or not the one that the manifest names.
        """
        try:
            state = self._state.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self._state}: the corpus's tokenizer cannot be read; {_REBUILD}") from error
        record = TokenizerRecord(state=state, **self._tokenizer)
        if record.hash != self._hash:
            raise DataError(f"{self._state}: is not the tokenizer that this corpus was written with; {_REBUILD}")
        return record

    def tokens(self, number: int) -> NDArray[np.unsignedinteger[Any]]:
        """Return the tokens of a shard ``(tokens,)``, read only.

        Args:
            number: Of the shard, in ``[0, len(shards))``.
        """
        return self._tokens(number)

    def offsets(self, number: int) -> NDArray[np.int64]:
        """Return where the documents of a shard begin, and last where the last of them ends: ``(documents + 1,)``.

        Args:
            number: Of the shard, in ``[0, len(shards))``.
        """
        return self._offsets(number)

    def hashes(self, number: int) -> NDArray[np.uint64]:
        """Return the content hash of each document of a shard, ``(documents,)``, read into memory.

        Args:
            number: Of the shard, in ``[0, len(shards))``.
        """
        shard = self.shards[number]
        start = _HEADER.size + 8 * (shard.documents + 1)
        return np.fromfile(_index(self.folder, shard), "<u8", shard.documents, offset=start)

    def _map_tokens(self, number: int) -> NDArray[np.unsignedinteger[Any]]:
        shard = self.shards[number]
        return _map(self.folder / shard.file, self._dtype, 0, shard.tokens)

    def _map_offsets(self, number: int) -> NDArray[np.int64]:
        shard = self.shards[number]
        return _map(_index(self.folder, shard), np.dtype("<i8"), _HEADER.size, shard.documents + 1)

    def _check(self, shard: Shard, verify: bool) -> None:
        index = _index(self.folder, shard)
        wanted = {
            self.folder / shard.file: shard.tokens * self._dtype.itemsize,
            index: _HEADER.size + 8 * (2 * shard.documents + 1),
        }
        for path, size in wanted.items():
            try:
                found = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path}: cannot be found, but the manifest names it; {_REBUILD}") from error
            if found != size:
                raise DataError(f"{path}: has {found:,} bytes, but the manifest says {size:,}; {_REBUILD}")
        with index.open("rb") as file:
            header = file.read(_HEADER.size)
        if header != _HEADER.pack(_MAGIC, VERSION, self._dtype.itemsize, shard.documents, shard.tokens):
            raise DataError(f"{index}: is not the index of this shard; {_REBUILD}")
        if verify and _sha256(wanted) != shard.sha256:
            raise DataError(f"{self.folder / shard.file}: it or its index was changed: its SHA-256 differs; {_REBUILD}")


_REBUILD = "run the `torchloom corpus build` that made it again, in a new folder or after deleting this one"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make a corpus with `torchloom corpus build out={folder}`")
    if not path.is_file():
        raise DataError(
            f"{folder}: holds no {MANIFEST}, so it is no corpus, or its build is unfinished; run "
            f"`torchloom corpus build out={folder}` (again, it goes on where it stopped)"
        )
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: is damaged ({error}); {_REBUILD}") from error
    found = (manifest.get("format"), manifest.get("version")) if isinstance(manifest, dict) else None
    if found is None or found[0] != FORMAT:
        raise DataError(f"{path}: is not the manifest of a corpus")
    if found[1] != VERSION:
        raise DataError(f"{path}: has version {found[1]}, and this torchloom reads version {VERSION}; {_REBUILD}")
    return dict(manifest)


def _index(folder: Path, shard: Shard) -> Path:
    return (folder / shard.file).with_suffix(".idx")


def _map(path: Path, dtype: np.dtype[Any], offset: int, count: int) -> NDArray[Any]:
    if not count:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    # Not `np.memmap`, which looks for the true path of each file, and is itself slow to index.
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, dtype, count, offset)


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
