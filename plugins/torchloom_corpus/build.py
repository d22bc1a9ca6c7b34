"""From a recipe to a corpus: what is run, and in which order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from datatrove.pipeline.base import PipelineStep

from torchloom import registry
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom.schema import to_config, to_plain
from torchloom_corpus.contracts import CorpusEngine, CorpusSource, CorpusStep, GlobalStep, Pass
from torchloom_corpus.documents import (
    ApplySteps,
    Observe,
    PrepareSource,
    ReadDocuments,
    ReadSource,
    WriteDocuments,
    describe_unit,
)
from torchloom_corpus.finish import CheckNotEmpty, Finish
from torchloom_corpus.layout import DOCUMENTS, OWN, RECIPE, Layout
from torchloom_corpus.shards import MANIFEST, TOKENS, Corpus, write_whole
from torchloom_corpus.tokens import Tokenise, TrainTokenizer

_NOT_RECIPE = ("out", "engine", "keep_documents", "overwrite")
"""Keys that say where and how a corpus is built, but not what is in it."""
_TOKENIZER_KEYS = ("tokenizer", "tokenizer_documents")
"""Keys that the documents do not depend on."""
_TOKEN_PASSES = 3


def build(config: Any) -> Path:
    """Build a corpus, or go on with one that was stopped; one that is complete is left as it is.

    Args:
        config: The recipe: keys of `RecipeConfig`, and nodes of ``source``, ``steps`` (by name, in order), ``tokenizer``
            and ``engine``.

    Returns:
        The folder of the corpus.

    Raises:
        ConfigError: The folder holds something else, or a corpus of another recipe; or a node is wrong.
        DataError: Nothing to read, nothing left to write, a task that failed, or a folder that cannot be written.
        UnsupportedError: The engine cannot run here.
    """
    plan = Plan(to_plain(config))
    out = plan.layout.out
    with _owning(out):
        _take_folder(plan)
        if (out / MANIFEST).exists():
            manifest = Corpus(out).manifest
            count = f"{manifest['documents']:,} documents, {manifest['tokens']:,} tokens"
            print(f"torchloom: {out} is complete: {count}", file=sys.stderr)
        else:
            with _writing(out):
                plan.make_folders()
            plan.engine.run(plan.passes(), plan.layout.logs)
            Corpus(out)
        _tidy(plan)
    return out


class Plan:
    """What a recipe comes to: components, files, passes.

    Attributes:
        config: The recipe as plain values, with where and how it is built.
        recipe: The part that settles what is in the corpus.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the components of a recipe.

        Args:
            config: The recipe, as plain values.

        Raises:
            ConfigError: A node is wrong.
        """
        self.config = config
        self.recipe = {key: value for key, value in config.items() if key not in _NOT_RECIPE}
        self.layout = Layout(Path(config["out"]).expanduser().absolute())
        self.engine: CorpusEngine = _component("corpus_engine", "engine", config["engine"])
        self.source: CorpusSource = _component("corpus_source", "source", config["source"])
        self.tokenizer: Tokenizer = _component("tokenizer", "tokenizer", config["tokenizer"])
        self.steps: list[tuple[str, CorpusStep]] = [
            (name, _component("corpus_step", f"steps.{name}", {"name": name, **(node or {})}))
            for name, node in (config.get("steps") or {}).items()
        ]
        for name, step in self.steps:
            if isinstance(step, GlobalStep):
                step.folder = self.layout.step(name)

    def make_folders(self) -> None:
        """Make the folders that steps may count on."""
        for _, step in self.steps:
            if isinstance(step, GlobalStep):
                step.folder.mkdir(parents=True, exist_ok=True)

    @property
    def stages(self) -> list[list[tuple[str, CorpusStep]]]:
        """The steps, divided where the documents are written and read again: before each global one."""
        stages: list[list[tuple[str, CorpusStep]]] = [[]]
        for name, step in self.steps:
            if isinstance(step, GlobalStep):
                stages.append([])
            stages[-1].append((name, step))
        return stages

    def passes(self) -> list[Pass]:
        """Return all that is run, in order. It depends on nothing but the recipe."""
        found = [*self._document_passes(), *self._token_passes()]
        return [Pass(f"{number:02d}_{one.name}", one.pipeline, one.tasks) for number, one in enumerate(found)]

    def _document_passes(self) -> Iterator[Pass]:
        layout, tasks, stages = self.layout, self.config["tasks"], self.stages
        yield Pass("prepare", [PrepareSource(self.source, layout.source, layout.inputs, layout.tallies("prepare"))])
        reader: PipelineStep = ReadSource(
            self.source, layout.inputs, layout.tallies("source"), self.config.get("limit")
        )
        for number, stage in enumerate(stages):
            name, following = stages[number + 1][0] if number + 1 < len(stages) else ("", None)
            folder = layout.documents(number)
            pipeline = [
                reader,
                ApplySteps(stage, layout.stage_tallies(number)),
                WriteDocuments(folder, f"steps.{name}" if name else "tokenizer"),
            ]
            reader = ReadDocuments(folder)
            if not isinstance(following, GlobalStep):
                yield Pass("documents", pipeline, tasks)
                continue
            yield Pass("documents", [*pipeline, Observe(following.observer())], tasks)
            for one in following.passes(tasks):
                yield Pass(f"{name}_{one.name}", one.pipeline, one.tasks)

    def _token_passes(self) -> Iterator[Pass]:
        layout, tasks = self.layout, self.config["tasks"]
        documents = layout.documents(len(self.stages) - 1)
        component = registry.current().get("tokenizer", self.config["tokenizer"]["name"])
        settings = to_plain(to_config(component, self.config["tokenizer"]))
        described = (self.tokenizer, component.name, settings)
        sample = self.config.get("tokenizer_documents")
        yield Pass(
            "tokenizer",
            [CheckNotEmpty(layout), TrainTokenizer(self.tokenizer, documents, tasks, sample, layout.tokenizer)],
        )
        tokenise = Tokenise(*described, layout.tokenizer, layout.out, layout.shards, layout.tallies("tokens"))
        yield Pass("tokens", [ReadDocuments(documents), tokenise], tasks)
        indexed = [name for name, step in self.steps if isinstance(step, GlobalStep)]
        yield Pass("finish", [Finish(layout, self.recipe, *described, self._versions(), indexed)])

    def _versions(self) -> dict[str, str]:
        known = registry.current()
        chosen = [("corpus_source", self.config["source"]["name"]), ("tokenizer", self.config["tokenizer"]["name"])]
        chosen += [
            ("corpus_step", (node or {}).get("name", name)) for name, node in (self.config.get("steps") or {}).items()
        ]
        suppliers = [known.supplier(known.get(*one)) for one in chosen]
        libraries = {name: metadata.version(name) for name in ("torchloom", "datatrove")}
        return dict(sorted({**{one.distribution: one.version for one in suppliers}, **libraries}.items()))


def _component(kind: str, place: str, node: Mapping[str, Any]) -> Any:
    known = registry.current()
    component = known.get(kind, node["name"])
    return known.load(component)(to_config(component, node, place))


@contextlib.contextmanager
def _owning(out: Path) -> Iterator[None]:
    """Make a folder and keep other builds out of it.

    Raises:
        ConfigError: Another build is at work there.
        DataError: It cannot be made.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        message = f"another build is at work in {out}"
        raise ConfigError([Problem("out", message, "wait for it, or give another folder")]) from error
    finally:
        os.close(folder)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); give another folder: out=FOLDER") from error


def _take_folder(plan: Plan) -> None:
    """See that the folder is fit for the recipe: new, or of the same one; or make it so where that is wished.

    Raises:
        ConfigError: It holds something else, or a corpus of another recipe.
        DataError: It cannot be written, or what was read has changed since.
    """
    out, recipe = plan.layout.out, plan.layout.out / RECIPE
    if recipe.exists():
        mend = "give another folder, out=FOLDER, or set overwrite=true to begin anew"
        differing = _differing(yaml.safe_load(recipe.read_text(encoding="utf-8")), plan.recipe)
        complete = (out / MANIFEST).exists()
        changed = None if complete else _changed_input(plan.layout)
        if not differing and changed is None:
            if complete and plan.config.get("keep_documents") and not (out / DOCUMENTS).exists():
                message = f"{out} is complete, and its documents were not kept"
                raise ConfigError([Problem("keep_documents", message, "give another folder, out=FOLDER")])
            return
        of_tokenizer = all(key.split(".")[0] in _TOKENIZER_KEYS for key in differing)
        if of_tokenizer and not complete and changed is None:
            with _writing(out):
                _forget_tokens(plan)
        elif plan.config.get("overwrite") or not _begun(plan.layout):
            with _writing(out):
                for name in OWN[:-1]:
                    _remove(out / name)
        elif changed is not None:
            raise DataError(f"{changed}: was changed since the build in {out} began; {mend}")
        else:
            said = "; ".join(f"{key} is {before} there, {now} here" for key, (before, now) in differing.items())
            raise ConfigError([Problem("out", f"{out} holds a corpus of another recipe: {said}", mend)])
    else:
        others = sorted({path.name for path in out.iterdir()} - {f"{RECIPE}.partial"})
        if others:
            message = f"{out} is not empty, and no corpus: it holds {', '.join(others[:3])}"
            raise ConfigError([Problem("out", message, "give another folder, out=FOLDER")])
    with _writing(out):
        write_whole(recipe, yaml.safe_dump(plan.recipe, sort_keys=False, allow_unicode=True).encode("utf-8"))


def _begun(layout: Layout) -> bool:
    """Whether there is anything to lose: not where a build failed at once, such as at a path that does not exist."""
    fetched = layout.source.is_dir() and any(layout.source.iterdir())
    return fetched or layout.inputs.exists() or (layout.out / MANIFEST).exists()


def _forget_tokens(plan: Plan) -> None:
    """Undo what depends on the tokenizer in a build that is not complete."""
    layout = plan.layout
    for one in plan.passes()[-_TOKEN_PASSES:]:
        _remove(layout.logs / one.name)
    for path in (layout.tokenizer, layout.shards, layout.tallies("tokens"), layout.out / TOKENS):
        _remove(path)


def _tidy(plan: Plan) -> None:
    """Leave nothing of the build behind a complete corpus but what is to be kept."""
    layout = plan.layout
    if layout.work.exists():
        documents = layout.documents(len(plan.stages) - 1)
        if plan.config.get("keep_documents") and documents.exists():
            documents.replace(layout.out / DOCUMENTS)
        shutil.rmtree(layout.work)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _changed_input(layout: Layout) -> str | None:
    """Return a unit whose file was changed since it was listed, if there is one."""
    if layout.inputs.exists():
        for line in layout.inputs.read_bytes().splitlines():
            listed = json.loads(line)
            if describe_unit(listed["unit"], layout.source) != listed:
                return str(listed["unit"])
    return None


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> dict[str, tuple[str, str]]:
    """Return the values that differ between two recipes, by dotted key.

    Where another component is chosen, its keys say nothing, so that its name stands for it; likewise the names of steps.
    """
    found: dict[str, tuple[str, str]] = {}
    for key in dict.fromkeys([*now, *before]):
        one, other = before.get(key, "absent"), now.get(key, "absent")
        if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
            if one != other:
                found[f"{place}{key}"] = (_shown(one), _shown(other))
        elif one.get("name") != other.get("name"):
            found[f"{place}{key}"] = (_shown(one.get("name")), _shown(other.get("name")))
        elif f"{place}{key}" == "steps":
            if list(one) != list(other):
                found["steps"] = (",".join(one), ",".join(other))
            common = {name: node for name, node in other.items() if name in one}
            found.update(_differing({name: one[name] for name in common}, common, "steps."))
        else:
            found.update(_differing(one, other, f"{place}{key}."))
    return found


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
