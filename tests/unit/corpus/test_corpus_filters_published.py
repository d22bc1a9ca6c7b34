"""Gopher's, C4's and FineWeb's rules: each at its threshold, and all of them against datatrove's own blocks."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from torchloom.errors import ConfigError

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.filters.configs import (
    C4QualityConfig,
    FineWebQualityConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
)
from torchloom_corpus.filters.published import C4Quality, FineWebQuality, GopherQuality, GopherRepetition

HAIR = 1e-9
OFF = {
    GopherRepetition: {name: 0 for name in vars(GopherRepetitionConfig()) if name.startswith("max_")},
    GopherQuality: {name: 0 for name in vars(GopherQualityConfig()) if name.startswith(("max_", "min_"))}
    | {"min_words": 1},
    FineWebQuality: {
        "min_punctuated_lines": 0,
        "max_short_lines": 1,
        "max_duplicate_line_characters": 1,
        "max_line_breaks_per_word": 1e9,
    },
}
CONFIGS = {
    GopherRepetition: GopherRepetitionConfig,
    GopherQuality: GopherQualityConfig,
    C4Quality: C4QualityConfig,
    FineWebQuality: FineWebQualityConfig,
}


def started(step, **values):
    made = step(CONFIGS[step](**values))
    made.start(StepTally("step"), 0, 1)
    return made


def reason(step, text, **values):
    return started(step, **OFF[step] | values).process(Document(text, "1"))


# What each rule measures, written down from the papers. Words are chosen so that white space separates them.
def lines_of(text):
    return re.split(r"\n+", text)


def repeated(items):
    return len(items) - len(set(items)), sum(map(len, items)) - sum(map(len, set(items)))


def top_ngram(n):
    def share(text):
        words = text.split()
        grams = Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
        if not grams:
            return 0
        gram, count = grams.most_common(1)[0]
        return len(gram) * count / len(text)

    return share


def duplicate_ngrams(n):
    def share(text):
        words, seen, at, characters = text.split(), set(), 0, 0
        while at <= len(words) - n:
            gram = tuple(words[at : at + n])
            if gram in seen:
                characters += sum(map(len, gram))
                at += n
            else:
                seen.add(gram)
                at += 1
        return characters / len(text)

    return share


def real_words(text):
    return [word for word in text.split() if set(word) - set("#-.…")]


def mean_length(text):
    return sum(map(len, real_words(text))) / len(real_words(text))


def share_of(items, holds):
    items = list(items)
    return sum(map(holds, items)) / len(items)


def full_lines(text):
    return [line for line in text.split("\n") if line.strip()]


REPETITION = [
    ("max_duplicate_lines", lambda text: repeated(lines_of(text))[0] / len(lines_of(text)), "duplicate lines"),
    (
        "max_duplicate_line_characters",
        lambda text: repeated(lines_of(text))[1] / len(text),
        "characters in duplicate lines",
    ),
    (
        "max_duplicate_paragraphs",
        lambda text: repeated(re.split(r"\n{2,}", text))[0] / len(re.split(r"\n{2,}", text)),
        "duplicate paragraphs",
    ),
    (
        "max_duplicate_paragraph_characters",
        lambda text: repeated(re.split(r"\n{2,}", text))[1] / len(text),
        "characters in duplicate paragraphs",
    ),
    *[(f"max_top_{n}gram", top_ngram(n), f"most frequent {n}-gram") for n in (2, 3, 4)],
    *[(f"max_duplicate_{n}grams", duplicate_ngrams(n), f"duplicate {n}-grams") for n in range(5, 11)],
]
QUALITY = [
    ("max_words", lambda text: len(real_words(text)), "too many words"),
    ("min_words", lambda text: len(real_words(text)), "too few words"),
    ("max_mean_word_length", mean_length, "mean word too long"),
    ("min_mean_word_length", mean_length, "mean word too short"),
    ("max_symbols_per_word", lambda text: text.count("#") / len(text.split()), "too many hash signs"),
    (
        "max_symbols_per_word",
        lambda text: (text.count("...") + text.count("…")) / len(text.split()),
        "too many ellipses",
    ),
    (
        "max_bullet_lines",
        lambda text: share_of(text.splitlines(), lambda line: line.startswith(("-", "•"))),
        "too many bullet lines",
    ),
    (
        "max_ellipsis_lines",
        lambda text: share_of(text.splitlines(), lambda line: line.endswith(("...", "…"))),
        "too many lines end in an ellipsis",
    ),
    (
        "min_alphabetic_words",
        lambda text: share_of(text.split(), lambda word: any(map(str.isalpha, word))),
        "too few words with letters",
    ),
    ("min_stop_words", lambda text: len({"the", "with", "that"} & set(text.split())), "too few stop words"),
]
FINEWEB = [
    (
        "min_punctuated_lines",
        lambda text: share_of(full_lines(text), lambda line: line[-1] in ".!?"),
        "too few lines end in punctuation",
    ),
    ("max_short_lines", lambda text: share_of(full_lines(text), lambda line: len(line) <= 30), "too many short lines"),
    (
        "max_duplicate_line_characters",
        lambda text: repeated(full_lines(text))[1] / len(text.replace("\n", "")),
        "characters in duplicate lines",
    ),
    ("max_line_breaks_per_word", lambda text: text.count("\n") / len(text.split()), "too many line breaks"),
]
RULES = [
    (step, *rule)
    for step, rules in ((GopherRepetition, REPETITION), (GopherQuality, QUALITY), (FineWebQuality, FINEWEB))
    for rule in rules
]

WORDS = ["cat", "zebra", "the", "with", "house", "that", "1234", "#", "...", "…", "."]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Text that repeats lines, and words within them."""
    vocabulary = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6))
    inner = st.lists(st.sampled_from(vocabulary), min_size=1, max_size=12)
    begin = st.sampled_from(["", "", "- ", "• "])
    pool = draw(
        st.lists(st.builds(lambda mark, rest: f"{mark}garden {' '.join(rest)}", begin, inner), min_size=1, max_size=3)
    )
    lines = draw(st.lists(st.sampled_from(pool), min_size=2, max_size=8))
    return draw(st.sampled_from(["\n", "\n\n"])).join(lines)


@pytest.mark.parametrize(
    ("step", "option", "measure", "expected"), RULES, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_document_at_the_threshold_is_kept_and_one_a_hair_beyond_is_not(step, option, measure, expected) -> None:
    whole = option in ("max_words", "min_words", "min_stop_words")
    hair = 1 if whole else HAIR
    seen = []

    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(documents())
    def law(text) -> None:
        value = measure(text)
        beyond = value - hair if option.startswith("max_") else value + hair
        assume(value > 0 and beyond > 0)
        # hash signs and ellipses share a threshold: text with the other one says nothing about this one
        assume(expected != "too many hash signs" or "." not in text + "…" * ("…" in text))
        assume(expected != "too many ellipses" or "#" not in text)
        assert reason(step, text, **{option: value}) is None
        assert reason(step, text, **{option: beyond}) == expected
        seen.append(text)

    law()
    assert len(seen) >= 5


def test_short_lines_end_at_the_length_given() -> None:
    text = "\n".join(["x" * 30, "y" * 31, "z" * 40])
    assert reason(FineWebQuality, text, max_short_lines=1 / 3) is None
    assert reason(FineWebQuality, text, max_short_lines=1 / 3, short_line=31) == "too many short lines"


@pytest.mark.parametrize("step", OFF)
def test_with_every_rule_off_anything_but_nothing_is_kept(step) -> None:
    text = "- # ...\n" * 50 + "word"
    assert reason(step, text) is None
    assert reason(step, " \n\t\n") == "empty"
    assert reason(step, "") == "empty"


@pytest.mark.parametrize("step", CONFIGS)
def test_half_a_surrogate_pair_is_a_reason_not_a_crash(step) -> None:
    text = "\n".join(f"Sentence {number} of the page is \ud800 long enough, and that is well." for number in range(30))
    assert started(step).process(Document(text, "1")) == "not valid Unicode"


FIVE = [f"The {word} sat on the mat." for word in ("cat", "dog", "hen", "cow", "owl")]


def c4(lines, **values):
    document = Document("\n".join(lines), "1")
    step = started(C4Quality, **values)
    return step.process(document), document.text.split("\n"), dict(step.tally.counts)


def test_c4_wants_five_sentences() -> None:
    assert c4(FIVE) == (None, FIVE, {})
    assert c4(FIVE[:4])[0] == "too few sentences"
    assert c4(FIVE[:4], min_sentences=4)[0] is None
    assert c4([" ".join(FIVE)])[0] is None  # they may stand in one line


@pytest.mark.parametrize(
    ("line", "kept", "what", "off"),
    [
        ("A line without an end", False, "no terminal punctuation", {"terminal_punctuation": False}),
        ("A line that trails off...", False, "no terminal punctuation", {"terminal_punctuation": False}),
        ("Does it end in a mark?", True, "", {}),
        ("Two words.", False, "too few words", {"min_words_per_line": 2}),
        ("Just three words.", True, "", {}),
        ("It is " + "x" * 1000 + " long.", True, "", {}),
        ("It is " + "x" * 1001 + " long.", False, "word too long", {"max_word_length": None}),
        ("Please enable JavaScript to go on.", False, "JavaScript", {"javascript": False}),
        ("Please enable Java script to go on.", True, "", {}),
        ("Read our privacy policy with care.", False, "policy", {"policy": False}),
        ("Read our policy on privacy with care.", True, "", {}),
    ],
)
def test_c4_takes_out_lines_and_counts_them(line, kept, what, off) -> None:
    verdict, left, counts = c4([*FIVE, line])
    assert verdict is None
    assert left == ([*FIVE, line] if kept else FIVE)
    assert counts == ({} if kept else {f"lines taken out: {what}": 1})
    assert c4([*FIVE, line], **off)[1] == [*FIVE, line]


@pytest.mark.parametrize(
    ("line", "expected", "off"),
    [
        ("Here is Lorem Ipsum for you.", "lorem ipsum", {"lorem_ipsum": False}),
        ("A brace { is enough for it.", "curly bracket", {"curly_bracket": False}),
    ],
)
def test_c4_drops_filler_and_code(line, expected, off) -> None:
    verdict, _, counts = c4(["No end here", *FIVE, line])
    assert (verdict, counts) == (expected, {})  # lines are counted in documents that are kept
    assert c4([*FIVE, line], **off)[0] is None


def test_c4_takes_out_marks_of_citation() -> None:
    assert c4([*FIVE, "The cat [12] sat here [citation needed]."])[1][-1] == "The cat  sat here ."
    assert c4([*FIVE, "The cat [12] sat here."], citations=False)[1][-1] == "The cat [12] sat here."


def test_c4_drops_a_document_of_which_nothing_is_left() -> None:
    assert c4(["no end", "none here"], min_sentences=0)[0] == "empty"


def test_an_unknown_language_and_one_without_its_package_are_named() -> None:
    with pytest.raises(ConfigError, match=r"steps\.c4_quality.language: 'klingon' is no language with known rules"):
        C4Quality(C4QualityConfig(language="klingon"))
    with pytest.raises(ConfigError, match=r"steps.gopher_repetition.language: 'wo' .*(downloaded|package)"):
        GopherRepetition(GopherRepetitionConfig(language="wo"))


def test_stop_words_must_be_of_the_language() -> None:
    with pytest.raises(
        ConfigError, match=r"steps\.gopher_quality.stop_words: are English ones, but the language is 'fr'"
    ):
        GopherQuality(GopherQualityConfig(language="fr"))
    french = started(GopherQuality, language="fr", stop_words=["le", "la", "et", "de"])
    text = "Le chat noir et la souris blanche de la maison dorment longtemps près du grand feu. " * 5
    assert french.process(Document(text, "1")) is None
    assert started(GopherQuality).process(Document(text, "1")) == "too few stop words"


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    if "TORCHLOOM_DATA" not in os.environ:
        pytest.skip("TORCHLOOM_DATA is not set")
    data = Path(os.environ["TORCHLOOM_DATA"])
    wiki = (data / "wikitext2/test.txt").read_text("utf-8")
    novel = sorted((data / "french").glob("*.txt"))[0].read_text("utf-8")
    plays = (data / "tinyshakespeare/input.txt").read_text("utf-8")
    pages = [path.read_text("utf-8") for path in sorted((data / "html_extraction").glob("*/source.html"))[:16]]
    articles = re.split(r"\n = [^=]+ = \n", wiki)[1:20]
    pieces = [text[at : at + 1000] for text in (novel, plays) for at in range(0, 15_000, 1500)]
    return [
        *articles,
        *pieces,
        *(re.sub(r"(?s)<[^>]*>", "", page)[:2000] for page in pages),
        *(page[:1000] for page in pages),
    ]


@pytest.mark.parametrize(
    ("step", "block"),
    [
        (GopherRepetition, GopherRepetitionFilter),
        (GopherQuality, GopherQualityFilter),
        (C4Quality, C4QualityFilter),
        (FineWebQuality, FineWebQualityFilter),
    ],
)
def test_verdicts_on_real_text_are_datatroves(step, block, real_texts) -> None:
    ours, theirs, reasons = started(step), block(), set()
    for text in real_texts:
        mine, other = Document(text, "1"), Document(text, "1")
        found, verdict = ours.process(mine), theirs.filter(other)
        assert (found is None) == (verdict is True)
        assert mine.text == other.text
        if found not in (None, "empty"):
            assert found == ours.reasons[verdict[1]]
        reasons.add(found)
    assert None in reasons
    assert len(reasons) >= 3
