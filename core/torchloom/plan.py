"""What a command line asks Hydra to compose: which configuration, from which overrides, checked how.

Commands are told apart by the shape of their config dataclass only; `torchloom.commands.configs` says what counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from torchloom import checking, checkpoint, registry, schema
from torchloom.app import Check
from torchloom.commands.configs import ContinueConfig
from torchloom.component import Component
from torchloom.configs import RootConfig, RunConfig
from torchloom.errors import CheckpointError, ConfigError, Problem

OVERRIDES = "overrides"
"""Key of a command that takes, as text, every override that is not a key of its own."""

NO_FOLDER = {"run": {"dir": "."}, "sweep": {"dir": ".", "subdir": "."}, "output_subdir": None}
"""What commands that make no run say to Hydra: write nothing anywhere."""


@dataclass(frozen=True)
class Command:
    """A command, seen from the command line.

    Attributes:
        component: Its record.
        config: Its config dataclass.
    """

    component: Component
    config: type[Any]

    @classmethod
    def find(cls, name: str) -> Command:
        """Return a command by name.

        Raises:
            UnknownComponentError: There is none.
        """
        known = registry.current()
        component = known.get("command", name)
        return cls(component, known.config_class(component))

    @property
    def name(self) -> str:
        """Its name, or ``distribution:name`` where two distributions supply it."""
        return registry.current().label(self.component)

    @property
    def root(self) -> type[RootConfig] | None:
        """Its config, if that is the root of something composed of components."""
        return self.config if issubclass(self.config, RootConfig) else None

    @property
    def words(self) -> str:
        """What calls it: its name, whose parts may be written apart (``corpus build``)."""
        return self.name.replace("_", " ")

    @property
    def keys(self) -> list[str]:
        """Keys of its own."""
        return [field.name for field in dataclasses.fields(self.config)]

    @property
    def examples(self) -> list[str]:
        """Command lines, from the docstring of its config dataclass."""
        _, _, below = inspect.cleandoc(self.config.__doc__ or "").partition("Example:\n")
        return [line.strip() for line in below.splitlines() if line.strip()]


@dataclass(frozen=True)
class Plan:
    """What Hydra is to compose for a command.

    Attributes:
        config_name: Name of the primary configuration.
        overrides: Overrides of it.
        check: Finds what is wrong with the composed configuration.
        writes: Whether a run comes of it, with a folder of its own.
        root: Class of the root keys where components are composed, rather than a command's own keys.
        resume: Folder of a sweep to go on with.
    """

    config_name: str
    overrides: list[str]
    check: Check
    writes: bool = False
    root: type[RootConfig] | None = None
    resume: Path | None = None


def plan(command: Command, args: argparse.Namespace, loader: ConfigLoader) -> Plan:
    """Work out what a command line asks for.

    Args:
        command: The command.
        args: Hydra's flags and the overrides.
        loader: Lists groups, for overrides such as ``dataset=glob(*)``.

    Raises:
        CheckpointError: There is no such checkpoint.
        ConfigError: A key that the command does not have.
    """
    given = Overrides(args.overrides, loader)
    root = command.root
    if root is None:
        own = _own(command, given, multirun=args.multirun)
        return Plan(_store(command, command.name, NO_FOLDER), own, partial(_check, command))
    check = partial(checking.check, root=root)
    if not issubclass(root, RunConfig):
        if args.multirun:
            raise ConfigError([Problem("-m", f"'torchloom {command.words}' does one thing at a time", "Leave it out.")])
        return Plan(args.config_name or root.primary, args.overrides, check, root=root)
    resume = given.value("sweep.resume")
    if resume is not None:
        return Plan(
            "config",
            given.without("sweep.resume"),
            check,
            writes=True,
            root=root,
            resume=Path(str(resume)),
        )
    if given.value("ckpt") is None:
        return Plan(args.config_name or root.primary, args.overrides, check, writes=True, root=root)
    if args.multirun:
        raise ConfigError([Problem("ckpt", "goes on with one run, which cannot be swept over", "Leave out -m.")])
    going_on = Command(command.component, ContinueConfig)
    own = _own(going_on, given, multirun=False)
    if given.value("hydra.run.dir") is None:
        own += _same_folder(_checkpoint(given))
    return Plan(_store(going_on, "continue", _run_settings()), own, partial(_check, going_on), writes=True)


class Overrides:
    """Overrides as written, each with what Hydra reads in it, or None where it cannot: composing will say so."""

    def __init__(self, lines: list[str], loader: ConfigLoader | None = None) -> None:
        parser = OverridesParser.create(config_loader=loader)
        self.parsed: list[tuple[str, Override | None]] = []
        for line in lines:
            try:
                self.parsed.append((line, parser.parse_override(line)))
            except HydraException:
                self.parsed.append((line, None))

    def value(self, key: str) -> Any:
        """Return the value that a key was given last, or None."""
        values = [override.value() for _, override in self.parsed if override and override.key_or_group == key]
        return values[-1] if values else None

    def without(self, *keys: str) -> list[str]:
        """Return all overrides but those of some keys."""
        return [line for line, override in self.parsed if override is None or override.key_or_group not in keys]


def quote(text: str) -> str:
    """Return a text as a value in the grammar of overrides."""
    return QuotedString(text, Quote.single).with_quotes()


def _check(command: Command, config: DictConfig) -> list[Problem]:
    problems: list[Problem] = []
    own = OmegaConf.masked_copy(config, command.keys)
    schema.read(command.config, OmegaConf.to_container(own, resolve=True), "", problems)
    missing = OmegaConf.missing_keys(own)
    example = f"For example: {command.examples[0]}" if command.examples else ""
    return [dataclasses.replace(one, mend=example or one.mend) if one.place in missing else one for one in problems]


def _store(command: Command, name: str, settings: dict[str, Any]) -> str:
    """Give Hydra a command's keys as a primary configuration, and return its name."""
    node = {
        "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
        **{field.name: field.default for field in schema.describe_class(command.config)},
        "hydra": settings,
    }
    ConfigStore.instance().store(name=name, node=node, provider="torchloom")
    return name


def _own(command: Command, given: Overrides, *, multirun: bool) -> list[str]:
    """Return the overrides of a command's own keys; all others become the value of its key ``overrides``."""
    own: list[str] = []
    rest: list[Override] = []
    problems: list[Problem] = []
    for line, override in given.parsed:
        if override is None or override.is_hydra_override():
            own.append(line)
        elif override.key_or_group == "ckpt" and "ckpt" in command.keys and not override.is_sweep_override():
            own.append(f"ckpt={quote(str(_checkpoint(given)))}")
        elif override.key_or_group in command.keys:
            own.append(line)
        elif OVERRIDES in command.keys and not _misspelt(command, override):
            rest.append(override)
        else:
            problems.append(_no_key(command, override))
    if problems:
        raise ConfigError(problems)
    if rest:
        # In a sweep, one list of overrides for each combination of their values.
        lists = BasicSweeper.split_arguments(rest, None)[0] if multirun else [[str(one.input_line) for one in rest]]
        own.append(f"{OVERRIDES}=" + ",".join(f"[{','.join(map(quote, lines))}]" for lines in lists))
    return own


def _misspelt(command: Command, override: Override) -> bool:
    """Return whether a key is meant to be the command's own: it is nearest to one of these, and the run has none such."""
    key = override.key_or_group
    theirs = [info.name for info in schema.describe_class(RunConfig)]
    theirs += ["sweep", "experiment", "debug", "hydra", *registry.current().groups(RunConfig)]
    return (
        "." not in key
        and "/" not in key
        and key not in theirs
        and registry.nearest(key, [*command.keys, *theirs]) in command.keys
    )


def _no_key(command: Command, override: Override) -> Problem:
    """Return the problem of a key that a command does not have; a component is named in one word, not set."""
    group = override.key_or_group
    problem = schema.unknown_key(command.config, group, "", f"'torchloom {command.words}'")
    if "component" in command.keys and registry.current().group_kind(group) is not None:
        name = str(override.input_line).partition("=")[2].split(",")[0] or "NAME"
        return dataclasses.replace(problem, mend=f"Write torchloom {command.words} {group}/{name}")
    return problem


def _checkpoint(given: Overrides) -> Path:
    """Return the file that ``ckpt=`` names: the file itself, or the newest whole one of a run's folder.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(str(given.value("ckpt"))).expanduser()
    if path == Path("last"):
        folder = given.value("hydra.run.dir")
        return checkpoint.newest(Path(str(folder)) if folder is not None else _newest_run())
    if path.is_dir():
        return checkpoint.newest(path)
    if not path.is_file():
        raise CheckpointError(
            f"ckpt: there is no file {path}\n    ckpt=last is the newest checkpoint of the newest run."
        )
    return path


def _newest_run() -> Path:
    """Return the run, in a sweep or not, that was last written to.

    Raises:
        CheckpointError: There is none where runs are put by default.
    """
    settings = _run_settings()
    roots = [Path(settings[mode]["dir"].partition("${")[0]) for mode in ("run", "sweep")]
    configs = [file for root in roots for file in root.rglob("config.yaml")]
    runs = [file.parent for file in configs if checkpoint.saved(file.parent)]
    if not runs:
        raise CheckpointError(
            f"ckpt=last: no run under {' or '.join(map(str, roots))} has a checkpoint\n"
            "    Name the run's folder with hydra.run.dir=FOLDER, or the file with ckpt=FILE"
        )
    return max(runs, key=lambda run: checkpoint.saved(run)[0].stat().st_mtime)


def _same_folder(file: Path) -> list[str]:
    folder = checkpoint.run_folder(file)
    return [f"hydra.run.dir={quote(str(folder))}"] if folder is not None else []


def _run_settings() -> dict[str, Any]:
    """Return what ``conf/config.yaml`` says to Hydra about folders."""
    text = files("torchloom_conf").joinpath("config.yaml").read_text(encoding="utf-8")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text).hydra))
