"""What a checkpoint holds, when it is written, and how the newest whole one is found.

A checkpoint is Lightning's, and so holds weights, optimiser, loops and the place in the data; the key ``torchloom`` adds
what rebuilds the model on a machine with neither the data nor the run folder: see `Record`. It loads with
``torch.load(..., weights_only=True)``, so a stranger's checkpoint cannot run code.

Finding checkpoints needs no torch; torch is imported where one is read or written.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchloom.configs import CheckpointConfig
from torchloom.errors import CheckpointError

if TYPE_CHECKING:
    import pytorch_lightning as pl

KEY = "torchloom"
FOLDER = "checkpoints"
BEST = "best.ckpt"


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of the model it holds; plain values only.

    Attributes:
        version: torchloom's version.
        config: The resolved config, components by name.
        spec: The dataset's spec (`Spec.to_dict`).
        tokenizer: The tokenizer's state, or None.
        components: Of each group, name, distribution and version of what was chosen.
        compile: Whether the model was compiled, so that a continued run computes the same bits.
    """

    version: str
    config: dict[str, Any]
    spec: dict[str, Any]
    tokenizer: str | None
    components: dict[str, Any]
    compile: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the checkpoint."""
        return asdict(self)


def path_of(folder: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint of a step."""
    return folder / FOLDER / f"step-{step:08d}.ckpt"


def saved(folder: Path) -> list[Path]:
    """Return a run's checkpoints, newest first, whole or not; the best one's extra name is not among them."""
    return sorted((folder / FOLDER).glob("step-*.ckpt"), reverse=True)


def is_whole(path: Path) -> bool:
    """Tell whether a checkpoint was written to its end: every record is there with its checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def newest(folder: Path) -> Path:
    """Return a run's newest whole checkpoint; one that a crash cut short is passed over for the one before.

    Raises:
        CheckpointError: The run has none.
    """
    candidates = saved(folder)
    for path in candidates:
        if is_whole(path):
            return path
    if candidates:
        raise CheckpointError(f"{folder / FOLDER}: all {len(candidates)} checkpoints are cut short; train anew")
    raise CheckpointError(f"{folder}: no checkpoint was written there yet; train anew")


def best(path: str | Path) -> Path:
    """Return the checkpoint to use of a run's folder, the best one, else the newest whole one; a file is itself.

    Raises:
        CheckpointError: The folder has none.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        return place
    chosen = place / FOLDER / BEST
    return chosen if is_whole(chosen) else newest(place)


def run_folder(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, or None if it has been moved out of one."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == FOLDER and (folder.parent / "config.yaml").is_file() else None


def read(path: str | Path, *, device: str = "cpu") -> dict[str, Any]:
    """Load a checkpoint.

    Args:
        path: The file.
        device: Where its tensors go.

    Raises:
        CheckpointError: Missing, cut short, or not torchloom's.
    """
    import torch

    file = Path(path)
    if file.is_dir():
        file = newest(file)
    if not file.is_file():
        run = run_folder(file)
        early = file.name == BEST and run is not None
        why = f"; none of the run has been validated yet: ckpt={run} takes its newest" if early else ""
        raise CheckpointError(f"{file}: there is no such checkpoint{why}")
    if not is_whole(file):
        hint = ""
        folder = run_folder(file)
        if folder is not None:
            with contextlib.suppress(CheckpointError):
                hint = f"; the newest whole one of that run is {newest(folder)}"
        raise CheckpointError(f"{file}: not a checkpoint, or cut short{hint}")
    try:
        content: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{file}: cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error
    if KEY not in content:
        raise CheckpointError(f"{file}: a checkpoint, but not one that torchloom wrote")
    return content


def record_of(content: dict[str, Any]) -> Record:
    """Return the record inside a loaded checkpoint."""
    fields = content[KEY]
    return Record(**{name: fields[name] for name in Record.__dataclass_fields__})


def __getattr__(name: str) -> Any:
    # The callback subclasses Lightning's, and the rest of this module must not import Lightning.
    if name == "CheckpointCallback":
        from torchloom._checkpoint_callback import CheckpointCallback

        return CheckpointCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def write(trainer: pl.Trainer, path: Path) -> None:
    """Write a checkpoint so that it is there whole or not at all; called on every process.

    Raises:
        CheckpointError: The folder cannot be written to.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


__all__ = [
    "CheckpointConfig",
    "CheckpointError",
    "Record",
    "best",
    "is_whole",
    "newest",
    "read",
    "record_of",
    "run_folder",
]
