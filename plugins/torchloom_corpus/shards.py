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
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANIFEST = "manifest.json"
FORMAT = "torchloom corpus"
VERSION = 1
TOKENS = "tokens"
TOKENIZER = "tokenizer.json"

_MAGIC = b"TLSHARD\n"
_HEADER = struct.Struct("<8sIIQQ")
_CHUNK = 1 << 20

Tokens = NDArray[np.unsignedinteger[Any]]


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
