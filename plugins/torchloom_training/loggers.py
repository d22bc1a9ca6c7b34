"""Loggers: a CSV file that can be compared bit for bit, and TensorBoard."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger as LightningLogger
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from torchloom.contracts.training import Logger

FILE = "metrics.csv"


class CSV(Logger):
    """Writes ``metrics.csv`` into the run's folder."""

    def build(self, folder: Path) -> CSVLogger:
        """Return the logger."""
        return CSVLogger(folder / FILE)


class CSVLogger(LightningLogger):
    """Appends one row a call: epoch, step, then metrics in the order in which they first appeared.

    Values are written so that reading them gives the same float; what a row does not have is blank. There is no time in
    the file, so two equal runs write equal bytes. A new metric widens the header, which rewrites the file in one move.
    A last line that a kill cut short is dropped.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Name of the file, which is all there is to tell loggers apart."""
        return FILE

    @property
    def version(self) -> str:
        """Empty: each run has a folder of its own."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Append one row and hand it to the operating system, so that a kill loses nothing that was logged."""
        row = {name: repr(float(value)) for name, value in metrics.items()}
        row["step"] = "" if step is None else str(int(step))
        if "epoch" in metrics:
            row["epoch"] = str(int(metrics["epoch"]))
        if self._columns is None:
            self._columns = self._open()
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._read()
            self._columns += new
            self._replace([*rows, row])
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line([row.get(name, "") for name in self._columns]))

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Begin the file, or drop the rows behind a step, which a resumed run will write again.

        Args:
            step: Optimiser steps that the checkpoint had taken; its own rows stay. -1 drops all.
        """
        self._columns = self._open()
        rows = self._read()
        kept = [row for row in rows if not row["step"] or int(row["step"]) <= step]
        if len(kept) < len(rows):
            self._replace(kept)

    def _open(self) -> list[str]:
        """Mend or begin the file and return its columns."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            whole = _line(["epoch", "step"])
        if whole != text:
            _write(self.path, whole)
        return next(csv.reader(io.StringIO(whole)))

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _replace(self, rows: list[dict[str, str]]) -> None:
        assert self._columns is not None
        lines = [_line(self._columns)] + [_line([row.get(name, "") for name in self._columns]) for row in rows]
        _write(self.path, "".join(lines))


class TensorBoard(Logger):
    """Writes event files into the folder ``tensorboard`` of the run."""

    def build(self, folder: Path) -> EventLogger:
        """Return the logger."""
        return EventLogger(folder, name="tensorboard", version="", default_hp_metric=False)


class EventLogger(TensorBoardLogger):
    """Lightning's logger without hyper-parameters, which ``config.yaml`` holds already."""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder holds the configuration."""

    @rank_zero_only
    def save(self) -> None:
        """Flush what was logged; Lightning's own also writes a file of hyper-parameters."""
        if self._experiment is not None:
            self.experiment.flush()

    def rewind(self, step: int) -> None:
        """Have TensorBoard hide the events behind a step, which a resumed run will write again.

        Args:
            step: Optimiser steps that the checkpoint had taken; call it before anything is logged.
        """
        self._kwargs["purge_step"] = step + 1


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _write(path: Path, text: str) -> None:
    """Write a whole file in one move, so that a kill leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)
