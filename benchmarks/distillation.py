"""Distillation: a teacher, a student of half its layers that learns from it, and the same student without a teacher.

    python benchmarks/distillation.py --data FOLDER [--seeds 3] [--runs FOLDER]

FOLDER holds sst2. Teachers and students are trained from scratch; both students take the same steps, from the same initial
weights, over the same batches. Each seed has its own teacher.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from _runs import Runs, heading, parser, spread, table

EVERY = ("experiment=sentiment", "tokenizer.vocab_size=4096", "dataset.context_length=48", "architecture.pooling=mean")
TEACHER = ("architecture.num_layers=6", "trainer.max_epochs=3")
STUDENT = ("architecture.num_layers=3", "trainer.max_epochs=4")
DISTILLATION = ("objective=distillation", "objective.temperature=4", "objective.soft_weight=0.9")


def accuracies(summaries: Sequence[dict[str, Any]]) -> list[float]:
    """Return the test accuracy of each run, in percent."""
    return [100 * one["metrics"]["test/accuracy"] for one in summaries]


def row(name: str, summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line of the table."""
    found = accuracies(summaries)
    minutes = max(one["seconds"] for one in summaries) / 60
    return [name, spread(found, 2), ", ".join(f"{one:.2f}" for one in found), f"{minutes:.1f}"]


def difference(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> str:
    """Return by how many points runs differ, seed by seed."""
    return spread([a - b for a, b in zip(accuracies(one), accuracies(other), strict=True)], 2)


def measure(runs: Runs, options: argparse.Namespace) -> str:
    """Train all three with every seed; return the page."""
    teachers, taught, alone = [], [], []
    for seed in range(options.seeds):
        words = [*EVERY, f"dataset.path={options.data / 'sst2'}", f"seed={seed}"]
        teacher = [*words, *TEACHER]
        teachers.append(runs.train(*teacher, keep=True))
        taught.append(runs.train(*words, *STUDENT, *DISTILLATION, f"objective.teacher={runs.place(*teacher)}"))
        alone.append(runs.train(*words, *STUDENT))
    rows = [
        row("teacher, 6 layers", teachers),
        row("student, 3 layers, distilled", taught),
        row("student, 3 layers, without the teacher", alone),
    ]
    return (
        f"`{' '.join(EVERY)}` on sst2 (6,919 sentences), from scratch. Teacher: `{' '.join(TEACHER)}`. Students: "
        f"`{' '.join(STUDENT)}`; distilled: `{' '.join(DISTILLATION)}`. Each seed has its own teacher; both its students "
        "take the same steps from the same weights.\n\n"
        + table(["", "test accuracy, %", "each seed", "minutes a run"], rows)
        + f"\n\nDistilled student minus teacher: {difference(taught, teachers)} points (aim: -3 or better). Distilled student "
        f"minus the one without: {difference(taught, alone)} points (aim: above 0). A test of 1,821 sentences gives each "
        "accuracy a standard error of 0.9 points."
    )


def main() -> int:
    options = parser(__doc__, seeds=3).parse_args()
    if options.data is None or not (options.data / "sst2").is_dir():
        sys.exit("name the folder of data with --data or TORCHLOOM_DATA; it holds sst2")
    text = measure(Runs(options.runs), options)
    print(heading("Distillation", options))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
