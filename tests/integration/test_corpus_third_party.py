"""A package from outside brings a source and a step: it is found by its entry point, used by name, and named in the corpus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

LIGHT = """
from dataclasses import dataclass

from torchloom import Component, hookimpl, option


@dataclass
class NumbersConfig:
    count: int = option(10, "Numbers to write out.", ge=1)


@dataclass
class ReverseConfig:
    skip: int = option(0, "Documents whose number this divides are dropped; 0 drops none.", ge=0)


@hookimpl
def torchloom_components():
    needs = {"needs": ("datatrove",), "extra": "torchloom[corpus]"}
    return [
        Component("corpus_source", "numbers", "abacus.parts:Numbers", "abacus:NumbersConfig", "Numbers in words", **needs),
        Component("corpus_step", "reverse", "abacus.parts:Reverse", "abacus:ReverseConfig", "Backwards", **needs),
    ]
"""
PARTS = """
from torchloom_corpus.contracts import CorpusSource, CorpusStep, Document


class Numbers(CorpusSource):
    def units(self, folder):
        return [str(number) for number in range(self.config.count)]

    def read(self, unit, tally):
        yield Document(f"the number {unit} is written here", f"n{unit}", metadata={"number": int(unit)})


class Reverse(CorpusStep):
    def process(self, document):
        if self.config.skip and document.metadata["number"] % self.config.skip == 0:
            return "divided"
        document.text = document.text[::-1]
        self.tally.count("reversed")
        return None
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package as pip leaves it."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "abacus_texts-2.5.dist-info"
    for made in (folder / "abacus", info):
        made.mkdir()
    (folder / "abacus" / "__init__.py").write_text(dedent(LIGHT))
    (folder / "abacus" / "parts.py").write_text(dedent(PARTS))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus-texts\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[torchloom.plugins]\nabacus = abacus\n")
    return folder


def torchloom(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "torchloom", *words]
    return subprocess.run(command, env=variables, cwd=site, capture_output=True, text=True)


def test_listed_and_shown_with_who_supplies_it(site: Path) -> None:
    assert "abacus-texts 2.5" in torchloom(site, "list", "corpus_source").stdout
    shown = torchloom(site, "show", "steps/reverse").stdout
    assert "skip" in shown
    assert "steps=[reverse]" in shown


def test_built_with_in_processes_of_their_own_beside_ours(site: Path) -> None:
    words = ["source=numbers", "source.count=12", "steps=[reverse,exact_documents]", "steps.reverse.skip=3"]
    more = ["tokenizer=char", "tasks=2", "engine.workers=2", "keep_documents=true", "out=corpus"]
    done = torchloom(site, "corpus", "build", *words, *more)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((site / "corpus" / "manifest.json").read_text())
    assert manifest["documents"] == 8
    assert manifest["stages"][1] == {
        "name": "reverse", "documents": 8, "bytes": manifest["stages"][1]["bytes"], "dropped": {"divided": 4}
    }  # fmt: skip
    assert manifest["versions"]["abacus-texts"] == "2.5"
    rows = [line for path in (site / "corpus" / "documents").iterdir() for line in path.read_text().splitlines()]
    assert "ereh nettirw si 1 rebmun eht" in [json.loads(row)["text"] for row in rows]
    assert "divided: 4 documents" in (site / "corpus" / "report.html").read_text()


def test_its_options_are_checked_like_ours(site: Path) -> None:
    done = torchloom(site, "corpus", "build", "source=numbers", "source.count=0", "steps=[revers]", "out=none")
    assert done.returncode == 2
    assert "did you mean 'reverse'?" in done.stderr
    done = torchloom(site, "corpus", "build", "source=numbers", "source.count=0", "steps=[reverse]", "out=none")
    assert done.returncode == 2
    assert "source.count: 0 is out of range; it must be >= 1" in done.stderr
    assert not (site / "none").exists()
