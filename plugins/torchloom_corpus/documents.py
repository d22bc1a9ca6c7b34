"""Blocks that carry documents: from a source, through steps, to disk and back.

A task's documents are a file of JSON lines, ``<rank>.jsonl``. All blocks hold one document at a time.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from torchloom.errors import ConfigError, DataError, Problem, TorchloomError
from torchloom_corpus.contracts import HTML, CorpusSource, CorpusStep, Document, StepTally
from torchloom_corpus.shards import write_whole

MOST_ERRORS = 10
"""Documents at which a step may raise in a task, however few it has seen."""
_MOST_ERRORS_SHARE = 0.1
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class Block(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Base of our blocks."""

    type = "torchloom"

    def __init__(self) -> None:
        self.name = type(self).__name__
        super().__init__()


class PrepareSource(Block):
    """Has a source fetch what it reads, and writes down its units, with the size and date of those that are files."""

    def __init__(self, source: CorpusSource, folder: Path, inputs: Path, tallies: Path) -> None:
        super().__init__()
        self.source, self.folder, self.inputs, self.tallies = source, folder, inputs, tallies

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do so, as the only task."""
        tally = StepTally("source")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.source.prepare(self.folder, tally)
        units = (orjson.dumps(describe_unit(unit, self.folder)) for unit in self.source.units(self.folder))
        write_whole(self.inputs, b"".join(unit + b"\n" for unit in units))
        write_tallies(self.tallies, rank, [tally])


def describe_unit(unit: str, folder: Path) -> dict[str, Any]:
    """Return a unit with its size in bytes and, unless the build fetched it, its time of change in nanoseconds."""
    described: dict[str, Any] = {"unit": unit}
    path = Path(unit)
    with contextlib.suppress(OSError, ValueError):  # it is an address, or a name that only the source understands
        found = path.stat()
        described["bytes"] = found.st_size
        if not path.is_relative_to(folder):
            described["mtime_ns"] = found.st_mtime_ns
    return described


class ReadSource(Block):
    """Reads the documents of every n-th unit."""

    def __init__(self, source: CorpusSource, inputs: Path, tallies: Path, limit: int | None) -> None:
        super().__init__()
        self.source, self.inputs, self.tallies, self.limit = source, inputs, tallies, limit

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Read the documents of a task."""
        tally = StepTally("source")
        for document in islice(self._read(rank, world_size, tally), self.limit):
            document.text = sound(document.text)
            tally.keep(document.id, document.text)
            yield document
        write_tallies(self.tallies, rank, [tally])

    def _read(self, rank: int, world_size: int, tally: StepTally) -> Iterator[Document]:
        for line in self.inputs.read_bytes().splitlines()[rank::world_size]:
            unit = orjson.loads(line)["unit"]
            logger.info(f"reading {unit}")
            try:
                yield from self.source.read(unit, tally)
            except (TorchloomError, GeneratorExit):
                raise
            except Exception as error:
                raise DataError(f"{unit}: cannot be read ({type(error).__name__}: {error})") from error


class ReadDocuments(Block):
    """Reads what `WriteDocuments` wrote in the same task."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Read the documents of a task, in order."""
        return read_documents(self.folder, rank)


def read_documents(folder: Path, rank: int) -> Iterator[Document]:
    """Read the documents of a task, in order.

    Raises:
        DataError: Their file is missing or damaged.
    """
    path = folder / f"{rank:05d}.jsonl"
    try:
        with path.open("rb") as file:
            for line in file:
                yield Document(**orjson.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); set overwrite=true to build the corpus anew") from error


class WriteDocuments(Block):
    """Writes the documents of a task, whole or not at all, and hands them on.

    Args:
        folder: Where to.
        reader: What reads them next, as a dotted key; it takes no HTML.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        super().__init__()
        self.folder, self.reader = folder, reader

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the documents of a task."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _whole(self.folder / f"{rank:05d}.jsonl") as file:
            for document in data:
                refuse_html(document, self.reader)
                document.text = sound(document.text)
                file.write(_line(document))
                yield document


class Observe(Block):
    """Hands the documents of a task to a block that consumes them, and draws the rest if it leaves any."""

    def __init__(self, observer: PipelineStep) -> None:
        super().__init__()
        self.observer = observer

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Hand over the documents of a task."""
        deque(self.observer.run(data, rank, world_size) or (), maxlen=0)
        deque(data, maxlen=0)


class ApplySteps(Block):
    """Passes documents through steps, counting what each lets through and drops.

    An error in a step drops the document that it came from, as "error ..."; a step that fails at more than a tenth of its
    documents (and at more than `MOST_ERRORS`) fails the task.
    """

    def __init__(self, steps: Sequence[tuple[str, CorpusStep]], tallies: Path) -> None:
        super().__init__()
        self.steps, self.tallies = list(steps), tallies

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Pass the documents of a task through the steps."""
        chain = [_Link(name, step) for name, step in self.steps]
        for link in chain:
            link.step.start(link.tally, rank, world_size)
        for document in data:
            if all(link.passes(document) for link in chain):
                yield document
        write_tallies(self.tallies, rank, [link.tally for link in chain])


class _Link:
    """A step with its counts."""

    def __init__(self, name: str, step: CorpusStep) -> None:
        self.name, self.step, self.tally = name, step, StepTally(name)
        self.takes_html = step.takes == "html"
        self.seen = self.errors = 0

    def passes(self, document: Document) -> bool:
        """Apply the step to a document and return whether it is kept."""
        if self.takes_html:
            reason = self._process(document) if _is_html(document) else None
        else:
            refuse_html(document, f"steps.{self.name}")
            reason = self._process(document)
        if reason is not None:
            like = document.metadata.get("duplicate_of")
            self.tally.drop(reason, example=document.id, text=document.text, like=like)
            return False
        self.tally.keep(document.id, document.text)
        language = document.metadata.get("language")
        if language is not None:
            self.tally.observe("language", str(language))
        return True

    def _process(self, document: Document) -> str | None:
        self.seen += 1
        try:
            return self.step.process(document)
        except TorchloomError:
            raise
        except Exception as error:
            self.errors += 1
            logger.opt(exception=error).warning(f"step '{self.name}' failed at document '{document.id}'")
            if self.errors > max(MOST_ERRORS, _MOST_ERRORS_SHARE * self.seen):
                raise DataError(
                    f"step '{self.name}' failed at {self.errors} of {self.seen} documents, last at '{document.id}': "
                    f"{type(error).__name__}: {error}"
                ) from error
            return f"error {type(error).__name__}"


def refuse_html(document: Document, reader: str) -> None:
    """Raise if a document is HTML.

    Args:
        document: The document.
        reader: What would read it, as a dotted key.

    Raises:
        ConfigError: It is.
    """
    if _is_html(document):
        mend = "put an extraction step first, such as steps=[trafilatura,...]"
        raise ConfigError([Problem(reader, f"takes text, but document '{document.id}' is still HTML", mend)])


def _is_html(document: Document) -> bool:
    return bool(document.metadata.get("content_type") == HTML)


def sound(text: str) -> str:
    """Return a text with lone surrogates, which no encoding takes, replaced by ``?``."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def write_tallies(folder: Path, rank: int, tallies: Sequence[StepTally]) -> None:
    """Save the counts of a task, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [tally.to_dict() for tally in tallies]
    write_whole(folder / f"{rank:05d}.json", json.dumps(rows).encode())  # whole numbers of any size, unlike orjson


def read_tallies(folder: Path) -> list[StepTally]:
    """Return the counts that `write_tallies` saved, those of all tasks added up."""
    merged: list[StepTally] = []
    for path in sorted(folder.glob("*.json")):
        tallies = [StepTally.from_dict(row) for row in json.loads(path.read_bytes())]
        for total, tally in zip(merged, tallies, strict=bool(merged)):
            total.merge(tally)
        merged = merged or tallies
    return merged


def _line(document: Document) -> bytes:
    row = {"id": document.id, "text": document.text, "metadata": document.metadata}
    try:
        return orjson.dumps(row, default=str, option=_OPTIONS)
    except TypeError:  # lone surrogates in metadata, whole numbers beyond 64 bits
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when it has been written to the end."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        yield file
    partial.replace(path)
