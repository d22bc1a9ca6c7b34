"""What holds for every source and every step, whoever wrote it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from torchloom import schema
from torchloom.component import Component
from torchloom.errors import DataError
from torchloom.registry import current
from torchloom_corpus.contracts import HTML, CorpusSource, CorpusStep, Document, GlobalStep, StepTally

# A build replaces halves of surrogate pairs before any step sees them.
ODD = {
    "nothing": "",
    "spaces": " \n\t\u00a0\u2003",
    "null": "a\0b\0",
    "last character": "\U0010ffff" * 50,
    "combining marks": "e" + "\u0301" * 5000,
    "right to left": "\u202e\u05d0\u05d1\u0627\u0628 (a) " * 30,
    "a long line": "the quick brown fox of 192.0.2.1 and me@example.org " * 20_000,
    "a long word": "x" * 200_000,
    "many lines": "\n" * 50_000 + "a\n" * 20_000,
    "markup": "<p><<div>&#xd800;&bogus;" + "<b>" * 5000,
}


def of(kind: str) -> Any:
    return pytest.mark.parametrize("component", current().components(kind), ids=lambda component: component.name)


def made(component: Component, **values: Any) -> Any:
    return current().load(component)(schema.to_config(component, values))


def units_of(source: CorpusSource, folder: Path) -> list[str]:
    source.prepare(folder, StepTally("source"))
    return source.units(folder)


@of("corpus_source")
def test_source_says_what_it_is_to_be_given(component: Component, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.(path|dataset|seeds)"):
        units_of(made(component), tmp_path)


@of("corpus_source")
def test_source_names_what_is_not_there(component: Component, tmp_path: Path) -> None:
    keys = {"path", "dataset"} & {info.name for info in schema.describe(component)}
    if not keys:
        pytest.skip("reads no files")
    [key] = keys
    with pytest.raises(DataError, match=rf"nowhere.*source\.{key}"):
        units_of(made(component, **{key: str(tmp_path / "nowhere")}), tmp_path)


@of("corpus_step")
def test_step_can_be_sent_to_another_process_before_it_starts(component: Component, samples: dict[str, str]) -> None:
    step = made(component, **needed(component, samples))
    assert pickle.loads(pickle.dumps(step)).config == step.config


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("samples")
    for kind in ("good", "bad"):
        texts = [f"The {kind} text {number} tells of {number * 7919} {kind} things." for number in range(300)]
        (folder / f"{kind}.txt").write_text("\n\n".join(texts))
    return {kind: str(folder / f"{kind}.txt") for kind in ("good", "bad")}


def needed(component: Component, samples: dict[str, str]) -> dict[str, Any]:
    """Return the keys without which a step does not begin."""
    known = {info.name for info in schema.describe(component)}
    lists = {"words": ["pills"], "paths": [samples["good"]]}
    return {key: value for key, value in {**samples, **lists}.items() if key in known}


@of("corpus_step")
def test_step_judges_any_text(component: Component, samples: dict[str, str]) -> None:
    step = made(component, **needed(component, samples))
    if isinstance(step, GlobalStep):
        pytest.skip("judges what it has observed, see the tests of deduplication")
    tally = StepTally(component.name)
    step.start(tally, 0, 1)
    for name, text in ODD.items():
        document = Document(text, name, metadata={"content_type": HTML} if step.takes == "html" else {})
        reason = step.process(document)
        assert reason is None or (reason.strip() and "\n" not in reason), name
        assert isinstance(document.text, str)
        if reason is None:
            assert document.metadata.get("content_type") != HTML, name
    assert all(number > 0 for number in tally.counts.values())


@of("corpus_step")
def test_step_gives_the_same_answer_again(component: Component, samples: dict[str, str]) -> None:
    def answers() -> list[tuple[str | None, str]]:
        step: CorpusStep = made(component, **needed(component, samples))
        step.start(StepTally(component.name), 0, 1)
        documents = [Document(f"{text} more", name) for name, text in ODD.items() if len(text) < 10_000]
        return [(step.process(document), document.text) for document in documents]

    if issubclass(current().load(component), GlobalStep):
        pytest.skip("judges what it has observed, see the tests of deduplication")
    assert answers() == answers()
