"""Two processes train one pair of networks: the same steps as one process that averages both shares' gradients."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from torchloom import assembly, composing
from torchloom.data import Loader, mix

STEPS, WORLD, BATCH = 12, 2, 16
SHARE = BATCH // WORLD
SETTINGS = [
    "experiment=gan",
    f"dataset.batch_size={BATCH}",
    "optimizer.lr=0.002",
    "objective.discriminator_lr=0.0005",
    "parallel=ddp",
    f"trainer.devices={WORLD}",
    "trainer.accelerator=cpu",
    "trainer.precision=64-true",  # rounding would grow, from step to step, into other weights
    f"trainer.max_steps={STEPS}",
    "trainer.max_epochs=null",
    "trainer.limit_val_batches=0",
    "trainer.progress=none",
    "logger=[]",
    "callbacks=[]",
]
PROCESS = """
import os, sys
from pathlib import Path
import torch
from torchloom import assembly, composing

folder, *settings = sys.argv[1:]
made = assembly.assemble(composing.compose(settings), Path(folder))
losses = []
made.module._write = lambda values: losses.append(values)
made.trainer.fit(made.module, datamodule=made.data)
state = {"weights": made.network.model.state_dict(), "losses": losses}
torch.save(state, Path(folder) / f"{os.environ['RANK']}.pt")
"""


def noise(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=source, dtype=torch.float64)


def seen(images: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    return images + 0.5 * noise(images.shape, source)


def by_hand() -> dict[str, torch.Tensor]:
    """Train the pair in this process, without any of the framework's steps."""
    config = composing.compose(SETTINGS)
    assembly.seed_everything(config.seed)
    dataset, tokenizer = assembly.make_dataset(config)
    model = assembly.make_network(config, dataset.spec, tokenizer).model.double().train()
    generator, discriminator = model.architecture.generator, model.architecture.discriminator
    rates = {discriminator: 5e-4, generator: 2e-3}
    players = [torch.optim.Adam(player.parameters(), lr=rate, betas=(0.5, 0.999)) for player, rate in rates.items()]
    loaders = [
        Loader(dataset.split("train"), BATCH, training=True, seed=config.seed, rank=rank, world=WORLD)
        for rank in range(WORLD)
    ]
    for number, batches in zip(range(STEPS), zip(*loaders, strict=True), strict=False):
        sources = [torch.Generator().manual_seed(mix(config.seed, 0, number, rank)) for rank in range(WORLD)]
        for batch, source in zip(batches, sources, strict=True):
            real = seen(batch["image"].double() * 2 - 1, source)
            fake = seen(generator(noise((SHARE, 100), source)).detach(), source)
            loss = F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake)).mean()
            (loss / WORLD).backward()
        players[0].step()
        players[0].zero_grad()
        for source in sources:
            fake = seen(generator(noise((SHARE, 100), source)), source)
            (-discriminator(fake).mean() / WORLD).backward()
        players[1].step()
        for player in players:
            player.zero_grad()
    return model.state_dict()


@pytest.mark.slow
def test_two_processes_hold_equal_weights_and_take_the_steps_of_one(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path), "trainer.log_every_n_steps=1", *SETTINGS],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    hand = by_hand()
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
        torch.testing.assert_close(value, hand[name], rtol=1e-6, atol=1e-9)
    losses = [row["train/d_loss"] for row in first["losses"]]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
