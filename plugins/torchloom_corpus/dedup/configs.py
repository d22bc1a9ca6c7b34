"""Settings of deduplication and decontamination. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.options import option

GPT3 = "Brown et al. 2020 (GPT-3), appendix C, https://arxiv.org/abs/2005.14165"


@dataclass
class DeduplicationConfig:
    """Fields that every kind of deduplication has."""

    keep: Literal["one", "none"] = option(
        "one",
        "What stays of things that are alike: the first one, in the order of document ids with numbers compared as "
        "numbers, or none of them.",
    )
    against: list[str] = option(
        list,
        "Folders of corpora built with this step's save_index; whatever stands in one of them is dropped.",
    )
    save_index: bool = option(False, "Keep an index with the corpus, so that later ones can be built against it.")


@dataclass
class ExactDocumentsConfig(DeduplicationConfig):
    """Settings of `exact_documents`."""

    normalise: Literal["none", "whitespace", "simplified"] = option(
        "whitespace",
        "Differences that do not count: none, those of white space, or also those of case, punctuation, accents and "
        "the digits of numbers (simplified).",
    )


@dataclass
class ExactLinesConfig(DeduplicationConfig):
    """Settings of `exact_lines`."""

    normalise: Literal["none", "whitespace", "simplified"] = option(
        "whitespace",
        "Differences that do not count: none, those of white space, or also those of case, punctuation, accents and "
        "the digits of numbers (simplified).",
    )
    min_characters: int = option(20, "Shorter lines may repeat.", ge=1, unit="characters")
    min_words_left: int = option(
        10, "A document that repeats were cut from is dropped when fewer words are left of it.", ge=1, unit="words"
    )


@dataclass
class ExactParagraphsConfig(ExactLinesConfig):
    """Settings of `exact_paragraphs`."""

    min_characters: int = option(40, "Shorter paragraphs may repeat.", ge=1, unit="characters")


@dataclass
class MinHashConfig(DeduplicationConfig):
    """Settings of `minhash`.

    Two documents whose sets of shingles have the Jaccard similarity s are found alike with probability
    1 - (1 - s^rows)^bands, which rises steeply around s = (1 / bands)^(1 / rows).
    """

    bands: int = option(
        28,
        "Chances two documents have of being found alike. With 28 bands of 4 rows and shingles of 3 words, copies in which "
        "one word in ten was changed are found; FineWeb has 14 of 8 with 5, which finds copies that share nine shingles "
        "in ten.",
        ge=1,
        le=1000,
    )
    rows: int = option(4, "Hashes that must agree for a band to agree.", ge=1, le=100)
    shingle: int = option(3, "Words in a shingle; a shorter document is one shingle.", ge=1, le=100, unit="words")
    seed: int = option(
        1, "Draws the hash functions; an index serves only the seed it was made with.", ge=0, lt=2**32 - 1
    )


@dataclass
class DecontaminateConfig:
    """Settings of `decontaminate`."""

    paths: list[str] = option(
        list,
        "Evaluation sets: .txt, .jsonl, .json, .tsv or .csv files, or folders of such files. A text file is one text; "
        "of the others each string is one.",
    )
    fields: list[str] = option(
        list, "Fields or columns that are searched for, wherever they stand in a record; all of them when empty."
    )
    ngram: int = option(
        13,
        "Words in a row that a document must share with an evaluation set; shorter evaluation texts are not sought.",
        ge=1,
        unit="words",
        source=GPT3,
    )
    min_matches: int = option(1, "Shared n-grams that make a document contaminated.", ge=1)
    action: Literal["drop", "cut"] = option("drop", "Drop a contaminated document, or cut what it shares out of it.")
    window: int = option(
        200, "With action=cut, what is cut on both sides of a match.", ge=0, unit="characters", source=GPT3
    )
    min_piece: int = option(
        200, "With action=cut, shorter pieces between cuts go too.", ge=1, unit="characters", source=GPT3
    )
    max_pieces: int = option(
        10, "With action=cut, a document that would fall into more pieces is dropped.", ge=1, source=GPT3
    )
