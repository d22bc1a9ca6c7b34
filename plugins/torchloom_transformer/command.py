"""`torchloom knn`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from torchloom import checkpoint
from torchloom.contracts.dataset import SplitName
from torchloom.errors import DataError, UnsupportedError
from torchloom.inference import Loaded, load
from torchloom.run import write_json
from torchloom_transformer.memory import StateMemory, mixed_loss, remembered

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Tried as multiples of the mean squared distance of the neighbours."""


@dataclass(frozen=True)
class Positions:
    """Predicted positions of a text, on the CPU.

    Attributes:
        vectors: What the head reads there, ``(positions, width)``.
        next: The token that came next, int64 ``(positions,)``.
        log_model: The model's log-probability of it, ``(positions,)``.
    """

    vectors: Tensor
    next: Tensor
    log_model: Tensor


def run(config: DictConfig) -> int:
    """Measure a language model on a split without and with a memory of its training split.

    Args:
        config: Keys of `KNNConfig`.

    Returns:
        Exit code 0.

    Raises:
        UnsupportedError: The model is not one of causal language modelling.
        DataError: The training split is too small to hold some of it out.
    """
    result = measure(load(config.ckpt, list(config.overrides)), config.split, config.neighbours, config.held_out)
    console = Console()
    table = Table("", f"{config.split}/loss", box=SIMPLE_HEAD)
    table.add_row("model alone", f"{result['loss']:.6g}")
    table.add_row(f"with {result['states']:,} positions of the training split", f"{result['loss_with_memory']:.6g}")
    console.print(table)
    if not result["weight"]:
        console.print("The memory did not help on the training text held out, so it has no weight.", highlight=False)
    folder = Path(config.ckpt) if Path(config.ckpt).is_dir() else checkpoint.run_folder(Path(config.ckpt))
    out = Path(config.out) if config.out else folder / f"knn-{config.split}.json" if folder else None
    if out is not None:
        write_json(out, {"ckpt": str(config.ckpt), **result})
        print(out)
    return 0


def measure(loaded: Loaded, split: SplitName, neighbours: int = 32, held_out: float = 0.1) -> dict[str, Any]:
    """Tune the memory's weight on training text held out of it, and measure the model with all of it.

    The model itself has been trained on that text too and so knows it better than new text: the weight errs low.

    Args:
        loaded: A model of causal language modelling.
        split: ``"val"`` or ``"test"``.
        neighbours: Nearest positions that have a say.
        held_out: Share of the training split's positions, its last ones, in ``(0, 1)``.

    Returns:
        ``loss`` and ``loss_with_memory``, nats a token; ``weight``, ``temperature`` and ``states``.

    Raises:
        UnsupportedError: The model is not one of causal language modelling.
        DataError: The training split is too small to hold some of it out.
    """
    train = _positions(loaded, "train")
    cut = len(train.next) - int(len(train.next) * held_out)
    if not 0 < cut < len(train.next):
        raise DataError(
            f"the training split has {len(train.next)} positions, of which held_out={held_out:g} leaves none on one "
            "side: choose another share, or more text"
        )
    memory = StateMemory(train.vectors.shape[1])
    memory.add(train.vectors[:cut], train.next[:cut])
    distance, token = memory.search(train.vectors[cut:], neighbours)
    scale = max(distance.mean().item(), torch.finfo(torch.float32).tiny)
    tried = []
    for share in TEMPERATURES:
        known = remembered(distance, token, train.next[cut:], share * scale)
        tried += [(mixed_loss(train.log_model[cut:], known, weight), weight, share * scale) for weight in WEIGHTS]
    _, weight, temperature = min(tried)
    memory.add(train.vectors[cut:], train.next[cut:])

    asked = _positions(loaded, split)
    known = remembered(*memory.search(asked.vectors, neighbours), asked.next, temperature)
    return {
        "split": split,
        "loss": mixed_loss(asked.log_model, known, 0.0),
        "loss_with_memory": mixed_loss(asked.log_model, known, weight),
        "weight": weight,
        "temperature": temperature,
        "neighbours": neighbours,
        "states": len(memory),
    }


def _positions(loaded: Loaded, split: SplitName) -> Positions:
    model, objective = loaded.model, loaded.objective
    if loaded.config.objective.name != "clm" or model.protocol != "sequence":
        raise UnsupportedError(
            "a memory of what came next needs a model that predicts what comes next at every position: one trained with "
            f"objective=clm and objective.positions=all, not {loaded.config.objective.name} on '{model.protocol}'"
        )
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for batch in loaded.batches(split):
            vectors = model.architecture.sequence(**objective.inputs(batch))
            targets = objective.targets(batch)  # type: ignore[attr-defined]
            counted = targets >= 0
            wanted = targets[counted]
            log_model = -F.cross_entropy(model.head(vectors[counted]).float(), wanted, reduction="none")  # type: ignore[misc]
            parts.append((vectors[counted].float().cpu(), wanted.cpu(), log_model.cpu()))
    return Positions(*map(torch.cat, zip(*parts, strict=True)))
