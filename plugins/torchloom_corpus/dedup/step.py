"""What all kinds of deduplication share: observing, merging, indexes of existing corpora, and dropping documents."""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from torchloom.errors import DataError
from torchloom_corpus.contracts import Document, GlobalStep, Pass, StepTally
from torchloom_corpus.dedup.runs import EDGE, Merge, Names, Observe, Records, pack, read_sizes, records


class Deduplication(GlobalStep):
    """Base of the steps that compare pieces of documents by hash.

    With ``save_index`` the folder ``index`` holds ``about.json`` (the settings that hashes depend on), ``pieces`` (what
    stayed, by hash) and, where ids are kept, ``ids``. A corpus keeps it as ``index/<name of the step>``.

    Attributes:
        label: The step's name, under which corpora keep its index.
        settings: Fields of the config that hashes depend on.
        keeps_ids: Whether an index says which document a piece is from.
    """

    label: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]
    keeps_ids: ClassVar[bool] = False

    @abstractmethod
    def digests(self, text: str) -> Iterable[tuple[int, bytes]]:
        """Return number and 128-bit hash of each piece of a text that is to be compared."""

    @property
    def names(self) -> Path:
        """Folder of the documents' ids."""
        return self.folder / "index" / "ids" if self.config.save_index and self.keeps_ids else self.folder / "ids"

    @property
    def indexes(self) -> list[Path]:
        """Folders of the indexes that the corpus is compared with."""
        return [Path(corpus).expanduser() / "index" / self.label for corpus in self.config.against]

    def observer(self) -> Observe:
        """Return the block that writes down the pieces of a task's documents.

        Raises:
            DataError: A corpus of ``against`` has no index of this step, or one made with other settings.
        """
        mine = self._about()
        for corpus, index in zip(self.config.against, self.indexes, strict=True):
            try:
                theirs = json.loads((index / "about.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                message = (
                    f"{index}: no index of {self.label} (steps.{self.label}.against={corpus}).\n"
                    f"    Build that corpus with steps.{self.label}.save_index=true, and name the folder it is in."
                )
                raise DataError(message) from error
            if theirs != mine:
                raise DataError(
                    f"{index}: made with {theirs}, while this build has {mine}.\n"
                    f"    Set the same values under steps.{self.label}, or build that corpus anew."
                )
        return Observe(self.digests, self.folder, self.names)

    def passes(self, tasks: int) -> list[Pass]:
        """Return the pass that finds equal pieces."""
        return [Pass("merge", [self.merge(self.config.keep)], tasks)]

    def merge(self, keep: Literal["one", "none"]) -> Merge:
        """Return the block that merges runs, having begun the index if one is to be kept."""
        index = self.folder / "index" if self.config.save_index else None
        if index is not None:
            index.mkdir(parents=True, exist_ok=True)
            (index / "about.json").write_text(json.dumps(self._about()), encoding="utf-8")
        return Merge(self.folder, self.names, self.indexes, keep, index)

    def _about(self) -> dict[str, Any]:
        values = dataclasses.asdict(self.config)
        return {"version": 1, "step": self.label, **{name: values[name] for name in self.settings}}

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Get the sizes of groups into the tally, once."""
        super().start(tally, rank, world)
        if rank == 0:
            for size, number in sorted(read_sizes(self.folder / "sizes").items()):
                tally.observe("cluster size", size_label(size), number)


class DocumentDeduplication(Deduplication):
    """Base of the steps that drop whole documents. A dropped one says which it is like: ``metadata["duplicate_of"]``.

    That is the id of the document that stays instead, or ``"<folder>: <id>"`` of one in an existing corpus.

    Attributes:
        reason: Of a document that is like another one of this corpus.
        verdicts: Sub-folder of ``folder`` that says which documents are dropped, by task.
    """

    reason: ClassVar[str]
    verdicts: ClassVar[str]
    keeps_ids = True

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read which documents of the task are dropped: 20 bytes each."""
        super().start(tally, rank, world)
        self._corpora = [("", Names(self.names))]
        self._corpora += [
            (f"{corpus}: ", Names(index / "ids"))
            for corpus, index in zip(self.config.against, self.indexes, strict=True)
        ]
        self._rank = rank
        self._number = -1
        self._dropped = self._verdicts()
        self._next = next(self._dropped, None)

    def _verdicts(self) -> Iterator[tuple[int, int, int, int]]:
        folder = self.folder / self.verdicts / f"{self._rank:05d}"
        files = {path.stem: records(path, EDGE) for path in sorted(folder.glob("*.bin"))}
        local = files.pop("local", np.empty(0, EDGE))
        final: Records = np.concatenate([np.empty(0, EDGE), *files.values()])
        final = final[np.argsort(final["document"])]
        # What a document was like in its run may itself be dropped for another.
        if len(final):
            at = np.minimum(np.searchsorted(final["document"], local["other"]), len(final) - 1)
            passed_on = final["document"][at] == local["other"]
            for field in ("corpus", "task", "other"):
                local[field][passed_on] = final[field][at[passed_on]]
        rows = np.concatenate([local, final])
        rows = rows[np.argsort(rows["document"])]
        for document, _, corpus, task, other in rows:
            yield int(document), int(corpus), int(task), int(other)

    def process(self, document: Document) -> str | None:
        """Drop the document if it is like another one."""
        self._number += 1
        if self._next is None or self._next[0] != self._number:
            return None
        _, corpus, task, other = self._next
        self._next = next(self._dropped, None)
        if (corpus, task, other) != (0, self._rank, self._number):  # with keep=none, the first has none to name
            folder, names = self._corpora[corpus]
            place = int(pack(task, other))
            document.metadata["duplicate_of"] = f"{folder}{names([place])[0]}"
        return "in existing corpus" if corpus else self.reason


def size_label(size: int) -> str:
    """Return the bar of a histogram that a cluster of so many documents belongs to.

    Example:
        >>> size_label(2), size_label(3), size_label(5), size_label(8)
        ('2', '3', '4-7', '8-15')
    """
    if size < 4:
        return str(size)
    low = 1 << (size.bit_length() - 1)
    return f"{low}-{2 * low - 1}"
