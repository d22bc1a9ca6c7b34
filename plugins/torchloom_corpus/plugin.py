"""From raw pages to training tokens: sources, steps, engines, and the command that runs them. Light."""

from torchloom import Component, Kind, hookimpl
from torchloom_corpus.cleaning import records as cleaning
from torchloom_corpus.dedup import records as dedup
from torchloom_corpus.engines import records as engines
from torchloom_corpus.extraction import records as extraction
from torchloom_corpus.filters import records as filters
from torchloom_corpus.sources import records as sources

CONTRACTS = "torchloom_corpus.contracts"


@hookimpl
def torchloom_kinds() -> list[Kind]:
    """Declare what a corpus is made by."""
    return [
        Kind("corpus_source", f"{CONTRACTS}:CorpusSource", "Where a corpus's documents come from", group="source"),
        Kind("corpus_step", f"{CONTRACTS}:CorpusStep", "What changes or drops documents, in order", "steps", many=True),
        Kind("corpus_engine", f"{CONTRACTS}:CorpusEngine", "Where a corpus is built", group="engine"),
    ]


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare sources, steps and engines."""
    return [
        component for room in (sources, extraction, cleaning, filters, dedup, engines) for component in room.COMPONENTS
    ]
