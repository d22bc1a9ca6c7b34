"""What a corpus is made by: a source gives documents, steps change or drop them, an engine runs them.

Everything runs inside datatrove's pipelines: a *task* is one of the equal shares into which the documents are dealt, and
a *rank* its number. What a task writes depends on the recipe and the inputs alone, never on how many tasks run at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from torchloom_corpus.tally import StepTally

__all__ = ["CorpusEngine", "CorpusSource", "CorpusStep", "Document", "GlobalStep", "Pass", "StepTally"]

HTML = "text/html"
"""`Document.metadata["content_type"]` of a document whose text is still HTML; plain text has no such key."""

# Keys of `Document.metadata` that sources and extraction fill where they can, and that later steps read:
#   url        address of the page
#   path       file (and record) it was read from
#   title      title
#   date       ISO 8601, as precise as known
#   language   ISO 639-1 code; language_score: confidence in [0, 1]
#   bytes      size of the raw input


class CorpusSource(ABC):
    """Base of all sources (kind ``corpus_source``). Building one reads nothing."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, folder: Path, tally: StepTally) -> None:  # noqa: B027 - optional
        """Fetch what is to be read, such as by crawling; called once before `units`, in one task.

        It must be resumable: after a kill it is called again with the same folder, and redoes only what is missing.

        Args:
            folder: A folder of its own inside the build's working folder, which stays until the build is complete.
            tally: Counts what was fetched, and what was not and why.

        Raises:
            DataError: Nothing can be fetched at all; says why.
        """

    @abstractmethod
    def units(self, folder: Path) -> list[str]:
        """Return what can be read separately (files, addresses), in an order that depends on nothing but them.

        Tasks take every n-th unit, so that it is units that a cluster spreads.

        Args:
            folder: The folder that `prepare` filled.

        Raises:
            DataError: There is nothing to read; names the place and the mend.
        """

    @abstractmethod
    def read(self, unit: str, tally: StepTally) -> Iterator[Document]:
        """Read the documents of one unit, holding no more than one of them in memory.

        ``Document.id`` is unique in the corpus and the same in every run, such as ``"<unit>/<record number>"``. A record
        that cannot be read is passed over and counted: ``tally.drop("broken record", example="page.warc.gz, record 7")``.

        Args:
            unit: One of `units`.
            tally: Counts what could not be read, and why.
        """


class CorpusStep(ABC):
    """Base of all steps (kind ``corpus_step``): changes documents one at a time, or drops them.

    One instance serves one task. It must be picklable before `start`.

    Attributes:
        takes: ``"html"`` for extraction, which is the only kind of step that sees HTML; a plain-text document passes it
            untouched. Every other step is ``"text"``, and an HTML document that reaches it is an error of the recipe.
    """

    takes: ClassVar[str] = "text"

    def __init__(self, config: Any) -> None:
        self.config = config

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Get ready: load models, compile patterns. Called once a task, before the first document.

        Args:
            tally: Keeps counts of this step in this task; kept as ``self.tally``.
            rank: Number of the task.
            world: Number of tasks.

        Raises:
            DataError: A file that the step needs is missing or unusable.
        """
        self.tally = tally

    @abstractmethod
    def process(self, document: Document) -> str | None:
        """Change a document in place, or say why it is to be dropped.

        A step for HTML takes ``content_type`` out of the metadata of what it made text. An exception drops the document,
        counted as an error; a step that raises again and again fails its task. An error of torchloom's does so at once.

        Counts of what was changed go to ``self.tally.count("masked e-mail addresses", 3)``.

        Returns:
            None to keep it; a short reason to drop it, from a small fixed set (``"too short"``, ``"language fr"``), since
            the report counts documents by reason and shows examples of each.
        """


@dataclass(frozen=True)
class Pass:
    """A pipeline that runs between two readings of the documents.

    Attributes:
        name: Lower-snake word, unique in its step.
        pipeline: datatrove blocks; the first one is given no documents.
        tasks: Number of tasks it is run as.
    """

    name: str
    pipeline: list[PipelineStep]
    tasks: int = 1


class GlobalStep(CorpusStep):
    """A step that must have seen every document before it can judge one, such as deduplication.

    The engine writes the documents that reach it to disk, in each task handing them to `observer` too; then runs
    `passes`, one behind the other; then reads the documents again, in the same order and tasks, through `process`.

    Attributes:
        folder: Of its own; set by the build before anything is called. What a pass writes there must be written whole or
            not at all, or be overwritten when the task is run again. What lies in ``folder / "index"`` at the end is
            kept with the corpus, as ``index/<step>``.
    """

    folder: Path

    @abstractmethod
    def observer(self) -> PipelineStep:
        """Return the block that consumes the documents of a task, as ``run(documents, rank, world)``."""

    @abstractmethod
    def passes(self, tasks: int) -> list[Pass]:
        """Return what is run once all documents have been observed.

        Args:
            tasks: Number of tasks that the documents are dealt to, which is that of `observer`.
        """


class CorpusEngine(ABC):
    """Base of all engines (kind ``corpus_engine``): where pipelines run."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def run(self, passes: list[Pass], logs: Path) -> None:
        """Run pipelines one behind the other; a task that is complete is not run again.

        Args:
            passes: In order; each begins when every task of the one before it is complete.
            logs: Folder for a folder each, by its name, of datatrove's logs and marks of completion.

        Raises:
            DataError: A task failed; names the pass, the task, its cause and its log.
        """
