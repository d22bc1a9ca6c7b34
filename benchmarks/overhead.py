"""What torchloom costs a step, beside a bare Lightning Trainer and a loop written by hand.

All train the same model on the same data with the same optimiser and clipping. torchloom runs as a person runs it: Rich
bar, rows of metrics in a CSV file, a checkpoint every hundred steps. The others read the data by torch's DataLoader, as
such loops do; one more loop by hand takes torchloom's own batches, so that the loader's part can be told from the
rest. Validation is left out everywhere.

They run side by side in one process and hand each other the machine every ten steps, so that its moods strike
all of them alike. Times are summed over laps of a hundred steps, each with its one checkpoint; ratios are taken lap by
lap, and their medians reported.

    python benchmarks/overhead.py > benchmarks/results/overhead.md
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["FORCE_COLOR"] = "1"  # the bar is drawn although standard error is no terminal here

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from torchloom import assembly, composing, run
from torchloom.contracts.dataset import EpochKey

BLOCK, LAP = 10, 100
CASES = {
    "cnn": ["architecture=cnn", "dataset=digits"],
    "decoder": ["experiment=llm"],
}


class Relay:
    """Lets one of several threads run at a time, in turn."""

    def __init__(self, runners: int) -> None:
        self.runners, self.turn, self.condition = runners, 0, threading.Condition()

    def wait(self, runner: int) -> None:
        with self.condition:
            self.condition.wait_for(lambda: self.turn == runner)

    def hand_over(self) -> None:
        with self.condition:
            self.turn = (self.turn + 1) % self.runners
            self.condition.notify_all()


class Clock(pl.Callback):
    """Times every ten steps of one runner and then lets the next one run; the same for all of them."""

    def __init__(self, relay: Relay, runner: int) -> None:
        self.relay, self.runner = relay, runner
        self.steps = 0
        self.blocks: list[float] = []
        self.started = 0.0

    def step(self) -> None:
        self.steps += 1
        if self.steps % BLOCK == 0:
            self.blocks.append(time.perf_counter() - self.started)
            self.relay.hand_over()
            self.relay.wait(self.runner)
            self.started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.step()

    def laps(self) -> list[float]:
        """Seconds a step of each lap; the first is warm-up, and the last is cut off by the end."""
        size = LAP // BLOCK
        sums = [sum(self.blocks[at : at + size]) / LAP for at in range(0, len(self.blocks), size)]
        return sums[1:-1]


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


def torchloom_run(case: str, steps: int, clock: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = assembly.assemble(settings(case, steps), Path(folder))
        made.trainer.callbacks.append(clock)
        made.trainer.fit(made.module, datamodule=made.data)


def parts(case: str, steps: int) -> tuple[assembly.Run, torch.optim.Optimizer, float | None]:
    config = settings(case, steps)
    with tempfile.TemporaryDirectory() as folder:
        made = assembly.assemble(config, Path(folder))
    return made, made.module.configure_optimizers()[0], config.trainer.gradient_clip


def dataloader(made: assembly.Run) -> DataLoader[Any]:
    """The same examples through torch's own DataLoader, an example at a time."""
    loader = made.data.loader("train")
    examples = loader.split.batch(torch.arange(len(loader.split)), EpochKey(0, 0))
    names = list(examples)
    return DataLoader(
        TensorDataset(*examples.values()),
        batch_size=loader.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda rows: dict(zip(names, default_collate(rows), strict=True)),
    )


def lightning_run(case: str, steps: int, clock: Clock) -> None:
    made, optimizer, clip = parts(case, steps)
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
    trainer.fit(Bare(made.network, optimizer), dataloader(made))


def hand_run(case: str, steps: int, clock: Clock, *, own_loader: bool = True) -> None:
    made, optimizer, clip = parts(case, steps)
    model, objective = made.network.model, made.network.objective
    loader = dataloader(made) if own_loader else made.data.loader("train")
    model.train()
    while clock.steps < steps:
        for batch in loader:
            loss = objective.loss(model(**objective.inputs(batch)), batch)
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            clock.step()
            if clock.steps == steps:
                break


RUNNERS: dict[str, Callable[[str, int, Clock], None]] = {
    "torchloom": torchloom_run,
    "bare Lightning": lightning_run,
    "hand-written loop": hand_run,
    "the same on torchloom's loader": partial(hand_run, own_loader=False),
}


def measure(case: str, steps: int) -> dict[str, list[float]]:
    """Run them side by side and return the laps of each."""
    relay = Relay(len(RUNNERS))
    clocks = {name: Clock(relay, number) for number, name in enumerate(RUNNERS)}

    def start(name: str) -> None:
        relay.wait(clocks[name].runner)
        RUNNERS[name](case, steps, clocks[name])
        relay.hand_over()

    threads = [threading.Thread(target=start, args=(name,)) for name in RUNNERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: clock.laps() for name, clock in clocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laps", type=int, default=11, help="laps of a hundred steps that are counted")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    print("# Cost of a training step\n")
    print(
        f"`python benchmarks/overhead.py --laps {options.laps}`: {options.laps} laps of {LAP} steps, {platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, pytorch-lightning {pl.__version__}, "
        f"Python {platform.python_version()}.\n"
    )
    others = list(RUNNERS)[1:]
    print(f"| model | {' | '.join(RUNNERS)} | {' | '.join(f'torchloom to {name}' for name in others)} |")
    print("|---" * (1 + len(RUNNERS) + len(others)) + "|")
    for case in options.models:
        with run._quiet():
            laps = measure(case, (options.laps + 2) * LAP)
        cells = [f"{statistics.median(laps[name]) * 1e3:.2f} ms" for name in RUNNERS]
        for other in others:
            ratios = sorted(ours / theirs for ours, theirs in zip(laps["torchloom"], laps[other], strict=True))
            cells.append(f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
