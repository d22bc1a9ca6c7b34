"""What retrieval, a memory of states and recurrent depth are worth, each on a task that needs it and on real text.

    python benchmarks/specialised.py --data FOLDER [--parts facts lookups memory stories] [--seeds 3] [--runs FOLDER]

FOLDER holds tinyshakespeare and babi; facts and lookups are made up. Each network stands beside one that differs in a
single word, and has the same parameters where that word is `recurrence`. Nothing is chosen on what is reported: the
memory's weight is tuned on training text held out of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from _runs import Runs, measure, parser, spread, table

import torchloom

NO_CORPUS = "architecture.retrieval.path=null"
NO_RECURRENCE = "architecture.recurrence=none"
HEAD = ["", "parameters", "test accuracy", "each seed", "minutes a run"]


def row(name: str, summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line of a table."""
    accuracies = [one["metrics"]["test/accuracy"] for one in summaries]
    minutes = max(one["seconds"] for one in summaries) / 60
    each = ", ".join(f"{one:.3f}" for one in accuracies)
    return [name, f"{summaries[0]['parameters']['total']:,}", spread(accuracies, 3), each, f"{minutes:.1f}"]


def facts(runs: Runs, options: argparse.Namespace) -> str:
    """Ask for facts that were never trained on, with the file that holds them and without."""
    seeds = [f"seed={seed}" for seed in range(options.seeds)]
    rows = [
        row("with the corpus", [runs.train("experiment=facts", seed) for seed in seeds]),
        row("without", [runs.train("experiment=facts", NO_CORPUS, seed) for seed in seeds]),
        ["a guess", "", "0.063", "", ""],
    ]
    text = (
        "## Facts that stand in the corpus alone\n\n`experiment=facts`: which of 16 stones is in a place? 12,000 places, the "
        "test's 1,000 never trained on; a line of the corpus tells each. Two lines are looked up for a question, of which "
        "one is about another place. Aim: 0.95 or more with the corpus, a guess without.\n\n"
    )
    return text + table(HEAD, rows)


def lookups(runs: Runs, options: argparse.Namespace) -> str:
    """Follow a table further than the network has layers."""
    kinds = {"recurrent": (), "plain": (NO_RECURRENCE,)}
    rows = []
    for name, words in kinds.items():
        found, deepest = [], []
        for seed in range(options.seeds):
            overrides = ("experiment=lookups", *words, f"seed={seed}")
            found.append(runs.train(*overrides, keep=True))
            steps = torchloom.load(runs.place(*overrides)).config.dataset.steps
            loaded = torchloom.load(runs.place(*overrides), [f"dataset.least_steps={steps}"])
            deepest.append(loaded.evaluate("test")[0]["test/accuracy"])
        layers = loaded.config.architecture.num_layers
        times = f"{loaded.config.architecture.recurrent_steps} times" if name == "recurrent" else "once"
        rows.append([*row(f"{name}: {layers} block, {times}", found), spread(deepest, 3)])
    data = loaded.config.dataset
    text = (
        f"## Look-ups deeper than the layers\n\n`experiment=lookups`: follow a table of {data.letters} letters 1 to {steps} "
        f"steps to its end; the last column is of questions of {steps} steps alone. There are "
        f"{data.letters // (steps + 1)} ends to guess among. Aim: recurrent depth 0.95 or more, plain depth of the same "
        "parameters not.\n\n"
    )
    return text + table([*HEAD, f"{steps} steps"], rows)


def memory(runs: Runs, options: argparse.Namespace) -> str:
    """Mix in what came next at the training states most alike."""
    from torchloom_transformer.command import measure

    shared = [
        "experiment=llm",
        "dataset=text_files",
        f"dataset.path={options.data / 'tinyshakespeare' / 'input.txt'}",
        "tokenizer=word",
        "tokenizer.vocab_size=4096",
        "architecture.d_model=64",
        "trainer.max_steps=800",
        "trainer.val_every_n_steps=200",
        "callbacks=[checkpoint]",
    ]
    rows, changes = [], []
    for seed in range(options.seeds):
        words = [*shared, f"seed={seed}"]
        runs.train(*words, keep=True)
        file = runs.place(*words) / "knn-val.json"
        if not file.is_file():
            file.write_text(json.dumps(measure(torchloom.load(file.parent), "val", held_out=0.03)), encoding="utf-8")
        found = json.loads(file.read_text(encoding="utf-8"))
        changes.append(found["loss_with_memory"] - found["loss"])
        losses = [f"{found[name]:.4f}" for name in ("loss", "loss_with_memory")]
        rows.append([str(seed), *losses, f"{changes[-1]:+.4f}", f"{found['weight']:g}", f"{found['states']:,}"])
    rows.append(["mean", "", "", spread(changes), "", ""])
    text = (
        "## A memory of the decoder's own training states\n\n`torchloom knn` on tinyshakespeare, "
        f"`{' '.join(word for word in shared if 'path' not in word)}`; weight and temperature tuned on the last 3% of the "
        "training text, the loss over all of validation, in nats a token.\n\n"
    )
    return text + table(["seed", "alone", "with the memory", "change", "weight", "states"], rows)


def stories(runs: Runs, options: argparse.Namespace) -> str:
    """Train on bAbI's second task with recurrent depth and without."""
    shared = ["experiment=babi", f"dataset.test_path={options.data / 'babi'}", "dataset.task=2", *options.babi]
    seeds = [f"seed={seed}" for seed in range(options.seeds)]
    kinds = {
        "plain": [],
        "the blocks applied twice": ["architecture.recurrence=fixed", "architecture.recurrent_steps=2"],
    }
    rows = [row(name, [runs.train(*shared, *words, seed) for seed in seeds]) for name, words in kinds.items()]
    text = (
        f"## Recurrent depth on stories\n\n`{' '.join(word for word in shared if 'path' not in word)}`: two supporting facts, "
        "trained on stories made up, tested on the real file.\n\n"
    )
    return text + table(HEAD, rows)


def main() -> int:
    made = parser(__doc__, seeds=3)
    made.add_argument("--babi", nargs="*", default=["dataset.context_length=256"], help="overrides of the stories")
    parts = {"facts": facts, "lookups": lookups, "memory": memory, "stories": stories}
    return measure("Specialised modules", made, parts, {"memory": ["tinyshakespeare"], "stories": ["babi"]})


if __name__ == "__main__":
    sys.exit(main())
