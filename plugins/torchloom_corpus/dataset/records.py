"""What this room supplies, by name. Light."""

from torchloom import Component

ROOM = "torchloom_corpus.dataset"

COMPONENTS = [
    Component(
        kind="dataset",
        name="corpus",
        target=f"{ROOM}.dataset:CorpusDataset",
        config=f"{ROOM}.configs:CorpusDatasetConfig",
        summary="Token shards that `torchloom corpus build` wrote: one corpus, or a weighted mixture",
        slots={"tokenizer": "corpus"},
    ),
    Component(
        kind="tokenizer",
        name="corpus",
        target=f"{ROOM}.tokenizer:CorpusTokenizer",
        config=f"{ROOM}.configs:CorpusTokenizerConfig",
        summary="The tokenizer that a corpus was built with, whichever that is",
    ),
]
