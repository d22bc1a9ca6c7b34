"""Settings of the filters. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from torchloom.options import option

_GOPHER = "Gopher (arXiv:2112.11446)"
_GOPHER_TABLE = "Gopher (arXiv:2112.11446), Table A1"
_C4 = "C4 (arXiv:1910.10683), section 2.2"
_C4_CODE = "C4's code, tensorflow_datasets/text/c4_utils.py"
_FINEWEB = "FineWeb (arXiv:2406.17557), section 3.6"

_WORDS_OF = "Language whose rules split words and sentences (ISO 639)."


@dataclass
class LanguageConfig:
    """Settings of `language`."""

    languages: list[str] = option(
        lambda: ["en"],
        "Languages to keep, as lid.176 names them (ISO 639-1 where there is one); none keeps every document and only "
        "notes its language.",
    )
    min_score: float = option(
        0.65,
        "Confidence that the model must have in the language.",
        ge=0,
        le=1,
        source="FineWeb (arXiv:2406.17557), section 3.3",
    )


@dataclass
class LengthConfig:
    """Settings of `length`; words are what white space separates."""

    min_words: int = option(50, "Fewest words of a document.", ge=0, unit="words", source=_GOPHER)
    max_words: int | None = option(
        100_000, "Most words of a document; null for any.", ge=1, unit="words", source=_GOPHER
    )
    min_characters: int = option(0, "Fewest characters of a document.", ge=0, unit="characters")
    max_characters: int | None = option(None, "Most characters of a document; null for any.", ge=1, unit="characters")


@dataclass
class GopherRepetitionConfig:
    """Settings of `gopher_repetition`: shares of a document that repeat. 0 switches a rule off."""

    max_duplicate_lines: float = option(
        0.3, "Share of its lines that repeat an earlier one.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_paragraphs: float = option(
        0.3, "Share of its paragraphs that repeat an earlier one.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_line_characters: float = option(
        0.2, "Share of its characters in such lines.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_paragraph_characters: float = option(
        0.2, "Share of its characters in such paragraphs.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_top_2gram: float = option(
        0.2, "Share of its characters in its most frequent 2-gram of words.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_top_3gram: float = option(
        0.18, "Share of its characters in its most frequent 3-gram of words.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_top_4gram: float = option(
        0.16, "Share of its characters in its most frequent 4-gram of words.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_5grams: float = option(
        0.15, "Share of its characters in 5-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_6grams: float = option(
        0.14, "Share of its characters in 6-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_7grams: float = option(
        0.13, "Share of its characters in 7-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_8grams: float = option(
        0.12, "Share of its characters in 8-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_9grams: float = option(
        0.11, "Share of its characters in 9-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    max_duplicate_10grams: float = option(
        0.10, "Share of its characters in 10-grams of words seen before.", ge=0, le=1, source=_GOPHER_TABLE
    )
    language: str = option("en", _WORDS_OF)


@dataclass
class GopherQualityConfig:
    """Settings of `gopher_quality`. 0 switches a rule off, but for the fewest words."""

    min_words: int = option(50, "Fewest words, marks of punctuation not counted.", ge=1, unit="words", source=_GOPHER)
    max_words: int = option(100_000, "Most words.", ge=0, unit="words", source=_GOPHER)
    min_mean_word_length: float = option(3, "Shortest mean word.", ge=0, unit="characters", source=_GOPHER)
    max_mean_word_length: float = option(10, "Longest mean word.", ge=0, unit="characters", source=_GOPHER)
    max_symbols_per_word: float = option(0.1, "Most hash signs a word, and most ellipses a word.", ge=0, source=_GOPHER)
    max_bullet_lines: float = option(0.9, "Share of lines that begin with a bullet.", ge=0, le=1, source=_GOPHER)
    max_ellipsis_lines: float = option(0.3, "Share of lines that end in an ellipsis.", ge=0, le=1, source=_GOPHER)
    min_alphabetic_words: float = option(0.8, "Share of words with at least one letter.", ge=0, le=1, source=_GOPHER)
    min_stop_words: int = option(2, "Different stop words that must occur.", ge=0, source=_GOPHER)
    stop_words: list[str] = option(
        lambda: ["the", "be", "to", "of", "and", "that", "have", "with"],
        "The stop words, in lower case; another language needs its own.",
        source=_GOPHER,
    )
    language: str = option("en", _WORDS_OF)


@dataclass
class C4QualityConfig:
    """Settings of `c4_quality`: takes out lines, then judges what is left."""

    terminal_punctuation: bool = option(
        True, "Take out lines that do not end in a mark such as a full stop, or end in an ellipsis.", source=_C4
    )
    min_words_per_line: int = option(3, "Take out lines of fewer words.", ge=0, unit="words", source=_C4_CODE)
    max_word_length: int | None = option(
        1000, "Take out lines with a longer word; null for any.", ge=1, unit="characters", source=_C4_CODE
    )
    javascript: bool = option(True, "Take out lines with the word JavaScript.", source=_C4)
    policy: bool = option(True, "Take out lines about cookies, privacy policy or terms of use.", source=_C4)
    citations: bool = option(True, "Take marks such as [3], [edit], [citation needed] out of lines.", source=_C4)
    min_sentences: int = option(5, "Fewest sentences in the lines that are left.", ge=0, source=_C4_CODE)
    lorem_ipsum: bool = option(True, "Drop documents with the phrase lorem ipsum.", source=_C4)
    curly_bracket: bool = option(True, "Drop documents with an opening curly bracket.", source=_C4)
    language: str = option("en", _WORDS_OF)


@dataclass
class FineWebQualityConfig:
    """Settings of `fineweb_quality`; empty lines do not count."""

    min_punctuated_lines: float = option(
        0.12, "Share of lines that must end in a mark such as a full stop.", ge=0, le=1, source=_FINEWEB
    )
    max_short_lines: float = option(0.67, "Share of lines that are short.", ge=0, le=1, source=_FINEWEB)
    short_line: int = option(
        30,
        "Longest line that is short.",
        ge=0,
        unit="characters",
        source=f"{_FINEWEB} (shorter than 30); datatrove's code (30 and shorter)",
    )
    max_duplicate_line_characters: float = option(
        0.01,
        "Share of characters in lines that repeat an earlier one.",
        ge=0,
        le=1,
        source=f"datatrove's FineWebQualityFilter, which made FineWeb; {_FINEWEB} says 0.1",
    )
    max_line_breaks_per_word: float = option(
        0.3, "Most line breaks a word, against lists.", ge=0, source="datatrove's FineWebQualityFilter"
    )
    language: str = option("en", _WORDS_OF)


@dataclass
class WordListConfig:
    """Settings of `word_list`.

    Entries match whole words, case-folded; a word is a run of letters, digits and underscores, so that the list does not
    suit languages written without spaces.
    """

    words: list[str] = option(list, "Words or phrases.")
    path: str | None = option(None, "UTF-8 file of more of them, one a line; lines that begin with # are passed over.")
    max_matches: int | None = option(0, "Most matches in a document; null for any number.", ge=0, source=_C4)
    max_share: float = option(1.0, "Most matches a word of the document.", ge=0, le=1)


@dataclass
class ToxicityConfig:
    """Settings of `toxicity`."""

    path: str | None = option(
        None,
        "UTF-8 file of words or phrases, one a line, in place of the list that comes with datatrove, which is English.",
    )
    max_score: float = option(
        0.01,
        "Largest share of words that may be listed ones.",
        ge=0,
        le=1,
        source="ROOTS (arXiv:2303.03915): flagged words in English, in its filtering code",
    )


@dataclass
class UrlFilterConfig:
    """Settings of `url_filter`; a document without an address is kept."""

    published: bool = option(
        True,
        "Use the lists that FineWeb used: 4.6 million domains and 20,000 addresses of adult sites, and words.",
        source="UT1 blacklists, in FineWeb (arXiv:2406.17557), section 3.3; they come with datatrove",
    )
    domains: list[str] = option(list, "Domains to drop as well, each with its subdomains.")
    domains_path: str | None = option(None, "UTF-8 file of more of them, one a line.")
    words: list[str] = option(
        list, "Words to drop as well: addresses with one between marks such as / - . are dropped."
    )
    words_path: str | None = option(None, "UTF-8 file of more of them, one a line.")
    soft_words: int = option(
        2, "Milder words of the published list that an address may not reach.", ge=1, source="datatrove's URLFilter"
    )


@dataclass
class PerplexityConfig:
    """Settings of `perplexity`."""

    good: str | None = option(
        None,
        "Samples of good text: a folder of .txt files (a sample each) and .jsonl files, a .txt file (its paragraphs) or "
        "a .jsonl file (the field text of each line).",
    )
    percentile: float = option(
        95.0, "Share of held-out good samples that the threshold lets through, in percent.", gt=0, le=100
    )
    order: int = option(5, "Longest n-gram of the model.", ge=1, le=8, unit="bytes")
    max_samples: int = option(10_000, "Most samples used, a random choice of them.", ge=100, unit="samples")


@dataclass
class QualityClassifierConfig:
    """Settings of `quality_classifier`."""

    good: str | None = option(
        None,
        "Samples of good text: a folder of .txt files (a sample each) and .jsonl files, a .txt file (its paragraphs) or "
        "a .jsonl file (the field text of each line).",
    )
    bad: str | None = option(None, "Samples of bad text, in the same forms.")
    min_score: float = option(0.5, "Probability of being good that a document must have.", ge=0, le=1)
    max_samples: int = option(
        10_000, "Most samples used of each kind, a random choice of them.", ge=100, unit="samples"
    )
