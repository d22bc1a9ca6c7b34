"""One HTML page about a corpus: what came in, what was dropped and why, and what the tokenizer makes of the rest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from torchloom.errors import DataError
from torchloom_corpus.dataset.configs import CorpusTokenizerConfig
from torchloom_corpus.dataset.tokenizer import CorpusTokenizer
from torchloom_corpus.layout import PAGE, STATISTICS
from torchloom_corpus.shards import Corpus, write_whole
from torchloom_corpus.tally import SAMPLES, StepTally
from torchloom_corpus.vocabulary import Vocabulary, count_tokens, segments, vocabulary_report

_BARS = 24
_SEGMENTED = 3
_SEGMENTED_CHARACTERS = 400


@dataclass(frozen=True)
class Stage:
    """A stage of the funnel.

    Attributes:
        tally: What it let through and dropped.
        tokens: Tokens that it let through; estimated from a sample for all but the last. None if that could not be done.
        share: Documents let through as a share of the first stage's.
        last: Whether it is the corpus itself.
    """

    tally: StepTally
    tokens: int | None
    share: float
    last: bool


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its label, its count, and its length as a share of the longest."""

    label: str
    count: int
    share: float


def write_report(folder: Path) -> Path:
    """Write the page about a corpus into its folder.

    Args:
        folder: Of a complete corpus.

    Returns:
        The page.

    Raises:
        DataError: It is no complete corpus, or the page cannot be written.
    """
    corpus = Corpus(folder)
    try:
        statistics = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / STATISTICS}: cannot be read; build the corpus anew to have its counts") from error
    stages = _stages(statistics["stages"])
    tokenizer = CorpusTokenizer(CorpusTokenizerConfig())
    tokenizer.take(corpus.tokenizer)
    texts = stages[-1].tally.texts
    vocabulary = _vocabulary(tokenizer, texts, corpus)
    page = _template().render(
        folder=folder.resolve().name,
        manifest=corpus.manifest,
        stages=stages,
        samples=SAMPLES,
        dropping=[stage for stage in stages if stage.tally.dropped],
        changing=[stage for stage in stages[:-1] if stage.tally.counts],
        lengths=_lengths(stages[-1].tally.histograms.get("length", Counter())),
        languages=_languages(stages),
        clusters=[(stage.tally, _sizes(stage.tally)) for stage in stages if "cluster size" in stage.tally.histograms],
        vocabulary=vocabulary,
        token_lengths=_bars([(f"{length:,}", count) for length, count in vocabulary.lengths]) if vocabulary else [],
        segmented=[segments(tokenizer, text[:_SEGMENTED_CHARACTERS]) for text in texts[:_SEGMENTED]],
        recipe=json.dumps(corpus.manifest["recipe"], indent=2, ensure_ascii=False),
    )
    try:
        write_whole(folder / PAGE, page.encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(f"{folder / PAGE}: cannot be written: {error.strerror}") from error
    return folder / PAGE


def _stages(records: list[dict[str, Any]]) -> list[Stage]:
    tallies = [StepTally.from_dict(record) for record in records]
    first = tallies[0].documents + tallies[0].dropped.total()
    return [
        Stage(tally, record["tokens"], tally.documents / max(first, 1), last=tally is tallies[-1])
        for tally, record in zip(tallies, records, strict=True)
    ]


def _bars(counts: list[tuple[str, int]]) -> list[Bar]:
    longest = max((count for _, count in counts), default=1)
    return [Bar(label, count, count / longest) for label, count in counts]


def _lengths(histogram: Counter[str]) -> list[Bar]:
    """Return a bar for each power of two, those without documents between others too."""
    known = [int(key) for key in histogram if key.isdigit()]
    if not known:
        return []
    powers = range(min(known), max(known) + 1)
    return _bars([(f"{2**power:,} to {2 ** (power + 1) - 1:,}", histogram[str(power)]) for power in powers])


def _languages(stages: list[Stage]) -> list[Bar]:
    """Return the languages of the stage that told them of most documents: the first that knew them all."""
    told = [stage.tally.histograms["language"] for stage in stages if "language" in stage.tally.histograms]
    return _bars(max(told, key=Counter.total).most_common(_BARS)) if told else []


def _sizes(tally: StepTally) -> list[Bar]:
    sizes = tally.histograms["cluster size"].items()
    return _bars(sorted(sizes, key=lambda item: int("".join(one for one in item[0] if one.isdigit()) or 0))[:_BARS])


def _vocabulary(tokenizer: CorpusTokenizer, texts: list[str], corpus: Corpus) -> Vocabulary | None:
    try:
        return vocabulary_report(tokenizer, texts, count_tokens(corpus, tokenizer.vocab_size))
    except DataError:  # it does not know a character of the sample, and says so where that matters
        return None


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files("torchloom_corpus.report").joinpath("templates", name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["size"] = _size
    environment.filters["visible"] = _visible
    return environment.get_template("corpus.html")


def _size(count: int) -> str:
    """Return bytes as a person reads them."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def _visible(text: str) -> str:
    """Show what a person would not see: spaces, line ends and tabs."""
    return text.replace(" ", "\u00b7").replace("\n", "\u21b5\n").replace("\t", "\u2192\t")
