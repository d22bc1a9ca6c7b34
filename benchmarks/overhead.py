"""What torchloom costs a step, beside a bare Lightning Trainer and a loop written by hand.

All three train the same model on the same batches with the same optimiser and clipping. torchloom runs as a person runs it:
Rich bar, rows of metrics in a CSV file, a checkpoint every hundred steps. Validation is left out everywhere. The three take
turns in one process; the figures are medians over the turns, and ratios are taken turn by turn.

    python benchmarks/overhead.py [--turns 9] [--steps 200] > benchmarks/results/overhead.md
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["FORCE_COLOR"] = "1"  # the bar is drawn although standard error is no terminal here

import pytorch_lightning as pl
import torch

from torchloom import assembly, composing, run

WARM_UP = 20
CASES = {
    "cnn": ["experiment=cnn"],
    "decoder": ["experiment=llm"],
}


class Clock(pl.Callback):
    """Notes the time behind each step; the same for both Trainers."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(time.perf_counter())


class Bare(pl.LightningModule):
    def __init__(self, network: assembly.Network, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.model, self.objective, self.optimizer = network.model, network.objective, optimizer

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.objective.loss(self.model(**self.objective.inputs(batch)), batch)
        return loss.total / loss.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer


def settings(case: str, steps: int) -> Any:
    return composing.compose(
        [
            *CASES[case],
            "trainer.accelerator=cpu",
            f"trainer.max_steps={steps}",
            "trainer.max_epochs=null",
            "trainer.limit_val_batches=0",
            "trainer.limit_test_batches=0",
            "callbacks.checkpoint.every_n_steps=100",
            "compile=false",
        ]
    )


def per_step(times: list[float]) -> float:
    return (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)


def torchloom_run(case: str, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder, run._quiet():
        made = assembly.assemble(settings(case, steps), Path(folder))
        clock = Clock()
        made.trainer.callbacks.append(clock)
        made.trainer.fit(made.module, datamodule=made.data)
    return per_step(clock.times)


def parts(case: str, steps: int) -> tuple[assembly.Run, torch.optim.Optimizer, float | None]:
    config = settings(case, steps)
    with tempfile.TemporaryDirectory() as folder, run._quiet():
        made = assembly.assemble(config, Path(folder))
    return made, made.module.configure_optimizers()[0], config.trainer.gradient_clip


def lightning_run(case: str, steps: int) -> float:
    made, optimizer, clip = parts(case, steps)
    clock = Clock()
    with run._quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            gradient_clip_val=clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(Bare(made.network, optimizer), made.data.loader("train"))
    return per_step(clock.times)


def hand_run(case: str, steps: int) -> float:
    made, optimizer, clip = parts(case, steps)
    model, objective, loader = made.network.model, made.network.objective, made.data.loader("train")
    times: list[float] = []
    model.train()
    while len(times) < steps:
        for batch in loader:
            loss = objective.loss(model(**objective.inputs(batch)), batch)
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            times.append(time.perf_counter())
            if len(times) == steps:
                break
    return per_step(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    contenders: dict[str, Callable[[str, int], float]] = {
        "torchloom": torchloom_run,
        "bare Lightning": lightning_run,
        "hand-written loop": hand_run,
    }
    print("# Cost of a training step\n")
    print(
        f"`python benchmarks/overhead.py --turns {options.turns} --steps {options.steps}`, {platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, pytorch-lightning {pl.__version__}, "
        f"Python {platform.python_version()}.\n"
    )
    print("| model | torchloom | bare Lightning | hand-written loop | to bare Lightning | to the hand-written loop |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        turns = []
        for turn in range(options.turns):
            # Each turn begins with another contender, so that a slow drift of the machine favours none.
            order = list(contenders)[turn % 3 :] + list(contenders)[: turn % 3]
            took = {name: contenders[name](case, options.steps) for name in order}
            turns.append(took)
            print(case, turn, {name: round(value * 1e3, 3) for name, value in took.items()}, file=sys.stderr)
        medians = {name: statistics.median(turn[name] for turn in turns) * 1e3 for name in contenders}
        ratios = {name: sorted(turn["torchloom"] / turn[name] for turn in turns) for name in list(contenders)[1:]}
        cells = [f"{medians[name]:.2f} ms" for name in contenders]
        cells += [
            f"{statistics.median(values):.3f} ({values[0]:.3f} to {values[-1]:.3f})" for values in ratios.values()
        ]
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
