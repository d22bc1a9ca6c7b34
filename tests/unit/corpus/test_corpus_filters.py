"""What holds for every filter."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from torchloom import registry
from torchloom_corpus.filters import records

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

import dill

from torchloom_corpus.contracts import CorpusStep, Document, StepTally

NAMES = [component.name for component in records.COMPONENTS]
TEXT = "\n".join(f"Sentence {number} says that the cat of the house sat on mat {number}." for number in range(20))


def built(name: str, folder: Path, **more) -> CorpusStep:
    component = registry.current().get("corpus_step", name)
    values = {}
    if name == "word_list":
        values["words"] = ["dog"]
    if name == "url_filter":
        values |= {"published": False, "domains": ["bad.org"]}
    if name in ("perplexity", "quality_classifier"):
        for kind in ("good", "bad")[: 1 if name == "perplexity" else 2]:
            lines = (f"{kind} number {number} of the cat that sat" for number in range(120))
            (folder / f"{kind}.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines), "utf-8")
            values[kind] = str(folder / f"{kind}.jsonl")
    config = registry.current().config_class(component)(**values | more)
    return registry.current().load(component)(config)


def judged(step: CorpusStep) -> list[object]:
    tally = StepTally("step")
    step.start(tally, 0, 1)
    documents = [
        Document(text, "1", metadata={"url": "http://a.bad.org"}) for text in (TEXT, TEXT * 3, "A porno dog", "")
    ]
    return [(step.process(document), document.text, document.metadata) for document in documents] + [tally.counts]


def test_all_filters_are_there() -> None:
    assert NAMES == [
        "language",
        "length",
        "gopher_repetition",
        "gopher_quality",
        "c4_quality",
        "fineweb_quality",
        "word_list",
        "toxicity",
        "url_filter",
        "perplexity",
        "quality_classifier",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_filter_survives_pickling_and_judges_the_same_each_time(name, tmp_path) -> None:
    step = built(name, tmp_path)
    copies = [pickle.loads(pickle.dumps(step)), dill.loads(dill.dumps(step)), built(name, tmp_path)]
    expected = judged(step)
    assert any(item[0] for item in expected[:-1]), "nothing was dropped"
    for copy in copies:
        assert judged(copy) == expected


@pytest.mark.parametrize("name", ["gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality", "length"])
def test_published_thresholds_name_their_source(name) -> None:
    config = registry.current().config_class(registry.current().get("corpus_step", name))
    for field in dataclasses.fields(config):
        if field.name not in ("language", "min_characters", "max_characters"):
            assert field.metadata["source"], field.name


OFFLINE = """
import socket, sys
from pathlib import Path
def refuse(*_, **__):
    raise OSError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
sys.path.insert(0, sys.argv[1])
from test_corpus_filters import NAMES, built, judged
for name in NAMES:
    judged(built(name, Path(sys.argv[2]), **({"published": True} if name == "url_filter" else {})))
    print(name)
"""


def test_no_filter_downloads_anything(tmp_path) -> None:
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE, str(Path(__file__).parent), str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for file in (tmp_path / "hf").rglob("domains"):
        file.unlink()  # 125 MB, which pytest's folders would keep
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == NAMES
    assert "the network was asked for" not in found.stderr
