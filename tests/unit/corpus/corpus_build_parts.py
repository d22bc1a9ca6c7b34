"""Small components to build corpora of, and a way to build one in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

import torchloom.builtin
import torchloom_corpus.plugin
import torchloom_text.plugin
from torchloom import Component, hookimpl, option, plugins
from torchloom.errors import DataError
from torchloom.plugins import PluginManager, PluginSource
from torchloom_corpus.contracts import HTML, CorpusSource, CorpusStep, Document, GlobalStep, Pass, StepTally
from torchloom_corpus.shards import write_whole


@dataclass
class LinesConfig:
    path: str = option("???", "Folder of text files, of which each line is a document.")


class Lines(CorpusSource):
    """A line is a document; one that begins with a tag is HTML, and one that says BROKEN cannot be read."""

    config: LinesConfig

    def units(self, folder: Path) -> list[str]:
        found = sorted(map(str, Path(self.config.path).glob("*.txt")))
        if not found:
            raise DataError(f"{self.config.path}: holds no .txt")
        return found

    def read(self, unit: str, tally: StepTally) -> Iterator[Document]:
        with Path(unit).open(encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file):
                name = f"{Path(unit).name}/{number}"
                if line.startswith("BROKEN"):
                    tally.drop("broken record", example=name)
                    continue
                metadata = {"content_type": HTML} if line.startswith("<") else {"language": "en"}
                yield Document(line.rstrip("\n"), name, metadata=metadata)


@dataclass
class Nothing:
    pass


@dataclass
class LongConfig:
    min_words: int = option(3, "Fewest words.", ge=0)


class Long(CorpusStep):
    config: LongConfig

    def process(self, document: Document) -> str | None:
        return "too short" if len(document.text.split()) < self.config.min_words else None


class Shout(CorpusStep):
    """Fails at documents that hold the word boom."""

    def process(self, document: Document) -> str | None:
        if "boom" in document.text:
            raise ZeroDivisionError("went off")
        document.text = document.text.upper()
        self.tally.count("shouted")
        return None


class Untag(CorpusStep):
    takes = "html"

    def process(self, document: Document) -> str | None:
        document.text = document.text.replace("<p>", "")
        del document.metadata["content_type"]
        return None


@dataclass
class SlowConfig:
    seconds: float = option(0.0, "Time a document takes.", ge=0)
    journal: str | None = option(None, "File to which the id of each document is added.")
    deadly: str | None = option(None, "Id of the document at which the process is killed.")


class Slow(CorpusStep):
    config: SlowConfig

    def process(self, document: Document) -> str | None:
        if document.id == self.config.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.config.seconds)
        if self.config.journal is not None:
            with Path(self.config.journal).open("a") as file:
                file.write(f"{document.id}\n")
        return None


class Unique(GlobalStep):
    """Keeps the first document of each text."""

    def observer(self) -> PipelineStep:
        return Note(self.folder)

    def passes(self, tasks: int) -> list[Pass]:
        return [Pass("judge", [Judge(self.folder)])]

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        super().start(tally, rank, world)
        self.kept = set(json.loads((self.folder / "index" / "kept.json").read_text()))

    def process(self, document: Document) -> str | None:
        return None if document.id in self.kept else "duplicate"


class Note(PipelineStep):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> None:
        notes = [(document.id, hashlib.md5(document.text.encode()).hexdigest()) for document in data]
        write_whole(self.folder / f"{rank}.json", json.dumps(notes).encode())


class Judge(PipelineStep):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        first: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.json"), key=lambda path: int(path.stem)):
            for identity, digest in json.loads(path.read_text()):
                first.setdefault(digest, identity)
        (self.folder / "index").mkdir(exist_ok=True)
        write_whole(self.folder / "index" / "kept.json", json.dumps(sorted(first.values())).encode())


def part(kind: str, name: str, target: type[Any], config: type[Any] = Nothing) -> Component:
    return Component(
        kind, name, f"{__name__}:{target.__name__}", f"{__name__}:{config.__name__}", f"A {kind} for tests"
    )


class Plugin:
    @hookimpl
    def torchloom_components(self) -> list[Component]:
        return [
            part("corpus_source", "lines", Lines, LinesConfig),
            part("corpus_step", "long", Long, LongConfig),
            part("corpus_step", "shout", Shout),
            part("corpus_step", "untag", Untag),
            part("corpus_step", "slow", Slow, SlowConfig),
            part("corpus_step", "unique", Unique),
        ]


def parts() -> PluginManager:
    """The plugins that a corpus needs, and the parts of this file."""
    installed = {"core": torchloom.builtin, "text": torchloom_text.plugin, "corpus": torchloom_corpus.plugin}
    sources = [PluginSource(name, "torchloom", "9.9", lambda one=one: one) for name, one in installed.items()]
    return PluginManager([*sources, PluginSource("parts", "spare-parts", "1.2", Plugin)])


def recipe(source: Path, out: Path, steps: Iterable[str] | dict[str, Any] = (), **more: Any) -> dict[str, Any]:
    """A recipe as it comes from the command line, composed."""
    nodes = steps if isinstance(steps, dict) else {name: {} for name in steps}
    return {
        "out": str(out),
        "tasks": 3,
        "limit": None,
        "keep_documents": False,
        "overwrite": False,
        "source": {"name": "lines", "path": str(source)},
        "steps": {name: {"name": name, **node} for name, node in nodes.items()},
        "tokenizer": {"name": "char"},
        "engine": {"name": "local", "workers": 1},
        **more,
    }


def make(*arguments: Any, **keywords: Any) -> Path:
    """Build a corpus in this process."""
    from torchloom_corpus.build import build  # imports torch, which tasks that import this file do without

    with plugins.using(parts()):
        return build(recipe(*arguments, **keywords))


def start(config: dict[str, Any]) -> subprocess.Popen[str]:
    """Build a corpus in a process, and a process group, of its own."""
    code = "import sys, json; sys.path.insert(0, sys.argv[1]); import corpus_build_parts as p; p.main(sys.argv[2])"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), json.dumps(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def main(config: str) -> None:
    """What `start` runs."""
    from torchloom_corpus.build import build

    with plugins.using(parts()):
        print(build(json.loads(config)))


def write_lines(folder: Path, files: int = 4, lines: int = 50) -> Path:
    """Write files of lines; every tenth line is too short, every seventh there twice."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        rows = []
        for line in range(lines):
            number = file * lines + line
            rows.append(
                "two words" if line % 10 == 9 else f"this is line number {number - (line % 7 == 6)} of the text é"
            )
        (folder / f"{file}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
