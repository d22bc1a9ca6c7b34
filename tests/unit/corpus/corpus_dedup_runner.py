"""Runs a step over documents as an engine does, task by task."""

from collections import Counter
from dataclasses import dataclass, field

from torchloom_corpus.contracts import Document, GlobalStep, StepTally


@dataclass
class Outcome:
    texts: dict = field(default_factory=dict)  # of what stays, by id
    dropped: dict = field(default_factory=dict)  # reasons by id
    metadata: dict = field(default_factory=dict)  # of what was dropped
    tally: StepTally = field(default_factory=lambda: StepTally("step"))

    @property
    def reasons(self):
        return Counter(self.dropped.values())


def make(target, config, folder):
    step = target(config)
    step.folder = folder
    return step


def deal(texts, tasks):
    """Deal documents out to tasks in turn."""
    items = list(texts.items())
    return [[Document(text, identity) for identity, text in items[rank::tasks]] for rank in range(tasks)]


def run_step(target, config, texts, folder, tasks=1):
    """Return what a step does to documents, given as texts by id."""
    if issubclass(target, GlobalStep):
        for rank, documents in enumerate(deal(texts, tasks)):
            make(target, config, folder).observer().run(iter(documents), rank, tasks)
        for stage in make(target, config, folder).passes(tasks):
            for rank in range(stage.tasks):
                data = None
                for block in stage.pipeline:
                    data = block.run(data, rank, stage.tasks)
    outcome = Outcome()
    for rank, documents in enumerate(deal(texts, tasks)):
        step = make(target, config, folder)
        tally = StepTally("step")
        step.start(tally, rank, tasks)
        for document in documents:
            if reason := step.process(document):
                outcome.dropped[document.id] = reason
                outcome.metadata[document.id] = document.metadata
            else:
                outcome.texts[document.id] = document.text
        outcome.tally.merge(tally)
    return outcome
