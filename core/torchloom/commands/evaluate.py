"""`torchloom evaluate`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    """Measure a checkpoint on a split and print the metrics.

    The results are also written as JSON, to ``out`` or into the run's folder as ``evaluate-<split>.json``.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from torchloom import checkpoint
    from torchloom.inference import load
    from torchloom.run import write_json

    loaded = load(config.ckpt, list(config.overrides))
    values, tables = loaded.evaluate(config.split)
    console = Console()
    console.print(f"{config.ckpt}, step {loaded.step}, on {config.split}", soft_wrap=True, highlight=False)
    table = Table("metric", "value", box=SIMPLE_HEAD)
    for name, value in values.items():
        table.add_row(name, f"{value:.6g}")
    console.print(table)
    folder = Path(config.ckpt) if Path(config.ckpt).is_dir() else checkpoint.run_folder(Path(config.ckpt))
    out = Path(config.out) if config.out else folder / f"evaluate-{config.split}.json" if folder else None
    if out is not None:
        write_json(out, {"ckpt": str(config.ckpt), "step": loaded.step, "metrics": values, "tables": tables})
        print(out)
    return 0
