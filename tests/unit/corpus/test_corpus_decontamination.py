"""Decontamination: evaluation texts planted in documents are found, dropped or cut, and counted by set."""

import json
import os
import random
import string
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from corpus_dedup_runner import run_step

from torchloom.errors import ConfigError, DataError
from torchloom_corpus.dedup.configs import DecontaminateConfig
from torchloom_corpus.dedup.decontamination import Decontaminate


def prose(seed, words=400):
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(words))


def clean(paths, texts, folder, **fields):
    return run_step(Decontaminate, DecontaminateConfig(paths=[str(path) for path in paths], **fields), texts, folder)


QUESTION = "Which of these seventeen rivers, flowing North, has its source in the mountains of 1,200 m and more?"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.txt", QUESTION),
        ("set.jsonl", json.dumps({"id": 1, "question": QUESTION}) + "\n{broken\n"),
        ("set.json", json.dumps([{"rows": [{"question": QUESTION}]}])),
        ("set.tsv", f"id\tquestion\n1\t{QUESTION}\n"),
        ("set.csv", f'id,question\n1,"{QUESTION}"\n'),
    ],
)
def test_every_kind_of_file_is_searched_for_whatever_case_and_punctuation(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    shouted = QUESTION.upper().replace(",", "").replace("1200", "1,200")
    texts = {"clean": prose(0), "dirty": f"{prose(1)} {shouted}\n{prose(2)}"}
    outcome = clean([tmp_path], texts, tmp_path)
    assert outcome.dropped == {"dirty": "contaminated"}
    assert outcome.metadata["dirty"] == {"contaminated_by": str(tmp_path / name)}
    assert outcome.tally.counts[f"documents that share text with {tmp_path / name}"] == 1
    assert outcome.tally.counts["evaluation texts sought"] == 1
    assert outcome.tally.counts["broken evaluation records"] == (name == "set.jsonl")


def test_thirteen_words_in_a_row_are_contamination_and_twelve_are_not(tmp_path):
    words = prose(3, 30).split()
    (tmp_path / "set.txt").write_text(" ".join(words))
    texts = {f"{n}": f"{prose(4)} {' '.join(words[5 : 5 + n])} {prose(5)}" for n in (12, 13, 20)}
    assert set(clean([tmp_path / "set.txt"], texts, tmp_path).dropped) == {"13", "20"}
    assert set(clean([tmp_path / "set.txt"], texts, tmp_path, min_matches=2).dropped) == {"20"}
    assert set(clean([tmp_path / "set.txt"], texts, tmp_path, ngram=12).dropped) == {"12", "13", "20"}


def test_only_named_fields_are_sought(tmp_path):
    record = {"answers": [{"text": prose(6, 20)}], "context": prose(7, 20)}
    (tmp_path / "set.jsonl").write_text(json.dumps(record))
    texts = {"answer": prose(6, 20), "context": prose(7, 20)}
    assert set(clean([tmp_path / "set.jsonl"], texts, tmp_path, fields=["answers"]).dropped) == {"answer"}
    (tmp_path / "set.tsv").write_text(f"a\tb\n{prose(6, 20)}\t{prose(7, 20)}\n")
    assert set(clean([tmp_path / "set.tsv"], texts, tmp_path, fields=["b"]).dropped) == {"context"}


def test_a_match_is_cut_with_the_characters_around_it(tmp_path):
    before, match, behind = prose(8), prose(9, 20), prose(10)
    (tmp_path / "set.txt").write_text(match)
    texts = {"a": f"{before} {match.title()} {behind}", "b": f"{before[:300]} {match}", "c": f"{match} {behind[:300]}"}
    outcome = clean([tmp_path / "set.txt"], texts, tmp_path, action="cut", window=50, min_piece=200)
    assert outcome.texts == {
        "a": f"{before[:-49].strip()}\n\n{behind[49:].strip()}",
        "b": before[:251].strip(),
        "c": behind[49:300].strip(),
    }
    assert outcome.tally.counts["documents cut"] == 3
    assert clean([tmp_path / "set.txt"], texts, tmp_path, action="cut").dropped == {
        "b": "contaminated",  # what is left is too short
        "c": "contaminated",
    }


def test_a_document_torn_into_many_pieces_is_dropped(tmp_path):
    match = prose(11, 13)
    (tmp_path / "set.txt").write_text(match)
    texts = {str(n): f" {match} ".join(prose(100 + k, 120) for k in range(n + 1)) for n in (9, 10)}
    outcome = clean([tmp_path / "set.txt"], texts, tmp_path, action="cut")
    assert outcome.dropped == {"10": "contaminated"}
    assert outcome.texts["9"].count("\n\n") == 9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, r"missing\.txt: no such evaluation set \(steps\.decontaminate\.paths\)"),
        ("set.parquet", "x", r"set\.parquet: not a kind of file .*\n.*\.jsonl"),
        ("set.json", "{cut", r"set\.json: cannot be read as an evaluation set"),
        ("set.txt", "too short to be sought", r"no text has 13 words.*\n.*ngram"),
        ("set.jsonl", "", r"no text has 13 words"),
    ],
)
def test_unusable_evaluation_sets_are_refused_by_name(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        clean([tmp_path / name], {"a": "text"}, tmp_path)


def test_a_set_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match=r"steps\.decontaminate\.paths: no evaluation set is named"):
        clean([], {}, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no evaluation set in this folder"):
        clean([tmp_path / "empty"], {}, tmp_path)


@pytest.mark.skipif("TORCHLOOM_DATA" not in os.environ, reason="needs TORCHLOOM_DATA: real evaluation sets")
def test_contexts_of_squad_are_found_in_wikipedia(tmp_path):
    data = Path(os.environ["TORCHLOOM_DATA"])
    squad = data / "squad" / "xquad.en.json"
    contexts = [
        paragraph["context"]
        for article in json.loads(squad.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    pages = [
        line.strip()
        for line in (data / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()
        if len(line.split()) > 50
    ]
    rng = random.Random(0)
    texts = {f"page/{number}": page for number, page in enumerate(pages)}
    planted = rng.sample(sorted(texts), 150)
    for identity, context in zip(planted, rng.sample(contexts, 150), strict=True):
        words = context.split()
        start = rng.randrange(max(1, len(words) - 25))
        passage = " ".join(words[start : start + 25])
        place = rng.randrange(len(texts[identity]))
        place = texts[identity].find(" ", place)
        texts[identity] = f"{texts[identity][:place]} {passage} {texts[identity][place:]}"
    outcome = clean([squad], texts, tmp_path)
    assert set(planted) <= set(outcome.dropped)
    assert len(outcome.dropped) <= 1.01 * len(planted)
