"""Exact deduplication of documents, paragraphs and lines, in one corpus and against others."""

import random
import string

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from corpus_dedup_runner import run_step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchloom.errors import DataError
from torchloom_corpus.dedup import runs
from torchloom_corpus.dedup.configs import ExactDocumentsConfig, ExactLinesConfig, ExactParagraphsConfig
from torchloom_corpus.dedup.exact import ExactDocuments, ExactLines, ExactParagraphs
from torchloom_corpus.dedup.runs import natural
from torchloom_corpus.dedup.step import size_label


def as_corpus(folder, work, label):
    """Put the index that a step left where a finished corpus keeps it."""
    (folder / "index").mkdir(parents=True)
    (work / "index").rename(folder / "index" / label)
    return folder


def sentence(rng, words=12):
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(words))


# Documents


@pytest.mark.parametrize(
    ("normalise", "stay"),
    [
        ("none", ["a", "b", "c", "d"]),
        ("whitespace", ["a", "c", "d"]),
        ("simplified", ["a", "d"]),
    ],
)
def test_what_does_not_count_is_a_choice(tmp_path, normalise, stay):
    texts = {"a": "Café 12 is open.", "b": "  Café\n12 is  open.", "c": "cafe 7 IS open", "d": "Cafés are open."}
    texts |= {"e": texts["a"]}
    outcome = run_step(ExactDocuments, ExactDocumentsConfig(normalise=normalise), texts, tmp_path, tasks=2)
    assert sorted(outcome.texts) == stay
    assert outcome.metadata["e"] == {"duplicate_of": "a"}
    assert set(outcome.reasons) == {"exact duplicate"}


@given(
    words=st.lists(st.integers(0, 12), max_size=60),
    tasks=st.integers(1, 5),
    held=st.integers(1, 20),
    keep=st.sampled_from(["one", "none"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_documents_are_those_that_a_table_in_memory_keeps(
    tmp_path_factory, monkeypatch, words, tasks, held, keep, seed
):
    monkeypatch.setattr(runs, "HELD", held)
    texts = {f"page/{number}": f"text {word}" for number, word in enumerate(words)}
    copies = {}
    for identity, text in texts.items():
        copies.setdefault(text, []).append(identity)
    expected = {ids[0] for ids in copies.values() if keep == "one" or len(ids) == 1}
    items = list(texts.items())
    random.Random(seed).shuffle(items)

    config = ExactDocumentsConfig(keep=keep)
    outcome = run_step(ExactDocuments, config, dict(items), tmp_path_factory.mktemp("work"), tasks)

    assert set(outcome.texts) == expected
    for identity, metadata in outcome.metadata.items():
        first = copies[texts[identity]][0]
        assert metadata.get("duplicate_of") == (None if identity == first else first)
    sizes = {}
    for ids in copies.values():
        if len(ids) > 1:
            sizes[size_label(len(ids))] = sizes.get(size_label(len(ids)), 0) + 1
    assert outcome.tally.histograms.get("cluster size", {}) == sizes


@given(st.lists(st.text("ab019/.", max_size=6), unique=True, max_size=6))
def test_ids_are_ordered_by_their_numbers(ids):
    def by_parts(identity):
        parts, digits = [], ""
        for c in identity + "\0":
            if c.isdigit():
                digits += c
                continue
            if digits:
                parts.append((ord("0"), int(digits)))  # among other characters, where digits are
                digits = ""
            parts.append((ord(c), 0))
        return parts, identity

    assert sorted(ids, key=natural) == sorted(ids, key=by_parts)


def test_several_existing_corpora_are_named(tmp_path):
    corpora = []
    for name, texts in {"first": {"x": "one", "y": "two"}, "second": {"x": "two", "z": "three"}}.items():
        run_step(ExactDocuments, ExactDocumentsConfig(save_index=True), texts, tmp_path / name, tasks=2)
        corpora.append(str(as_corpus(tmp_path / "corpora" / name, tmp_path / name, "exact_documents")))
    texts = {"a": "two", "b": "three", "c": "four", "d": "two", "e": "three", "f": "four"}
    config = ExactDocumentsConfig(against=corpora, save_index=True)

    outcome = run_step(ExactDocuments, config, texts, tmp_path / "work", tasks=3)

    assert list(outcome.texts) == ["c"]
    assert outcome.metadata == {
        "a": {"duplicate_of": f"{corpora[0]}: y"},
        "d": {"duplicate_of": f"{corpora[0]}: y"},
        "b": {"duplicate_of": f"{corpora[1]}: z"},
        "e": {"duplicate_of": f"{corpora[1]}: z"},
        "f": {"duplicate_of": "c"},
    }
    assert outcome.reasons == {"in existing corpus": 4, "exact duplicate": 1}
    # The index of the new corpus holds what is new in it.
    third = as_corpus(tmp_path / "corpora" / "third", tmp_path / "work", "exact_documents")
    config = ExactDocumentsConfig(against=[str(third)])
    assert list(run_step(ExactDocuments, config, texts, tmp_path / "last").texts) == ["a", "b"]


def test_an_index_of_another_normalisation_is_refused(tmp_path):
    run_step(ExactDocuments, ExactDocumentsConfig(save_index=True, normalise="none"), {"a": "a"}, tmp_path / "work")
    corpus = as_corpus(tmp_path / "corpus", tmp_path / "work", "exact_documents")
    with pytest.raises(
        DataError, match=r"'normalise': 'none'.*this build has .*'whitespace'.*\n.*steps\.exact_documents"
    ):
        run_step(ExactDocuments, ExactDocumentsConfig(against=[str(corpus)]), {"a": "a"}, tmp_path / "next")


# Lines and paragraphs


def test_a_line_stays_where_it_comes_first(tmp_path):
    footer = "Copyright of nobody at all, 2026"
    own = {
        number: f"the text of page {'abcdefgh'[number]} is something else than all others have to say"
        for number in range(6)
    }
    texts = {f"page/{number}": f"{text}\nshort\n{footer}\n{text}" for number, text in own.items()}
    texts["page/0"] += f"\n  {footer} "

    outcome = run_step(ExactLines, ExactLinesConfig(), dict(reversed(texts.items())), tmp_path, tasks=4)

    assert outcome.texts["page/0"] == f"{own[0]}\nshort\n{footer}"
    assert {outcome.texts[f"page/{number}"] for number in range(1, 6)} == {f"{own[n]}\nshort" for n in range(1, 6)}
    counts = outcome.tally.counts
    assert counts["repeated lines cut"] == 6 + 6
    assert counts["bytes of lines cut"] == sum(map(len, own.values())) + 6 * len(footer) + 3


def test_documents_of_which_too_little_is_left_are_dropped(tmp_path):
    line = "one two three four five six seven eight nine ten"
    texts = {"a": line, "b": f"{line}\nand now some more", "c": "only three words"}
    outcome = run_step(ExactLines, ExactLinesConfig(min_words_left=5), texts, tmp_path)
    assert outcome.dropped == {"b": "too little left"}
    assert outcome.texts == {"a": line, "c": "only three words"}
    assert run_step(ExactLines, ExactLinesConfig(min_words_left=4), texts, tmp_path).texts["b"] == "and now some more"


def test_lines_repeated_anywhere_can_all_go(tmp_path):
    rng = random.Random(0)
    own = [sentence(rng) for _ in range(4)]
    menu = "Home | Products | About us | Contact"
    texts = {str(number): f"{menu}\n{text}" for number, text in enumerate(own)}
    outcome = run_step(ExactLines, ExactLinesConfig(keep="none"), texts, tmp_path, tasks=3)
    assert list(outcome.texts.values()) == [own[0], own[3], own[1], own[2]]


@given(
    lines=st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=12),
    tasks=st.integers(1, 4),
    held=st.integers(1, 12),
    keep=st.sampled_from(["one", "none"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_those_that_a_table_in_memory_keeps(tmp_path_factory, monkeypatch, lines, tasks, held, keep):
    monkeypatch.setattr(runs, "HELD", held)
    texts = {f"page/{number}": "\n".join(f"line {line}" for line in page) for number, page in enumerate(lines)}
    everything = [line for page in lines for line in page]
    seen, expected = set(), {}
    for number, page in enumerate(lines):
        left = []
        for line in page:
            if line not in seen if keep == "one" else everything.count(line) == 1:
                left.append(f"line {line}")
            seen.add(line)
        if left or not page:
            expected[f"page/{number}"] = "\n".join(left)

    config = ExactLinesConfig(keep=keep, min_characters=1, min_words_left=1)
    outcome = run_step(ExactLines, config, texts, tmp_path_factory.mktemp("work"), tasks)

    assert outcome.texts == expected


def test_paragraphs_are_compared_whole_and_with_other_corpora(tmp_path):
    rng = random.Random(1)
    a, b, c, d = (f"{sentence(rng)}\n{sentence(rng)}" for _ in range(4))
    run_step(ExactParagraphs, ExactParagraphsConfig(save_index=True), {"old": f"{a}\n\n{b}"}, tmp_path / "work")
    corpus = as_corpus(tmp_path / "corpus", tmp_path / "work", "exact_paragraphs")
    texts = {"1": f"{c}\n \n\n{a}\n\n{d}", "2": f"{c} {d}\n\n{c.split(chr(10))[0]}\n\n{d}", "3": f"{a}\n\n{b}"}

    outcome = run_step(ExactParagraphs, ExactParagraphsConfig(against=[str(corpus)]), texts, tmp_path / "new", tasks=2)

    assert outcome.texts == {"1": f"{c}\n\n{d}", "2": f"{c} {d}\n\n{c.split(chr(10))[0]}"}
    assert outcome.dropped == {"3": "too little left"}
    assert (
        outcome.tally.counts["repeated paragraphs cut"] == 2
    )  # of the two that an existing corpus has, one run knows one
    assert outcome.tally.counts["paragraphs of existing corpora cut"] == 2
