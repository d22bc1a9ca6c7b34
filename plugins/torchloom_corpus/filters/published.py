"""Gopher's, C4's and FineWeb's rules as datatrove carries them out, with reasons in words."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import Any, ClassVar

from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.word_tokenizers import StanzaTokenizer, load_word_tokenizer

from torchloom.errors import ConfigError, Problem
from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import (
    C4QualityConfig,
    FineWebQualityConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
)

__all__ = ["C4Quality", "FineWebQuality", "GopherQuality", "GopherRepetition"]

EMPTY = "empty"
NOT_UNICODE = "not valid Unicode"


class _Published(CorpusStep):
    """A filter of datatrove, which is made when the task starts.

    Attributes:
        name: Name of the component, for error texts.
        reasons: What datatrove calls a reason, and what the report calls it.
    """

    name: ClassVar[str]
    reasons: ClassVar[dict[str, str]]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        try:
            tokenizer = load_word_tokenizer(config.language)
        except ValueError as error:
            raise self._refusal("is no language with known rules", "Name it by ISO 639, such as en or fr.") from error
        except ImportError as error:
            raise self._refusal("needs a package", str(error)) from error
        if isinstance(tokenizer, StanzaTokenizer):
            raise self._refusal("has rules only in a model that is downloaded while running", "Use a related language.")

    def _refusal(self, message: str, mend: str) -> ConfigError:
        return ConfigError([Problem(f"steps.{self.name}.language", f"{self.config.language!r} {message}", mend)])

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Load the rules of the language.

        Raises:
            ConfigError: They need a package that is not installed.
        """
        super().start(tally, rank, world)
        try:
            load_word_tokenizer(self.config.language).word_tokenize("A word.")
        except ImportError as error:
            raise self._refusal("needs a package", str(error)) from error
        self.filter = self._make()

    @abstractmethod
    def _make(self) -> Any:
        """Return datatrove's filter."""

    def process(self, document: Document) -> str | None:
        """Apply the rules in datatrove's order; the first that is broken is the reason."""
        if not document.text.strip():
            return EMPTY
        try:
            verdict = self.filter.filter(document)
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
            return NOT_UNICODE
        return None if verdict is True else self.reasons[verdict[1]]


class GopherRepetition(_Published):
    """Drops documents that repeat themselves.

    Args:
        config: Thresholds.

    Raises:
        ConfigError: The language has no rules here, or they need a package.

    Source: Rae et al., "Scaling Language Models" (arXiv:2112.11446), Table A1.
    """

    name = "gopher_repetition"
    reasons: ClassVar[dict[str, str]] = {
        "empty": EMPTY,
        "dup_para_frac": "duplicate paragraphs",
        "dup_para_char_frac": "characters in duplicate paragraphs",
        "dup_line_frac": "duplicate lines",
        "dup_line_char_frac": "characters in duplicate lines",
        **{f"top_{n}_gram": f"most frequent {n}-gram" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"duplicate {n}-grams" for n in range(5, 11)},
    }

    def _make(self) -> GopherRepetitionFilter:
        config: GopherRepetitionConfig = self.config
        tops = [(n, getattr(config, f"max_top_{n}gram")) for n in (2, 3, 4)]
        duplicates = [(n, getattr(config, f"max_duplicate_{n}grams")) for n in range(5, 11)]
        return GopherRepetitionFilter(
            dup_line_frac=config.max_duplicate_lines,
            dup_para_frac=config.max_duplicate_paragraphs,
            dup_line_char_frac=config.max_duplicate_line_characters,
            dup_para_char_frac=config.max_duplicate_paragraph_characters,
            top_n_grams=tuple((n, share) for n, share in tops if share),
            dup_n_grams=tuple((n, share) for n, share in duplicates if share),
            language=config.language,
        )


class GopherQuality(_Published):
    """Drops documents unlike prose.

    Args:
        config: Thresholds.

    Raises:
        ConfigError: The language has no rules here, or they need a package, or the stop words are another's.

    Source: Rae et al., "Scaling Language Models" (arXiv:2112.11446).
    """

    name = "gopher_quality"
    reasons: ClassVar[dict[str, str]] = {
        "gopher_short_doc": "too few words",
        "gopher_long_doc": "too many words",
        "gopher_below_avg_threshold": "mean word too short",
        "gopher_above_avg_threshold": "mean word too long",
        "gopher_too_many_hashes": "too many hash signs",
        "gopher_too_many_ellipsis": "too many ellipses",
        "gopher_too_many_bullets": "too many bullet lines",
        "gopher_too_many_end_ellipsis": "too many lines end in an ellipsis",
        "gopher_below_alpha_threshold": "too few words with letters",
        "gopher_enough_stop_words": "too few stop words",
    }

    def __init__(self, config: GopherQualityConfig) -> None:
        super().__init__(config)
        english = config.language in ("en", "eng")
        if config.min_stop_words and not english and config.stop_words == GopherQualityConfig().stop_words:
            message = f"are English ones, but the language is {config.language!r}"
            mend = "Give that language's, or switch the rule off with min_stop_words=0."
            raise ConfigError([Problem(f"steps.{self.name}.stop_words", message, mend)])

    def _make(self) -> GopherQualityFilter:
        config: GopherQualityConfig = self.config
        return GopherQualityFilter(
            min_doc_words=config.min_words,
            max_doc_words=config.max_words,
            min_avg_word_length=config.min_mean_word_length,
            max_avg_word_length=config.max_mean_word_length,
            max_symbol_word_ratio=config.max_symbols_per_word,
            max_bullet_lines_ratio=config.max_bullet_lines,
            max_ellipsis_lines_ratio=config.max_ellipsis_lines,
            max_non_alpha_words_ratio=config.min_alphabetic_words,
            min_stop_words=config.min_stop_words,
            stop_words=config.stop_words,
            language=config.language,
        )


class _CountingC4(C4QualityFilter):  # type: ignore[misc]
    """Keeps datatrove's counts of lines of one document, rather than its statistics of all of them."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.lines: Counter[str] = Counter()

    def stat_update(self, *labels: str, value: int = 1, unit: str | None = None) -> None:
        for label in labels:
            self.lines[label] += value


class C4Quality(_Published):
    """Takes out lines unlike sentences, then drops documents with too few sentences left, code and filler.

    Lines taken out are counted in the documents that are kept.

    Args:
        config: Rules.

    Raises:
        ConfigError: The language has no rules here, or they need a package.

    Source: Raffel et al., "Exploring the Limits of Transfer Learning" (arXiv:1910.10683), section 2.2.
    """

    name = "c4_quality"
    reasons: ClassVar[dict[str, str]] = {
        "lorem_ipsum": "lorem ipsum",
        "curly_bracket": "curly bracket",
        "too_few_sentences": "too few sentences",
    }
    lines: ClassVar[dict[str, str]] = {
        "line-filter-too_long_word": "lines taken out: word too long",
        "line-filter-no_terminal_punc": "lines taken out: no terminal punctuation",
        "line-filter-too_few_words": "lines taken out: too few words",
        "line-filter-javascript": "lines taken out: JavaScript",
        "line-filter-policy": "lines taken out: policy",
    }

    def _make(self) -> _CountingC4:
        config: C4QualityConfig = self.config
        return _CountingC4(
            remove_citations=config.citations,
            filter_no_terminal_punct=config.terminal_punctuation,
            min_num_sentences=config.min_sentences,
            min_words_per_line=config.min_words_per_line,
            max_word_length=-1 if config.max_word_length is None else config.max_word_length,
            filter_lorem_ipsum=config.lorem_ipsum,
            filter_javascript=config.javascript,
            filter_curly_bracket=config.curly_bracket,
            filter_policy=config.policy,
            language=config.language,
        )

    def process(self, document: Document) -> str | None:
        """Take lines out of a document, or drop it."""
        self.filter.lines.clear()
        reason = super().process(document)
        if reason is None:
            for label, what in self.lines.items():
                self.tally.count(what, self.filter.lines[label])
            if not document.text:
                return EMPTY
        return reason


class FineWebQuality(_Published):
    """Drops documents of short, unpunctuated or repeated lines.

    Args:
        config: Thresholds.

    Raises:
        ConfigError: The language has no rules here, or they need a package.

    Source: Penedo et al., "The FineWeb Datasets" (arXiv:2406.17557), section 3.6.
    """

    name = "fineweb_quality"
    reasons: ClassVar[dict[str, str]] = {
        "empty": EMPTY,
        "line_punct_ratio": "too few lines end in punctuation",
        "short_line_ratio": "too many short lines",
        "char_dup_ratio": "characters in duplicate lines",
        "list_ratio": "too many line breaks",
    }

    def _make(self) -> FineWebQualityFilter:
        config: FineWebQualityConfig = self.config
        return FineWebQualityFilter(
            line_punct_thr=config.min_punctuated_lines,
            short_line_thr=config.max_short_lines,
            short_line_length=config.short_line,
            char_duplicates_ratio=config.max_duplicate_line_characters,
            new_line_ratio=config.max_line_breaks_per_word,
            language=config.language,
        )
