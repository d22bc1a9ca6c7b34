"""`torchloom evaluate`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    """Measure a checkpoint on a split and print the metrics.

    The results are also written as JSON, to ``out`` or into the run's folder as ``evaluate-<split>.json``.
    """
    from rich.console import Console
    from rich.table import Table

    from torchloom import checkpoint
    from torchloom.inference import load
    from torchloom.run import write_json

    loaded = load(config.ckpt, list(config.overrides))
    values, tables = loaded.evaluate(config.split)
    table = Table("metric", "value", title=f"{config.ckpt} on {config.split}, step {loaded.step}")
    for name, value in values.items():
        table.add_row(name, f"{value:.6g}")
    Console().print(table)
    folder = Path(config.ckpt) if Path(config.ckpt).is_dir() else checkpoint.run_folder(Path(config.ckpt))
    out = Path(config.out) if config.out else folder / f"evaluate-{config.split}.json" if folder else None
    if out is not None:
        write_json(out, {"ckpt": str(config.ckpt), "step": loaded.step, "metrics": values, "tables": tables})
        print(out)
    return 0
