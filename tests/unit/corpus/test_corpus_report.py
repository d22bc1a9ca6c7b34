"""The page about a corpus, and what is said of its vocabulary."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from torchloom.composing import compose
from torchloom.errors import DataError
from torchloom.registry import current
from torchloom.schema import to_config
from torchloom_corpus.build import build
from torchloom_corpus.configs import RecipeConfig
from torchloom_corpus.report.page import write_report
from torchloom_corpus.shards import Corpus
from torchloom_corpus.vocabulary import count_tokens, segments, vocabulary_report

EVIL = "<script>alert(1)</script> & <b>bold</b>"


def text(number: int) -> str:
    return f"Document {number} tells of {number * 7919} things that no other document tells of, and ends here. " * 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    texts = [text(number) for number in range(30)] + [text(3), text(4), EVIL]
    lines = [json.dumps({"id": f"<{number}>", "text": one}) for number, one in enumerate(texts)]
    (folder / "in.jsonl").write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    words = [
        "source=jsonl",
        f"source.path={folder / 'in.jsonl'}",
        f"out={folder / 'corpus'}",
        "steps=[length,exact_documents]",
        "steps.length.min_words=10",
        "tokenizer.vocab_size=300",
        "tasks=2",
        "engine.workers=1",
    ]
    return build(compose(words, RecipeConfig))


def shown(page: str) -> str:
    """Return what a reader sees of a page, spaces evened out."""
    body = page.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_funnel_reasons_and_examples_are_told(corpus: Path) -> None:
    page = write_report(corpus).read_text(encoding="utf-8")
    told = shown(page)
    assert re.search(r"source 33 1 \S+ kB ≈ [\d,]+ 97\.1%", told)
    assert re.search(r"length 32 1 ", told)
    assert re.search(r"exact_documents 30 2 ", told)
    tokens = json.loads((corpus / "manifest.json").read_text())["tokens"]
    assert re.search(rf"tokens 30 \S+ kB {tokens:,} ", told)
    assert re.search(r"source [a-zA-Z ]+: 1 documents", told)
    assert "exact duplicate: 2 documents" in told
    assert "too few words: 1 documents" in told
    assert EVIL in told


def test_nothing_of_a_document_becomes_markup(corpus: Path) -> None:
    page = write_report(corpus).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert html.escape(EVIL) in page


def test_a_copy_is_shown_with_what_it_is_like(corpus: Path) -> None:
    assert ", like " in write_report(corpus).read_text(encoding="utf-8")


def test_page_is_the_same_every_time_and_stands_alone(corpus: Path) -> None:
    first = write_report(corpus).read_bytes()
    assert write_report(corpus).read_bytes() == first
    assert not re.search(rb'(src|href)="(?!data:)', first)


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: holds no manifest.json")):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def trained(name: str, texts: list[str], **values: object) -> object:
    component = current().get("tokenizer", name)
    tokenizer = current().load(component)(to_config(component, values))
    tokenizer.train(texts)
    return tokenizer


def test_vocabulary_of_characters_is_counted_by_hand() -> None:
    tokenizer = trained("char", ["abc ab a"])
    told = vocabulary_report(tokenizer, ["a b", "abz"])
    # a, space, b; a, b and z, which is unknown: six tokens in two texts of three words.
    assert told.tokens == 6
    assert told.fertility == 6 / 3
    assert told.bytes_per_token == 1
    assert told.unknown_rate == 1 / 6
    assert told.vocab_size == 5
    assert told.used == 4 / 5
    assert dict(told.frequent)["a"] == 2
    assert (told.unused, told.unused_shown) == (1, ["c"])
    assert told.lengths == [(1, 4)]


def test_tokens_of_a_corpus_are_counted_whole(corpus: Path) -> None:
    opened = Corpus(corpus)
    every = [token for number in range(len(opened.shards)) for token in opened.tokens(number).tolist()]
    counts = count_tokens(opened, 300)
    assert counts.tolist() == [every.count(token) for token in range(300)]
    unused = 300 - len(set(every))
    told = shown(write_report(corpus).read_text(encoding="utf-8"))
    assert re.search(rf"Never used: ({unused}|{unused - 1}), such as ", told)  # but for the end of a text
    assert "characters of a token" in told


def test_segments_join_to_the_text() -> None:
    tokenizer = trained("bpe", [text(number) for number in range(20)], vocab_size=300)
    for one in ("Document 5 tells of things", "other words, too"):
        assert "".join(segments(tokenizer, one)) == one
    told = vocabulary_report(tokenizer, [text(30)])
    assert told.exact
    assert told.unknown_rate == 0
    assert told.bytes_per_token > 1
