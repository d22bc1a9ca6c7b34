"""Hydra as torchloom runs it: with our errors, and with every check done before anything is written.

`hydra.main` prints errors and exits by itself, composes a configuration up to three times, and makes the output folder
before anybody could refuse the configuration. `App` keeps Hydra's own composing, running and printing, and only stands
between them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from torchloom import checkpoint, composing, config_source, registry
from torchloom.checking import HYDRA_ERRORS
from torchloom.configs import RootConfig, RunConfig
from torchloom.errors import CheckpointError, ConfigError, Problem, TorchloomError

INTERRUPTED = 130
"""Exit code of a program ended by Ctrl-C, by the shells' convention."""

Check = Callable[[DictConfig], Sequence[Problem]]
"""Returns everything that is wrong with a composed configuration."""


@dataclass(frozen=True)
class Outcome:
    """How one job ended.

    Attributes:
        code: Exit code; 0 is success.
        error: Cause of a failure, where the command raised it.
    """

    code: int
    error: str | None = None


@dataclass(frozen=True)
class Task:
    """What Hydra calls for each job: a command's function. Plain strings, so that it travels to other processes.

    Attributes:
        command: Name of the command.
        composed: Whether it is composed of components, and goes to the command as `torchloom.composing` would give it.
        resume: Whether a job whose folder holds a whole checkpoint goes on from it.
    """

    command: str
    composed: bool = False
    resume: bool = False

    def __call__(self, config: DictConfig) -> Outcome:
        """Run the command on a composed configuration.

        Raises:
            KeyboardInterrupt: The job was interrupted, and with it whatever runs it.
        """
        try:
            known = registry.current()
            function: Callable[[DictConfig], int] = known.load(known.get("command", self.command))
            code = function(self._prepared(config))
        except Exception as error:
            return Outcome(report(error), str(error) or type(error).__name__)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return Outcome(code)

    def _prepared(self, config: DictConfig) -> DictConfig:
        if self.resume:
            with contextlib.suppress(CheckpointError):  # there is none, or no whole one: the job begins again
                newest = checkpoint.newest(Path(HydraConfig.get().runtime.output_dir))
                return OmegaConf.create({"ckpt": str(newest), "overrides": []})
        if not self.composed:
            return config
        known = registry.current()
        return composing.finish(config, known.config_class(known.get("command", self.command)))


def report(error: BaseException) -> int:
    """Print an error as a person wants to see it, and return the exit code that belongs to it."""
    if os.environ.get("TORCHLOOM_TRACEBACK") == "1" or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    if isinstance(error, TorchloomError):
        print(f"torchloom: error: {error}", file=sys.stderr)
        return 2
    print(
        f"torchloom: error: {type(error).__name__}: {error}\n"
        "    A fault of torchloom or of a plugin; TORCHLOOM_TRACEBACK=1 shows where.",
        file=sys.stderr,
    )
    return 1


class App(Hydra):
    """One Hydra application.

    Attributes:
        root: Class of the root keys of what it composes; None where that has keys of a command only.
    """

    root: type[RootConfig] | None = None

    @classmethod
    def create(cls, name: str, *, config_path: str | None = None, config_dir: str | None = None) -> App:
        """Return the application of a command.

        Args:
            name: Name of the command, which becomes Hydra's job name.
            config_path: In place of torchloom's own configuration folder.
            config_dir: A further configuration folder, searched last.

        Raises:
            ConfigError: The further folder does not exist.
        """
        version.setbase("1.3")
        config_source.register()
        if config_path is not None and not config_path.startswith("pkg://"):
            config_path = str(Path(config_path).absolute())
        search_path = create_config_search_path(config_path or "pkg://torchloom_conf")
        if config_dir is not None:
            folder = Path(config_dir).absolute()
            if not folder.is_dir():
                raise ConfigError([Problem("--config-dir", f"{folder} is not a folder")])
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        app = cls.create_main_hydra2(name, search_path)
        assert isinstance(app, cls)
        return app

    def close(self) -> None:
        """Let another application take its place in this process."""
        GlobalHydra.instance().clear()

    def compose_config(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        with_log_configuration: bool = False,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose as Hydra does.

        Raises:
            ConfigError: In place of whatever Hydra and OmegaConf raise.
        """
        try:
            return super().compose_config(
                config_name, overrides, run_mode, with_log_configuration, from_shell, validate_sweep_overrides
            )
        except TorchloomError:
            raise
        except HYDRA_ERRORS as error:
            raise composing.diagnose(overrides, error, config_name or RunConfig.primary, self.root) from error

    def run_one(self, config_name: str, task: Task, overrides: list[str], check: Check, *, writes: bool) -> int:
        """Run a command once and return its exit code.

        Args:
            config_name: Name of the primary configuration.
            task: What to run.
            overrides: Overrides of it.
            check: Finds what is wrong with the composed configuration.
            writes: Whether it has a folder; without one it needs nothing of what Hydra lays out for a job.

        Raises:
            ConfigError: The configuration is refused; nothing has been written.
        """
        config = self.compose_config(config_name, overrides, RunMode.RUN, with_log_configuration=writes)
        problems = [*check(config)] or (_unwriteable(Path(config.hydra.run.dir)) if writes else [])
        if problems:
            raise ConfigError(problems)
        config.hydra.mode = RunMode.RUN
        if not writes:
            HydraConfig.instance().set_config(config)
            return task(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])).code
        callbacks = Callbacks(config)
        callbacks.on_run_start(config=config, config_name=config_name)
        job = run_job(
            task_function=task,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=self.config_loader, callbacks=callbacks),
        )
        callbacks.on_run_end(config=config, config_name=config_name, job_return=job)
        outcome: Outcome = job.return_value
        return outcome.code


def _unwriteable(folder: Path) -> list[Problem]:
    """Make a run's folder; return why that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        reason = f"{folder} cannot be written to: {error.strerror}"
        return [Problem("hydra.run.dir", reason, "Choose another with hydra.run.dir=FOLDER")]
