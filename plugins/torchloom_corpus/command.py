"""The corpus commands."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from torchloom.errors import ConfigError, Problem


def build(config: DictConfig) -> int:
    """Build a corpus, write its page, and print its folder.

    Args:
        config: The composed recipe.

    Returns:
        Exit code 0.
    """
    from torchloom_corpus.build import build as build_corpus
    from torchloom_corpus.report.page import write_report

    folder = build_corpus(config)
    print(f"torchloom: report: {write_report(folder)}", file=sys.stderr)
    print(folder.resolve())
    return 0


def report(config: DictConfig) -> int:
    """Write the page about a corpus, and print its path.

    Args:
        config: Keys of `ReportConfig`.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: No folder is given.
    """
    if OmegaConf.is_missing(config, "folder"):
        raise ConfigError([Problem("folder", "not given", "name a corpus's folder: torchloom corpus report FOLDER")])
    from torchloom_corpus.report.page import write_report

    print(write_report(Path(config.folder).expanduser()))
    return 0
