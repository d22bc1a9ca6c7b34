"""Recurrent and convolutional networks take the tasks of text, or are refused with the word to use instead."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import torchloom
from torchloom.errors import ConfigError

QUIET = ["debug=fast", "trainer.accelerator=cpu", "trainer.progress=none", "dataset.batch_size=4"]
SMALL = {
    "lstm": ["architecture.hidden_size=16", "architecture.embedding_dim=8"],
    "text_cnn": ["architecture.channels=4", "architecture.embedding_dim=8"],
}
FEW = ["dataset.examples=40", "dataset.eval_examples=10"]


def words(experiment: str, architecture: str, folder: Path) -> list[str]:
    """Return the command line of a short run on data made here."""
    texts, pairs = folder / "texts.tsv", folder / "pairs.tsv"
    texts.write_text("".join(f"film number {n} was seen\t{n % 2}\n" for n in range(40)), encoding="utf-8")
    pairs.write_text("".join(f"it is {n}\t{n} is odd\t{n % 3}\n" for n in range(40)), encoding="utf-8")
    data = {
        "sentiment": [f"dataset.path={texts}", "tokenizer.vocab_size=60"],
        "entailment": [f"dataset.path={pairs}", "tokenizer.vocab_size=45"],
        "bert": ["trainer.val_every_n_steps=null"],
        "llm": ["trainer.val_every_n_steps=null"],
        "forecast": ["dataset.rows=400"],
        "babi": FEW,
        "qa": FEW,
        "chat": FEW,
    }
    chosen = [f"experiment={experiment}", f"architecture={architecture}"]
    return [*chosen, *data.get(experiment, []), *SMALL.get(architecture, []), *QUIET]


@pytest.mark.parametrize(
    ("experiment", "architecture", "metric"),
    [
        ("sentiment", "lstm", "accuracy"),
        ("sentiment", "text_cnn", "accuracy"),
        ("entailment", "lstm", "accuracy"),
        ("entailment", "text_cnn", "accuracy"),
        ("babi", "text_cnn", "accuracy"),
        ("qa", "lstm", "f1"),
        ("bert", "lstm", "perplexity"),
        ("chat", "lstm", "exact"),
        ("forecast", "text_cnn", "mae"),
    ],
)
def test_a_word_changes_the_network(experiment: str, architecture: str, metric: str, tmp_path: Path) -> None:
    summary = torchloom.train(torchloom.compose(words(experiment, architecture, tmp_path)), tmp_path / "run")
    assert math.isfinite(summary["metrics"][f"test/{metric}"])
    assert math.isfinite(summary["metrics"]["test/loss"])


@pytest.mark.parametrize(
    ("experiment", "architecture", "message"),
    [
        ("sentiment", "cnn", "architecture=cnn: takes images, but dataset 'sentiment' gives labelled text"),
        ("sentiment", "cnn", "rnn,text_cnn, or another dataset"),
        (
            "llm",
            "text_cnn",
            "objective=clm: needs the protocol 'sequence', which architecture 'text_cnn' does not follow",
        ),
        ("chat", "text_cnn", "objective=chat: needs the protocol 'sequence', which architecture 'text_cnn'"),
        (
            "qa",
            "text_cnn",
            "objective=qa: needs the protocol 'sequence', which architecture 'text_cnn' does not follow",
        ),
        ("bert", "text_cnn", "objective=mlm: needs the protocol 'sequence', which architecture 'text_cnn'"),
        ("bert_pairs", "lstm", "choose one that looks both ways: architecture=encoder"),
    ],
)
def test_what_a_network_cannot_do_is_refused_by_name(
    experiment: str, architecture: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        torchloom.train(torchloom.compose(words(experiment, architecture, tmp_path)), tmp_path / "run")
    assert message in str(caught.value)
