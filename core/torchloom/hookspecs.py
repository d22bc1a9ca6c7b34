"""What a plugin may implement. Mark an implementation with `torchloom.hookimpl`.

A plugin is a module named in the entry-point group ``torchloom.plugins``. It may implement any of these hooks and
may take fewer arguments than stated, never others. Nothing may depend on the order in which plugins are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchloom.component import Component, Kind
    from torchloom.errors import Problem

PROJECT = "torchloom"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def torchloom_kinds() -> Iterable[Kind]:  # type: ignore[empty-body]
    """Declare kinds of component.

    Called once, when plugins are loaded, before `torchloom_components`. Must not import torch.

    Returns:
        The kinds that this plugin adds.
    """


@hookspec
def torchloom_components() -> Iterable[Component]:  # type: ignore[empty-body]
    """Declare components.

    Called once, when plugins are loaded. Must not import torch: targets and configs are strings.

    Returns:
        The components that this plugin supplies.
    """


@hookspec
def torchloom_config_search_paths() -> Iterable[str]:  # type: ignore[empty-body]
    """Declare packages that hold YAML presets.

    Called once, when plugins are loaded.

    Returns:
        Search-path entries such as ``"pkg://my_package.conf"``, whose folders are config groups
        (``experiment/``, ``architecture/`` ...). A preset must not take a component's own name.
    """


@hookspec
def torchloom_check_config(config: DictConfig) -> Iterable[Problem]:  # type: ignore[empty-body]
    """Check a composed configuration beyond what its schema says.

    Called before anything is built, for runs from the command line and from Python alike. Must not import torch.

    Args:
        config: The whole configuration, resolved and read-only.

    Returns:
        Problems, all of which are reported together with everybody else's.
    """


@hookspec
def torchloom_configure_trainer(arguments: dict[str, Any], config: DictConfig) -> None:
    """Change the arguments of the Lightning Trainer.

    Called just before the Trainer is made, once a process.

    Args:
        arguments: Keyword arguments of `pytorch_lightning.Trainer`, changed in place.
        config: The whole configuration, resolved and read-only.
    """


@hookspec
def torchloom_run_finished(folder: Path, summary: dict[str, Any]) -> None:
    """Act on a finished run; called on the first process only, whether the run succeeded or failed.

    Args:
        folder: The run's folder.
        summary: The contents of its ``summary.json``.
    """
