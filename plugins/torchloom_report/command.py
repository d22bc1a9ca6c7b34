"""The `report` command."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from torchloom.errors import ConfigError, Problem


def run(config: DictConfig) -> int:
    """Write the page and print its path.

    Args:
        config: The command's composed configuration, with the keys of `ReportConfig` at its root.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: There is no such folder, it holds no run, or the page cannot be written.
    """
    if OmegaConf.is_missing(config, "folder"):
        raise ConfigError([Problem("folder", "not given", "name a run's or a sweep's folder: torchloom report FOLDER")])
    from torchloom_report.page import write_report

    out = None if config.get("out") is None else Path(config.out).expanduser()
    print(write_report(Path(config.folder).expanduser(), out))
    return 0
