"""From raw pages to training tokens: sources, steps, engines, and the commands that run them. Light."""

from torchloom import Component, Kind, hookimpl
from torchloom_corpus.cleaning import records as cleaning
from torchloom_corpus.dataset import records as dataset
from torchloom_corpus.dedup import records as dedup
from torchloom_corpus.engines import records as engines
from torchloom_corpus.extraction import records as extraction
from torchloom_corpus.filters import records as filters
from torchloom_corpus.sources import records as sources

COMMANDS = [
    Component(
        kind="command",
        name="corpus_build",
        target="torchloom_corpus.command:build",
        config="torchloom_corpus.configs:RecipeConfig",
        summary="Make training tokens of pages, archives or files, with a report of what was dropped and why",
        needs=("datatrove",),
        extra="torchloom[corpus]",
    ),
    Component(
        kind="command",
        name="corpus_report",
        target="torchloom_corpus.command:report",
        config="torchloom_corpus.configs:ReportConfig",
        summary="Write the page about a corpus again",
        needs=("datatrove",),
        extra="torchloom[corpus]",
    ),
]


@hookimpl
def torchloom_kinds() -> list[Kind]:
    """Declare what a corpus is made by."""
    return [
        Kind(
            name,
            f"torchloom_corpus.contracts:{contract}",
            summary,
            group=group,
            many=group == "steps",
            command="corpus_build",
        )
        for name, contract, group, summary in (
            ("corpus_source", "CorpusSource", "source", "Where a corpus's documents come from"),
            ("corpus_step", "CorpusStep", "steps", "What changes or drops documents, in order"),
            ("corpus_engine", "CorpusEngine", "engine", "Where a corpus is built"),
        )
    ]


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the commands, sources, steps and engines, and the dataset that trains from what they make."""
    rooms = (sources, extraction, cleaning, filters, dedup, engines, dataset)
    return COMMANDS + [component for room in rooms for component in room.COMPONENTS]
