"""`torchloom predict`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    """Predict a split, or a person's own inputs, as CSV: to ``out``, or to standard output."""
    from torchloom.inference import load

    loaded = load(config.ckpt, list(config.overrides))
    inputs = list(config.input) if config.input else None
    records = loaded.predict(inputs, config.split)
    if inputs is not None:
        records = [{"input": name, **record} for name, record in zip(inputs, records, strict=True)]
    names = list(dict.fromkeys(name for record in records for name in record))
    if config.out is None:
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        writer.writerows(records)
        return 0
    partial = Path(f"{config.out}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(records)
    partial.replace(config.out)
    print(config.out)
    return 0
