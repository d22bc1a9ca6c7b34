"""Whole builds, of small components: what comes out, that it does not depend on how, and what is said when it cannot be."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

import corpus_build_parts as parts
from corpus_build_parts import contents, make, recipe, write_lines

from torchloom import plugins
from torchloom.errors import ConfigError, DataError
from torchloom_corpus.build import build
from torchloom_corpus.shards import Corpus
from torchloom_corpus.tally import StepTally

STEPS = ["long", "unique", "shout"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "source")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, beside what it was made of."""
    folder = tmp_path_factory.mktemp("built")
    return make(write_lines(folder / "source"), folder / "corpus", STEPS, keep_documents=True)


def texts_of(corpus: Path) -> list[str]:
    """The documents of a corpus, read from its tokens."""
    from torchloom_text.configs import CharConfig
    from torchloom_text.tokenization import CharTokenizer

    opened = Corpus(corpus, verify=True)
    tokenizer = CharTokenizer(CharConfig())
    tokenizer.load_state(opened.tokenizer.state)
    texts = []
    for number in range(len(opened.shards)):
        tokens, offsets = opened.tokens(number), opened.offsets(number)
        texts += [tokenizer.decode(tokens[start:end].tolist()) for start, end in pairwise(offsets)]
    return texts


def test_tokens_are_those_of_the_documents_that_the_steps_leave(built: Path) -> None:
    tasks: list[list[str]] = [[], [], []]
    for number, path in enumerate(sorted((built.parent / "source").iterdir())):
        tasks[number % 3] += path.read_text().splitlines()
    wanted = dict.fromkeys(line.upper() for task in tasks for line in task if len(line.split()) >= 3)
    assert texts_of(built) == list(wanted)


def test_kept_documents_are_those_of_the_tokens(built: Path) -> None:
    rows = [
        json.loads(line) for path in sorted((built / "documents").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [row["text"] for row in rows] == texts_of(built)
    assert rows[0]["id"] == "0.txt/0"
    assert rows[0]["metadata"] == {"language": "en"}


def test_statistics_add_up_to_a_funnel(built: Path) -> None:
    stages = json.loads((built / "statistics.json").read_bytes())["stages"]
    source, long, unique, shout, tokens = [StepTally.from_dict(stage) for stage in stages]
    assert (source.name, source.documents, source.dropped) == ("source", 200, {})
    assert (long.documents, long.dropped) == (180, {"too short": 20})
    assert unique.dropped.keys() == {"duplicate"}
    assert unique.documents == 180 - unique.dropped["duplicate"] == shout.documents == tokens.documents
    assert shout.counts == {"shouted": shout.documents}
    assert shout.histograms["language"] == {"en": shout.documents}
    assert long.examples["too short"][0]["text"] == "two words"
    files = [path.read_bytes() for path in (built.parent / "source").iterdir()]
    assert source.bytes == sum(len(file) - file.count(b"\n") for file in files)
    # What is estimated from samples is exact here, since a char is a token and lines are equally long.
    assert stages[3]["tokens"] == pytest.approx(stages[4]["tokens"], rel=0.02)
    assert stages[4]["tokens"] == tokens.counts["tokens"] == Corpus(built).manifest["tokens"]


def test_manifest_says_what_the_corpus_was_made_of(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_bytes())
    assert manifest["recipe"]["steps"]["long"] == {"name": "long"}
    assert not {"out", "engine", "keep_documents", "overwrite"} & manifest["recipe"].keys()
    inputs = [json.loads(line) for line in (built / "inputs.jsonl").read_text().splitlines()]
    paths = sorted((built.parent / "source").iterdir())
    assert inputs == [
        {"unit": str(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns} for path in paths
    ]
    assert manifest["inputs"]["units"] == 4
    assert manifest["inputs"]["bytes"] == sum(path.stat().st_size for path in paths)
    assert [stage["name"] for stage in manifest["stages"]] == ["source", *STEPS, "tokens"]
    assert manifest["stages"][1]["dropped"] == {"too short": 20}
    assert {"torchloom", "datatrove", "spare-parts"} == manifest["versions"].keys()
    assert manifest["versions"]["spare-parts"] == "1.2"


def test_nothing_of_the_work_is_left_but_what_is_to_be_kept(built: Path) -> None:
    found = {path.name for path in built.iterdir()}
    whole = {"recipe.yaml", "tokens", "tokenizer.json", "index", "inputs.jsonl", "statistics.json", "manifest.json"}
    assert found == whole | {"documents"}
    assert json.loads((built / "index" / "unique" / "kept.json").read_text())


def test_two_processes_give_the_bytes_of_one(built: Path) -> None:
    other = built.parent / "two"
    make(built.parent / "source", other, STEPS, keep_documents=True, engine={"name": "local", "workers": 2})
    assert contents(other) == contents(built)


def wait_for(marks: Path, process: Any) -> None:
    """Wait until a task of a build is complete."""
    deadline = time.monotonic() + 60
    while not (marks.is_dir() and any(marks.iterdir())):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_stopped_halfway_it_redoes_unfinished_tasks_only_and_gives_the_same_bytes(
    tmp_path: Path, stop: signal.Signals
) -> None:
    source, journal = write_lines(tmp_path / "source", lines=30), tmp_path / "journal"
    arguments = (
        source,
        tmp_path / "cut",
        {"long": {}, "slow": {"seconds": 0.02, "journal": str(journal)}, "unique": {}},
    )
    process = parts.start(recipe(*arguments, tasks=4, engine={"name": "local", "workers": 2}))
    marks = tmp_path / "cut" / "work" / "logs" / "01_documents" / "completions"
    wait_for(marks, process)
    if stop == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, stop)
    process.communicate(timeout=20)  # returns when its workers, who hold the same pipes, are gone too
    assert process.returncode != 0
    assert not (tmp_path / "cut" / "manifest.json").exists()
    finished = {int(mark.name) for mark in marks.iterdir()}
    assert 0 < len(finished) < 4

    before = journal.read_text().splitlines()
    make(*arguments, tasks=4)
    done_again = journal.read_text().splitlines()[len(before) :]
    # With as many files as tasks, a task is a file.
    assert {int(name.split(".")[0]) for name in done_again} == {0, 1, 2, 3} - finished
    whole = make(source, tmp_path / "whole", arguments[2], tasks=4)
    assert contents(tmp_path / "cut") == contents(whole)


def test_killed_worker_is_told_of_and_not_waited_for(source: Path, tmp_path: Path) -> None:
    steps = {"slow": {"deadly": "1.txt/7"}}
    with pytest.raises(DataError, match=r"pass '01_documents': a process was killed, .* a smaller engine.workers"):
        make(source, tmp_path / "corpus", steps, engine={"name": "local", "workers": 2})


def test_complete_one_is_left_as_it_is(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make(source, tmp_path / "corpus", ["long"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for path in source.iterdir():
        path.unlink()  # what it was made of is not needed any more
    assert make(source, out, ["long"], engine={"name": "local"}) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert f"{out} is complete: 180 documents, " in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"keep_documents: .* is complete, and its documents were not kept"):
        make(source, out, ["long"], keep_documents=True)


def test_complete_one_of_another_recipe_is_refused_unless_it_may_be_overwritten(source: Path, tmp_path: Path) -> None:
    out = make(source, tmp_path / "corpus", {"long": {"min_words": 3}, "shout": {}})
    before = contents(out)
    with pytest.raises(ConfigError) as caught:
        make(source, out, {"long": {"min_words": 2}}, tasks=2)
    assert str(caught.value) == (
        f"out: {out} holds a corpus of another recipe: tasks is 3 there, 2 here; steps is long,shout there, long here; "
        "steps.long.min_words is 3 there, 2 here\n"
        "    give another folder, out=FOLDER, or set overwrite=true to begin anew"
    )
    with pytest.raises(ConfigError, match="steps is long,shout there, shout,long here"):
        make(source, out, {"shout": {}, "long": {"min_words": 3}})
    assert contents(out) == before
    (out / "report.html").write_text("about the old one")
    make(source, out, {"long": {"min_words": 2}}, tasks=2, overwrite=True)
    assert contents(out) == contents(make(source, tmp_path / "other", {"long": {"min_words": 2}}, tasks=2))


def test_recipe_of_another_source_is_told_by_its_name_alone(source: Path, tmp_path: Path) -> None:
    out = make(source, tmp_path / "corpus")
    said = "another recipe: source is lines there, jsonl here\n"
    with plugins.using(parts.parts()), pytest.raises(ConfigError, match=said):
        build({**recipe(source, out), "source": {"name": "jsonl", "path": "x.jsonl"}})


def test_build_that_failed_before_anything_was_read_does_not_hold_its_folder(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(DataError, match=r"sorce: holds no \.txt"):
        make(tmp_path / "sorce", out)
    make(source, out, ["long"])
    assert contents(out) == contents(make(source, tmp_path / "other", ["long"]))


def test_folder_of_something_else_is_never_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is not empty, and no corpus: it holds documents, source"):
            make(source, tmp_path, overwrite=overwrite)
    assert (tmp_path / "documents" / "thesis.txt").exists()


def test_folder_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as caught:
        make(source, tmp_path / "file" / "corpus")
    assert str(caught.value) == (
        f"{tmp_path}/file/corpus: cannot be written (Not a directory); give another folder: out=FOLDER"
    )


def test_two_builds_do_not_share_a_folder(source: Path, tmp_path: Path) -> None:
    out = make(source, tmp_path / "corpus")
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # as a build in another process does
        with pytest.raises(ConfigError, match=r"another build is at work in .*corpus\n    wait for it"):
            make(source, out)
    finally:
        os.close(folder)


def test_tokenizer_that_asks_too_much_can_be_changed_without_doing_the_documents_again(
    source: Path, tmp_path: Path
) -> None:
    steps = {"long": {}, "slow": {"journal": str(tmp_path / "journal")}}
    with pytest.raises(DataError, match=r"set tokenizer.vocab_size=\d+ or lower(.|\n)*the same command goes on"):
        make(source, tmp_path / "corpus", steps, tokenizer={"name": "bpe", "vocab_size": 5000})
    out = make(source, tmp_path / "corpus", steps, tokenizer={"name": "bpe", "vocab_size": 280})
    assert Corpus(out, verify=True).tokenizer.vocab_size == 280
    assert len((tmp_path / "journal").read_text().splitlines()) == 180
    assert json.loads((out / "manifest.json").read_text())["recipe"]["tokenizer"]["vocab_size"] == 280


def test_input_that_changes_while_building_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(DataError, match="vocab_size"):
        make(source, out, tokenizer={"name": "bpe", "vocab_size": 5000})
    (source / "2.txt").write_text("something else, and longer than before\n" * 100)
    with pytest.raises(DataError, match=r"2.txt: was changed since the build in .* began; .* set overwrite=true"):
        make(source, out, tokenizer={"name": "bpe", "vocab_size": 5000})
    make(source, out, tokenizer={"name": "bpe", "vocab_size": 280}, overwrite=True)
    assert Corpus(out).manifest["documents"] == 250


def test_corpus_of_nothing_is_refused_with_the_funnel(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        make(source, tmp_path / "corpus", {"shout": {}, "long": {"min_words": 20}})
    assert "no document is left to make a corpus of:" in str(caught.value)
    assert "    source                      200 documents\n" in str(caught.value)
    assert "    long                          0 documents, 200 dropped: too short 200\n" in str(caught.value)


def test_source_without_anything_to_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"pass '00_prepare': task 0 of 1 failed: .*empty: holds no .txt"):
        make(tmp_path / "empty", tmp_path / "corpus")


def test_step_that_fails_at_one_document_loses_that_one(source: Path, tmp_path: Path) -> None:
    with (source / "0.txt").open("a") as file:
        file.write("this one goes boom\nBROKEN\n")
    out = make(source, tmp_path / "corpus", ["shout"])
    stages = [StepTally.from_dict(stage) for stage in json.loads((out / "statistics.json").read_text())["stages"]]
    assert stages[0].dropped == {"broken record": 1}
    assert stages[1].dropped == {"error ZeroDivisionError": 1}
    assert stages[1].examples["error ZeroDivisionError"] == [{"id": "0.txt/50", "text": "this one goes boom"}]
    assert stages[2].documents == 200


def test_step_that_fails_again_and_again_fails_its_task_by_name(source: Path, tmp_path: Path) -> None:
    (source / "1.txt").write_text("this one goes boom\n" * 50)
    out = tmp_path / "corpus"
    with pytest.raises(DataError) as caught:
        make(source, out, ["shout"])
    log = out / "work" / "logs" / "01_documents" / "logs" / "task_00001.log"
    assert str(caught.value) == (
        "pass '01_documents': task 1 of 3 failed: step 'shout' failed at 11 of 11 documents, last at '1.txt/10': "
        f"ZeroDivisionError: went off\n    log: {log}\n    finished tasks are kept; the same command goes on with the others"
    )
    assert 'raise ZeroDivisionError("went off")' in log.read_text()


def test_html_that_reaches_a_step_for_text_is_an_error_of_the_recipe(source: Path, tmp_path: Path) -> None:
    (source / "0.txt").write_text("<p>marked up it is\nand not this here\n")
    for steps, reader in ((["long"], "steps.long"), (["unique"], "steps.unique"), ([], "tokenizer")):
        with pytest.raises(DataError) as caught:
            make(source, tmp_path / reader, steps)
        assert f"{reader}: takes text, but document '0.txt/0' is still HTML" in str(caught.value)
        assert "put an extraction step first, such as steps=[trafilatura,...]" in str(caught.value)
    out = make(source, tmp_path / "mended", ["untag", "long"])
    assert texts_of(out)[:2] == ["marked up it is", "and not this here"]


def test_limit_is_of_each_share(source: Path, tmp_path: Path) -> None:
    out = make(source, tmp_path / "corpus", limit=4, tasks=5)  # four files
    assert Corpus(out, verify=True).manifest["documents"] == 16
    assert [shard.documents for shard in Corpus(out).shards] == [4, 4, 4, 4, 0]


def test_tokenizer_is_trained_on_a_sample_that_depends_on_the_documents_alone(source: Path, tmp_path: Path) -> None:
    states = []
    for out, tasks, sample in (("a", 2, 20), ("b", 4, 20), ("c", 2, None), ("d", 2, 10**6)):
        settings = {"name": "bpe", "vocab_size": 261}
        make(source, tmp_path / out, tasks=tasks, tokenizer=settings, tokenizer_documents=sample)
        states.append((tmp_path / out / "tokenizer.json").read_bytes())
    assert states[0] == states[1]
    assert states[2] == states[3]


def test_lone_surrogates_do_no_harm(source: Path, tmp_path: Path) -> None:
    (source / "0.txt").write_bytes("one broken letter \xe9 in here\n".encode("latin-1"))
    for path in ("1.txt", "2.txt", "3.txt"):
        (source / path).unlink()
    assert texts_of(make(source, tmp_path / "corpus", ["unique"])) == ["one broken letter ? in here"]
