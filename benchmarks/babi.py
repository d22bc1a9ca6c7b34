"""Questions about stories: trained on stories made up, tested on bAbI's own; answers as spans of a story.

    python benchmarks/babi.py --data FOLDER [--parts classes spans] [--tasks 1 2 3] [--seeds 3] [--runs FOLDER]

FOLDER holds babi. Task 1 and the spans are trained with every seed, tasks 2 and 3 with the first alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from _runs import Runs, measure, parser, spread, table

OPTIONS = {1: [], 2: ["dataset.context_length=256"], 3: ["dataset.context_length=512"]}


def row(name: str, summaries: Sequence[dict[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return a line of a table: mean and spread of each metric, each seed's value of the first, and minutes."""
    values = {metric: [one["metrics"][f"test/{metric}"] for one in summaries] for metric in metrics}
    each = ", ".join(f"{one:.4f}" for one in values[metrics[0]])
    minutes = max(one["seconds"] for one in summaries) / 60
    return [name, *(spread(found) for found in values.values()), each, f"{minutes:.1f}"]


def classes(runs: Runs, options: argparse.Namespace) -> str:
    """Train on stories made up, test on bAbI's own."""
    rows = []
    for task in options.tasks:
        words = [
            "experiment=babi",
            f"dataset.test_path={options.data / 'babi'}",
            f"dataset.task={task}",
            *OPTIONS[task],
        ]
        seeds = range(options.seeds if task == 1 else 1)
        rows.append(row(f"task {task}", [runs.train(*words, f"seed={seed}") for seed in seeds], ["accuracy"]))
    text = (
        "## bAbI\n\n`experiment=babi`, tested on the real file of 1,000 questions. Aim: task 1 at 0.95 or more. Stories of "
        "tasks 2 and 3 are cut to their last 256 and 512 tokens.\n\n"
    )
    return text + table(["", "test accuracy", "each seed", "minutes a run"], rows)


def spans(runs: Runs, options: argparse.Namespace) -> str:
    """Find the answers' places, in stories made up and in bAbI's own."""
    rows = []
    for name, words in {"made up": [], "bAbI's own": [f"dataset.test_path={options.data / 'babi'}"]}.items():
        found = [runs.train("experiment=qa", *words, f"seed={seed}") for seed in range(options.seeds)]
        rows.append(row(name, found, ["em", "f1"]))
    text = (
        "## Spans\n\n`experiment=qa`: task 1, the answer as its place in the story; tested on 1,000 questions made up that "
        "training has not, and on the real file. Aim: exact match of 0.95.\n\n"
    )
    return text + table(["tested on stories", "exact match", "F1", "each seed", "minutes a run"], rows)


def main() -> int:
    made = parser(__doc__, seeds=3)
    made.add_argument("--tasks", nargs="+", type=int, choices=OPTIONS, default=[1, 2, 3], help="bAbI's tasks")
    needs = {"classes": ["babi"], "spans": ["babi"]}
    return measure("Questions about stories", made, {"classes": classes, "spans": spans}, needs)


if __name__ == "__main__":
    sys.exit(main())
