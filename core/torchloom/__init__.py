"""torchloom: deep learning from components that are chosen by name.

From Python, as from the command line::

    config = torchloom.compose(["experiment=cnn", "optimizer.lr=3e-3"])
    summary = torchloom.train(config, "runs/mine")
    model = torchloom.load("runs/mine")
    model.evaluate("test")

Importing this package imports neither torch nor Lightning; the functions do when they need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchloom.component import Component, Kind
from torchloom.hookspecs import hookimpl
from torchloom.options import option

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchloom.inference import Loaded

__all__ = ["Component", "Kind", "compose", "hookimpl", "load", "option", "resume", "train"]

__version__ = "0.1.0"


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a run's configuration as the command line does.

    Args:
        overrides: In Hydra's grammar: ``["experiment=cnn", "optimizer.lr=1e-3"]``.

    Returns:
        The configuration, resolved and checked.

    Raises:
        ConfigError: Everything that is wrong with it, at once.
        UnknownComponentError: A name that no component has.
    """
    from torchloom import composing

    return composing.compose(overrides)


def train(config: DictConfig, folder: str | Path | None = None) -> dict[str, Any]:
    """Train as a configuration says.

    Args:
        config: From `compose`.
        folder: The run's folder; a new one under ``runs/`` unless given. It holds ``config.yaml``, ``metrics.csv``,
            ``checkpoints/``, ``samples/`` and ``summary.json`` afterwards.

    Returns:
        The contents of ``summary.json``, and the folder under ``"folder"``.

    Raises:
        TorchloomError: A mistake that a person can mend; ``summary.json`` names it too.
        Interrupted: The person stopped it; `resume` goes on.
    """
    from torchloom import run

    place = Path(folder) if folder is not None else run.new_folder(config)
    return {**run.train(config, place), "folder": str(place)}


def resume(ckpt: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Continue a run from a checkpoint, in its own folder.

    Args:
        ckpt: A checkpoint in a run's folder, or the folder, whose newest whole checkpoint is taken.
        overrides: Limits, paths and logging may change; anything else is refused by name.

    Returns:
        What `train` returns.

    Raises:
        ConfigError: An override of something that must stay as it was.
        CheckpointError: There is no whole checkpoint.
    """
    from torchloom import checkpoint, run

    path = checkpoint.newest(Path(ckpt)) if Path(ckpt).is_dir() else Path(ckpt)
    config = run.continued(path, list(overrides))
    place = checkpoint.run_folder(path)
    return train(config, place)


def load(ckpt: str | Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Loaded:
    """Rebuild a trained model from a checkpoint alone.

    Args:
        ckpt: A checkpoint file, or a run's folder, whose best checkpoint is taken, else the newest whole one.
        overrides: Changes to its configuration, such as ``["dataset.path=other.txt"]``.
        device: Where to put it; a GPU if there is one, unless given.

    Returns:
        The model with its tokenizer, spec and configuration; it evaluates, predicts and generates.

    Raises:
        CheckpointError: Missing, cut short, or not the checkpoint of that architecture.
    """
    from torchloom import inference

    return inference.load(ckpt, overrides, device=device)
