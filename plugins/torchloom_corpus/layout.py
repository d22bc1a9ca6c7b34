"""Where a corpus and its build keep things.

The folder of a corpus::

    recipe.yaml       what it is built from; written first
    tokens/           shards, see `torchloom_corpus.shards`
    tokenizer.json    the tokenizer's state
    documents/        texts of the documents, if they are to be kept
    index/<step>/     what a step needs to compare another corpus with this one
    inputs.jsonl      what was read: units, with sizes and dates of files
    statistics.json   counts of every stage
    report.html       the page about it
    manifest.json     written last: where it stands, the corpus is complete
    work/             while building
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchloom_corpus.documents import read_tallies
from torchloom_corpus.shards import MANIFEST, TOKENIZER, TOKENS
from torchloom_corpus.tally import StepTally

RECIPE = "recipe.yaml"
INPUTS = "inputs.jsonl"
STATISTICS = "statistics.json"
PAGE = "report.html"
DOCUMENTS = "documents"
INDEX = "index"
WORK = "work"

OWN = (MANIFEST, PAGE, STATISTICS, INPUTS, TOKENS, TOKENIZER, DOCUMENTS, INDEX, WORK, RECIPE)
"""All that may lie in a corpus's folder, in the order in which it is removed."""


@dataclass(frozen=True)
class Layout:
    """Files of a build.

    Attributes:
        out: Folder of the corpus.
    """

    out: Path

    @property
    def work(self) -> Path:
        """Folder that is there while building."""
        return self.out / WORK

    @property
    def logs(self) -> Path:
        """Folder of a folder a pass."""
        return self.work / "logs"

    @property
    def source(self) -> Path:
        """Folder for what the source fetches."""
        return self.work / "source"

    @property
    def inputs(self) -> Path:
        """File of the units to read."""
        return self.work / INPUTS

    @property
    def tokenizer(self) -> Path:
        """File of the tokenizer's state."""
        return self.work / TOKENIZER

    @property
    def shards(self) -> Path:
        """Folder for what the manifest will say of each shard."""
        return self.work / "shards"

    def step(self, name: str) -> Path:
        """Folder of a step that needs one."""
        return self.work / "steps" / name

    def documents(self, stage: int) -> Path:
        """Folder of the documents that leave a stage."""
        return self.work / DOCUMENTS / f"{stage:02d}"

    def tallies(self, name: str) -> Path:
        """Folder of the counts of a pass."""
        return self.work / "tallies" / name

    def stage_tallies(self, stage: int) -> Path:
        """Folder of the counts of a stage's steps."""
        return self.tallies(f"stage_{stage:02d}")

    def counts(self) -> list[StepTally]:
        """Return the counts of the source and, behind it, of each step, over all tasks."""
        [source] = read_tallies(self.tallies("prepare"))
        for tally in read_tallies(self.tallies("source")):
            source.merge(tally)
        stages = sorted((self.work / "tallies").glob("stage_*"))
        return [source, *(tally for stage in stages for tally in read_tallies(stage))]
