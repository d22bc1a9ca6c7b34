"""Scores of generated digits, beside the same pair of networks trained by a loop in plain PyTorch.

    python benchmarks/gan.py [--seeds 3] [--runs FOLDER] > benchmarks/results/gan.md

The judge is the convolutional network, trained on the same digits. It says which digit each of the generated images is:
a class is covered if it gets a hundredth of them or more. The Frechet distance compares the judge's features of generated
and of real images, as means and covariances (Heusel et al., arXiv:1706.08500, equation 6, with this judge in place of
Inception). It depends on how many images it is taken over, so every distance here is between two sets of the same size:
half of all real images, and the other half (the floor) or as many generated ones; the mean over ten ways to halve them.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from _runs import COMMAND, heading, parser, spread, table
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from torchloom import assembly
from torchloom.contracts.dataset import SplitName
from torchloom.data import Loader
from torchloom.inference import Loaded, load

IMAGES = 2000
HALVINGS = 10
COVERED = 0.01
"""Share of the generated images from which on a class counts as covered."""
VARIANTS = {
    "bce": ["objective.loss=bce"],
    "bare": ["objective=adversarial"],
    "dcgan": ["architecture=dcgan"],
    "wgan_gp": ["objective.loss=wgan_gp"],
}


class Score(NamedTuple):
    """What the judge finds.

    Attributes:
        covered: Classes with a share of `COVERED` or more.
        smallest: Share of the rarest class.
        entropy: Of the shares of the classes, in bits; log2(10) = 3.32 if all are equal.
        confidence: Mean probability of the class that the judge takes an image for.
        frechet: Distance to real images.
    """

    covered: float
    smallest: float
    entropy: float
    confidence: float
    frechet: float


class Judge:
    """A trained classifier that looks at images ``(num, channels, height, width)`` in ``[0, 1]``."""

    def __init__(self, trained: Loaded, real: Tensor) -> None:
        self.trained = trained
        self.features, _ = self.look(real)
        self.real = real

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(num, 64)`` in float64 and probabilities ``(num, classes)``."""
        features, probabilities = [], []
        for part in images.split(500):
            features.append(self.trained.model.architecture.features(part).double())
            probabilities.append(self.trained.model(inputs=part).softmax(1))
        return torch.cat(features), torch.cat(probabilities)

    def score(self, images: Tensor | None = None) -> Score:
        """Score generated images, or the real ones."""
        features, probabilities = self.look(self.real if images is None else images)
        shares = torch.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]).double() / len(probabilities)
        generator = torch.Generator().manual_seed(0)
        half = len(self.features) // 2
        distances = []
        for _ in range(HALVINGS):
            first, second = torch.randperm(len(self.features), generator=generator)[: 2 * half].view(2, half)
            other = self.features[second]
            if images is not None:
                other = features[torch.randperm(len(features), generator=generator)[:half]]
            distances.append(frechet(self.features[first], other))
        return Score(
            float((shares >= COVERED).sum()),
            float(shares.min()),
            float(torch.special.entr(shares).sum() / math.log(2)),
            float(probabilities.amax(1).mean()),
            statistics.mean(distances),
        )


class Vectors(nn.Identity):
    """Tells torchmetrics that features of this width come in place of images."""

    num_features = 64


def frechet(first: Tensor, second: Tensor) -> float:
    """Return the distance between the normal distributions fitted to two sets of vectors ``(num, 64)``."""
    distance = FrechetInceptionDistance(feature=Vectors())
    distance.update(first, real=True)
    distance.update(second, real=False)
    return float(distance.compute())


def train(folder: Path, overrides: Sequence[str]) -> Path:
    """Train by the command line, or find that it was done; return the run's folder."""
    summary = folder / "summary.json"
    if not summary.is_file() or json.loads(summary.read_text())["status"] != "finished":
        begun = time.perf_counter()
        settings = [*overrides, "trainer.progress=none", f"hydra.run.dir={folder}"]
        ended = subprocess.run([*COMMAND, *settings], capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"torchloom train {' '.join(overrides)}\n{ended.stderr}{ended.stdout}")
        print(f"{time.perf_counter() - begun:6.1f} s  {' '.join(overrides)}", file=sys.stderr, flush=True)
    return folder


def last(folder: Path) -> Loaded:
    """Load the model as it was when training ended."""
    return load(folder / json.loads((folder / "summary.json").read_text())["checkpoint"], device="cpu")


def generated(trained: Loaded) -> Tensor:
    images = trained.generate(num_samples=IMAGES, seed=1).images
    assert images is not None
    return images


def players() -> tuple[nn.Module, nn.Module]:
    """Return the tutorial's generator and discriminator."""
    generator = nn.Sequential(
        nn.Linear(100, 128), nn.LeakyReLU(0.2), nn.Linear(128, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 5, padding=2),
        nn.LeakyReLU(0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 7 * 7, 1),
    )
    return generator, discriminator


class Plain:
    """The same pair, loss, optimisers and batches in plain PyTorch; initialisation and noise are its own."""

    def __init__(self, loader: Loader, lr: float, instance_noise: float, seed: int) -> None:
        torch.manual_seed(1000 + seed)
        self.loader = loader
        self.instance_noise = instance_noise
        self.generator, self.discriminator = players()
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr, betas=(0.5, 0.999), fused=True)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr, betas=(0.5, 0.999), fused=True)

    def train(self, steps: int) -> None:
        """Take so many steps."""
        done = 0
        while True:
            for batch in self.loader:
                if done == steps:
                    return
                self.step(batch["image"] * 2 - 1)
                done += 1

    def step(self, real: Tensor) -> None:
        """Train the discriminator on a batch, then the generator."""
        fake = self.generator(torch.randn(len(real), 100)).detach()
        loss = F.relu(1 - self.judged(real)).mean() + F.relu(1 + self.judged(fake)).mean()
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()
        loss = -self.judged(self.generator(torch.randn(len(real), 100))).mean()
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()

    def judged(self, images: Tensor) -> Tensor:
        """Return the discriminator's logits of images seen through noise."""
        logits: Tensor = self.discriminator(images + self.instance_noise * torch.randn_like(images))
        return logits

    @torch.no_grad()
    def generate(self) -> Tensor:
        """Return images in ``[0, 1]``."""
        noise = torch.randn(IMAGES, 100, generator=torch.Generator().manual_seed(1))
        return (self.generator(noise) + 1) / 2


def plain(folder: Path, model: Loaded, seed: int) -> Tensor:
    """Train the pair in plain PyTorch as long as a model of torchloom was, or find that it was done; return images."""
    file = folder / "images.pt"
    if not file.is_file():
        begun = time.perf_counter()
        config = model.config
        dataset, _ = assembly.make_dataset(config)
        loader = Loader(dataset.split("train"), config.dataset.batch_size, training=True, seed=seed)
        made = Plain(loader, config.optimizer.lr, config.objective.instance_noise, seed)
        made.train(model.step)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(made.generate(), file)
        print(f"{time.perf_counter() - begun:6.1f} s  plain PyTorch, seed {seed}", file=sys.stderr, flush=True)
    images: Tensor = torch.load(file, weights_only=True)
    return images


def row(name: str, scores: Sequence[Score]) -> list[str]:
    digits = Score(0, 3, 3, 3, 1)
    cells = [spread(values, places) for values, places in zip(zip(*scores, strict=True), digits, strict=True)]
    cells[0] = ", ".join(f"{score.covered:.0f}" for score in scores)
    return [name, str(len(scores)), *cells]


def report(runs: Path, seeds: int, variants: Sequence[str]) -> tuple[list[list[str]], bool]:
    """Train and score everything.

    Returns:
        Rows of the table, and whether torchloom's own runs cover all classes.
    """
    judging = load(train(runs / "judge", ["experiment=cnn"]), ["dataset=digits"], device="cpu")
    dataset, _ = assembly.make_dataset(judging.config)
    names: tuple[SplitName, ...] = ("train", "val", "test")
    splits = [dataset.split(name) for name in names]
    judge = Judge(judging, torch.cat([split.batch(torch.arange(len(split)))["image"] for split in splits]))
    own, best, bare = [], [], []
    for seed in range(seeds):
        folder = train(runs / f"gan-{seed}", ["experiment=gan", f"seed={seed}"])
        trained = last(folder)
        own.append(judge.score(generated(trained)))
        best.append(judge.score(generated(load(folder, device="cpu"))))
        bare.append(judge.score(plain(runs / f"plain-{seed}", trained, seed)))
    rows = [
        row("real images", [judge.score()]),
        row("`experiment=gan`", own),
        row("the same in plain PyTorch", bare),
        row("`experiment=gan`, best checkpoint", best),
    ]
    for name in variants:
        trained = last(train(runs / name, ["experiment=gan", *VARIANTS[name]]))
        rows.append(row(f"`experiment=gan {' '.join(VARIANTS[name])}`", [judge.score(generated(trained))]))
    return rows, all(score.covered == len(judging.spec.classes) for score in own)


def main() -> int:
    made = parser(__doc__, seeds=3)
    made.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    options = made.parse_args()
    with tempfile.TemporaryDirectory(prefix="torchloom-benchmark-") as scratch:
        rows, reached = report(options.runs or Path(scratch), options.seeds, options.variants)
    print(heading("Scores of generated digits", options))
    print(
        f"{IMAGES} images of each run as the judge sees them, at the end of training; mean and deviation over seeds.\n"
    )
    head = ["", "runs", "classes of 10", "rarest class", "entropy, bits", "confidence", "Frechet distance"]
    print(table(head, rows))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
