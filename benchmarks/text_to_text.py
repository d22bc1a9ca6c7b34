"""One text from another: BLEU of numbers translated from English to French, ROUGE of the weather in a day's news.

    python benchmarks/text_to_text.py [--seeds 3] [--parts translation summarisation] [--runs FOLDER]

Both are made up here, the numbers' words by num2words (`pip install num2words`), so that nothing is downloaded; no test
example is trained on. Beside the networks stands what takes no learning: the source itself, and a report's first sentences.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _runs import Runs, measure, parser, spread, table

NETWORK = ("architecture.d_model=64", "architecture.num_layers=2", "optimizer.lr=2e-3", "tokenizer.vocab_size=400")
NUMBERS, REPORTS = 6_000, 4_000
SKIES = ("sunny", "cloudy", "foggy", "rainy", "stormy")
TOWNS = ("Lyon", "Oslo", "Turin", "Porto", "Ghent", "Bern", "Riga", "Cork")
WINDS = ("north", "east", "south", "west")


def numbers() -> list[tuple[str, str]]:
    """Return numbers below 10,000 in English and in French words, in random order."""
    from num2words import num2words

    chosen = random.Random(0).sample(range(10_000), NUMBERS)
    return [(num2words(one), num2words(one, lang="fr")) for one in chosen]


def reports() -> list[tuple[str, str]]:
    """Return reports of the weather among other news, in any order, and the weather alone."""
    rng = random.Random(0)
    made = {}
    while len(made) < REPORTS:
        town, sky, wind = rng.choice(TOWNS), rng.choice(SKIES), rng.choice(WINDS)
        degrees, hour, price, guests = rng.randint(5, 30), rng.randint(6, 12), rng.randint(2, 20), rng.randint(40, 99)
        news = [
            f"The sky will be {sky}.",
            f"It gets as warm as {degrees} degrees.",
            f"The wind comes from the {wind}.",
            f"The ferry to {rng.choice(TOWNS)} leaves at {hour}.",
            f"A ticket for the museum costs {price}.",
            f"The hotel by the {rng.choice(WINDS)} gate has {guests} guests.",
        ]
        text = " ".join([f"This is the news from {town}.", *rng.sample(news, len(news))])
        made[text] = f"{town}: {sky}, {degrees} degrees, wind from the {wind}."
    return list(made.items())


def write(folder: Path, pairs: Sequence[tuple[str, str]]) -> tuple[Path, list[tuple[str, str]]]:
    """Write a folder of three files, a tenth of the pairs each for validation and test; return it, and the test's."""
    folder.mkdir(parents=True, exist_ok=True)
    tenth = len(pairs) // 10
    parts = {"val": pairs[:tenth], "test": pairs[tenth : 2 * tenth], "train": pairs[2 * tenth :]}
    for name, part in parts.items():
        lines = "".join(f"{source}\t{target}\n" for source, target in part)
        (folder / f"{name}.tsv").write_text(f"source\ttarget\n{lines}", encoding="utf-8")
    return folder, list(parts["test"])


def translation(runs: Runs, options: argparse.Namespace) -> str:
    """Translate numbers, and score the source as it is beside."""
    import sacrebleu

    place, test = write(runs.folder / "numbers", numbers())
    copied = sacrebleu.corpus_bleu([one for one, _ in test], [[other for _, other in test]]).score
    words = ["experiment=translation", *NETWORK, f"dataset.path={place}", "trainer.max_epochs=5"]
    found = seeds(runs, options, [*words, f"objective.decoded_examples={len(test)}"])
    rows = [
        row("`experiment=translation`, 5 epochs", found, ("bleu",)),
        ["the source as it is", f"{copied:.1f}", "", ""],
    ]
    text = f"## Translation\n\nNumbers below 10,000: {NUMBERS * 8 // 10:,} for training, {len(test)} for the test.\n\n"
    return text + table(["", "test BLEU", "each seed", "minutes a run"], rows)


def summarisation(runs: Runs, options: argparse.Namespace) -> str:
    """Shorten reports, and score each one's first two sentences beside."""
    from rouge_score.rouge_scorer import RougeScorer

    place, test = write(runs.folder / "reports", reports())
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds))
    scores = [scorer.score(target, ". ".join(source.split(". ")[:2])) for source, target in test]
    lead = " / ".join(f"{sum(one[kind].fmeasure for one in scores) / len(scores):.3f}" for kind in kinds)
    words = ["experiment=summarisation", *NETWORK, f"dataset.path={place}", "trainer.max_epochs=8"]
    found = seeds(runs, options, [*words, f"objective.decoded_examples={len(test)}"])
    rows = [row("`experiment=summarisation`, 8 epochs", found, kinds), ["the first two sentences", lead, "", ""]]
    text = (
        f"## Summarisation\n\nWhat of the news is about the weather? {REPORTS * 8 // 10:,} reports for training, "
        f"{len(test)} for the test.\n\n"
    )
    return text + table(["", "test ROUGE-1 / -2 / -L", "each seed", "minutes a run"], rows)


def seeds(runs: Runs, options: argparse.Namespace, words: Sequence[str]) -> list[dict[str, Any]]:
    return [runs.train(*words, f"seed={seed}") for seed in range(options.seeds)]


def row(name: str, summaries: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return a line of a table."""
    digits = 1 if metrics == ("bleu",) else 3
    values = [[one["metrics"][f"test/{metric}"] for one in summaries] for metric in metrics]
    each = ", ".join(" / ".join(f"{one:.{digits}f}" for one in seed) for seed in zip(*values, strict=True))
    minutes = max(one["seconds"] for one in summaries) / 60
    return [name, " / ".join(spread(one, digits) for one in values), each, f"{minutes:.1f}"]


def main() -> int:
    parts = {"translation": translation, "summarisation": summarisation}
    return measure("Text to text", parser(__doc__, seeds=3), parts, {})


if __name__ == "__main__":
    sys.exit(main())
