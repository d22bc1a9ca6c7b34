"""Records with named values: JSON lines, Parquet, data sets of the Hugging Face hub."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from torchloom.errors import DataError
from torchloom_corpus.contracts import HTML, CorpusSource, Document, StepTally
from torchloom_corpus.sources.configs import HuggingFaceConfig, JsonlConfig, ParquetConfig
from torchloom_corpus.sources.files import FileSource, said

METADATA = ("url", "title", "date", "language")
ROWS = 64
"""Rows of a Parquet file or data set that are held in memory at once."""


def record_document(
    record: object, config: Any, unit: str, place: str, identity: str, tally: StepTally
) -> Document | None:
    """Make a document of a record, or count why it is none.

    Args:
        record: Named values, it should be.
        config: Has the fields of `TableConfig` and ``max_page_bytes``.
        unit: Where it was read.
        place: Where in that, such as ``"line 7"``.
        identity: `Document.id` where the record names none.
        tally: Counts it where it is not usable.
    """
    example = f"{unit}, {place}"
    if not isinstance(record, Mapping):
        tally.drop("record is not an object", example=example)
        return None
    text = record.get(config.text_key)
    if not isinstance(text, str):
        tally.drop(f"no text under {config.text_key!r}", example=example)
        return None
    # JSON can spell half of a surrogate pair, which is no character and cannot be written as UTF-8.
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        size = len(text.encode())
    if size > config.max_page_bytes:
        tally.drop("too large", example=example, size=size)
        return None
    if not text.strip():
        tally.drop("empty", example=example)
        return None
    named = record.get(config.id_key) if config.id_key else None
    known = {key: record[key] for key in METADATA if isinstance(record.get(key), str) and key != config.text_key}
    metadata: dict[str, Any] = {**known, "path": example, "bytes": size}
    if config.content == "html":
        metadata["content_type"] = HTML
    return Document(text, identity if named is None else str(named), metadata=metadata)


class Jsonl(FileSource):
    """Files of one JSON object a line, plain or compressed by gzip or Zstandard.

    Args:
        config: Settings.
    """

    config: JsonlConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read a document of each line that holds one.

        Args:
            unit: Name of the file.
            file: Its bytes.
            tally: Counts bad lines, and a compressed file that is cut short or broken.
        """
        number = 0
        try:
            for number, line in enumerate(self._lines(_decompressed(unit, file)), 1):
                if line is None:
                    tally.drop("too large", example=f"{unit}, line {number}", size=0)
                elif line.strip():
                    yield from self._document(unit, number, line, tally)
        except (EOFError, OSError, zlib.error, ValueError) as error:
            tally.drop("broken file", example=f"{unit} after line {number}: {said(error)}")

    def _document(self, unit: str, number: int, line: bytes, tally: StepTally) -> Iterator[Document]:
        try:
            record = json.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except (ValueError, RecursionError):  # UnicodeDecodeError is one
            tally.drop("not JSON", example=f"{unit}, line {number}", size=len(line))
            return
        document = record_document(record, self.config, unit, f"line {number}", f"{unit}/{number}", tally)
        if document is not None:
            yield document

    def _lines(self, file: IO[bytes]) -> Iterator[bytes | None]:
        """Yield lines, and None for one longer than any document allowed can be."""
        limit = 6 * self.config.max_page_bytes + 100_000  # JSON may spell a byte as \u0000
        while line := file.readline(limit):
            if len(line) < limit or line.endswith(b"\n"):
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(limit)
            yield None


def _decompressed(unit: str, file: IO[bytes]) -> IO[bytes]:
    opened: Any = file
    if unit.endswith((".gz", ".gzip")):
        opened = gzip.GzipFile(fileobj=file)
    elif unit.endswith((".zst", ".zstd")):
        opened = io.BufferedReader(pa.CompressedInputStream(file, "zstd"))
    return opened  # type: ignore[no-any-return]


class Parquet(FileSource):
    """Parquet files, of which only the columns needed are read, some rows at a time.

    Args:
        config: Settings.
    """

    config: ParquetConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read a document of each row that holds one.

        Args:
            unit: Name of the file.
            file: Its bytes.
            tally: Counts unusable rows, and a file that is broken from some row on.
        """
        number = 0
        try:
            table = pq.ParquetFile(file)
            wanted = {self.config.text_key, self.config.id_key, *METADATA}
            columns = [name for name in table.schema_arrow.names if name in wanted]
            if self.config.text_key not in columns:
                tally.drop(f"no column {self.config.text_key!r}", example=unit)
                return
            for batch in table.iter_batches(batch_size=ROWS, columns=columns):
                for record in batch.to_pylist():
                    place, identity = f"row {number}", f"{unit}/{number}"
                    document = record_document(record, self.config, unit, place, identity, tally)
                    number += 1
                    if document is not None:
                        yield document
        except (pa.ArrowException, OSError, ValueError) as error:
            tally.drop("broken file", example=f"{unit} after row {number}: {said(error)}")


class HuggingFace(CorpusSource):
    """A data set of the Hugging Face hub, streamed; its shards are the units.

    Args:
        config: Settings.
    """

    config: HuggingFaceConfig

    def units(self, folder: Path) -> list[str]:
        """Return the numbers of its shards.

        Args:
            folder: Not needed.

        Raises:
            DataError: It cannot be found or reached, or has no value of the text's name.
        """
        dataset = self._dataset()
        if dataset.column_names is not None and self.config.text_key not in dataset.column_names:
            raise DataError(
                f"{self.config.dataset}: its records have no {self.config.text_key!r}, "
                f"but {', '.join(dataset.column_names)}; set source.text_key to one of them"
            )
        return [str(number) for number in range(dataset.num_shards)]

    def read(self, unit: str, tally: StepTally) -> Iterator[Document]:
        """Read the documents of one shard.

        Args:
            unit: Its number.
            tally: Counts unusable records, and a shard that breaks off.

        Raises:
            DataError: The data set cannot be found or reached.
        """
        dataset = self._dataset()
        name, number = f"{self.config.dataset} {self.config.split} {unit}", -1
        try:
            for number, record in enumerate(dataset.shard(dataset.num_shards, int(unit))):
                identity = f"{self.config.split}-{unit}/{number}"
                document = record_document(record, self.config, name, f"record {number}", identity, tally)
                if document is not None:
                    yield document
        except Exception as error:  # its loaders raise whatever their file formats do
            tally.drop("broken file", example=f"{name} after record {number}: {said(error)}")

    def _dataset(self) -> Any:
        from datasets import load_dataset

        config = self.config
        if not config.dataset:
            raise DataError("source.dataset is not set; give a name on the Hugging Face hub, or a folder")
        try:
            return load_dataset(
                config.dataset, config.subset, split=config.split, revision=config.revision, streaming=True
            )
        except Exception as error:  # of the hub, the network, the data set's own files
            raise DataError(
                f"{config.dataset}: cannot be loaded ({type(error).__name__}: {said(error)}); "
                "check source.dataset, source.subset, source.split and the connection to huggingface.co"
            ) from error
