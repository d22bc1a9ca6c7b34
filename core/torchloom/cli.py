"""The command line: ``torchloom COMMAND [overrides]``.

Every command is a component of kind ``command`` and a Hydra application. This module finds it and does with it what
Hydra's flags say; what it composes is worked out in `torchloom.plan`, and Hydra itself stands in `torchloom.app`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from omegaconf import OmegaConf

import torchloom
from torchloom import app, configs, registry, schema
from torchloom.app import App, Task
from torchloom.errors import ConfigError, Problem, TorchloomError
from torchloom.plan import OVERRIDES, Command, plan, quote

USAGE = "torchloom {command} [KEY=VALUE ...] [FLAGS]"
MULTIRUN = "  -m, --multirun              run every combination of values given as KEY=A,B,C"
FLAGS = """\
  -c, --cfg job               print the configuration instead; with --resolve, its interpolations filled in
  -i, --info defaults-tree    print how the configuration is put together
      --hydra-help            all flags, and what can be set under hydra"""
COMMON = {
    "sweep": configs.SweepConfig,
    "dataset": configs.DatasetConfig,
    "optimizer": configs.OptimizerConfig,
    "trainer": configs.TrainerConfig,
}
"""Groups of a run whose every component has the keys of a class."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Words after the program's name; those of the process unless given.

    Returns:
        Exit code: 0, 1 for a failed run, 2 for a mistake in what was asked, 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("torchloom: interrupted", file=sys.stderr)
        return app.INTERRUPTED
    except SystemExit as stop:  # argparse has said what is wrong with a flag
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return app.report(error)


def _dispatch(words: list[str]) -> int:
    if "--version" in words:
        print(f"torchloom {torchloom.__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] in ("-sc", "--shell-completion"):
        return _complete(words)
    if words[0].startswith("-") or "=" in words[0]:
        mend = (
            f"{USAGE.format(command='COMMAND')}, with COMMAND one of {', '.join(registry.current().names('command'))}"
        )
        raise ConfigError([Problem("", f"'{words[0]}' stands where a command belongs", mend)])
    command, rest = _command(words)
    return _execute(command, rest)


def _command(words: list[str]) -> tuple[Command, list[str]]:
    """Return the command that a line begins with, in one word or two, and the words after it.

    Raises:
        ConfigError: The second word is missing or unknown.
        UnknownComponentError: There is no such command.
    """
    joined = "_".join(words[:2])
    if registry.current().has("command", joined):
        return Command.find(joined), words[2:]
    further = [name for name in registry.current().names("command") if name.startswith(f"{words[0]}_")]
    if further and not registry.current().has("command", words[0]):
        choices = " or ".join(f"torchloom {name.replace('_', ' ')}" for name in further)
        raise ConfigError([Problem(" ".join(words[:2]), f"'{words[0]}' is half a command", f"Write {choices}.")])
    return Command.find(words[0]), words[1:]


def _execute(command: Command, words: list[str]) -> int:
    parser = get_args_parser()
    parser.prog, parser.usage = f"torchloom {command.words}", USAGE.format(command=command.words)
    args = parser.parse_intermixed_args(words)
    args.overrides = _first_key(command, args.overrides)
    hydra = App.create(command.name, config_path=args.config_path, config_dir=args.config_dir)
    try:
        wanted = plan(command, args, hydra.config_loader)
        hydra.root = wanted.root
        if args.help:
            print(_help(command, hydra.config_loader))
        elif args.hydra_help:
            args.overrides = [line for line in wanted.overrides if line.startswith("hydra")]
            hydra.hydra_help(wanted.config_name, parser, args)
        elif args.cfg:
            hydra.show_cfg(wanted.config_name, wanted.overrides, args.cfg, args.package, args.resolve)
        elif args.info:
            hydra.show_info(args.info, wanted.config_name, wanted.overrides)
        elif args.shell_completion:
            hydra.shell_completion(wanted.config_name, args.overrides)
        elif args.multirun or wanted.resume:
            from torchloom import sweep

            return sweep.run(hydra, command.name, wanted)
        else:
            task = Task(command.name, composed=wanted.root is not None)
            return hydra.run_one(wanted.config_name, task, wanted.overrides, wanted.check, writes=wanted.writes)
    finally:
        hydra.close()
    return 0


def _first_key(command: Command, lines: list[str]) -> list[str]:
    """Turn a bare word into the value of the command's first key."""
    bare = [line for line in lines if "=" not in line and not line.startswith("~")]
    if not bare or not command.keys or command.root:
        return lines
    if len(bare) > 1:
        mend = f"Everything after it is KEY=VALUE; 'torchloom {command.words} --help' lists the keys"
        raise ConfigError(
            [Problem(" ".join(bare), f"'torchloom {command.words}' takes one word, the {command.keys[0]}", mend)]
        )
    return [f"{command.keys[0]}={quote(line)}" if line == bare[0] else line for line in lines]


def _overview() -> str:
    commands = [Command.find(name) for name in registry.current().names("command")]
    lines = [f"torchloom {torchloom.__version__}: deep learning from components that are chosen by name", ""]
    lines += ["Usage: " + USAGE.format(command="COMMAND"), "", "Commands:"]
    lines += _columns([(command.words, command.component.summary) for command in commands])
    lines += ["", "Examples:", *(f"  {example}" for command in commands for example in command.examples[:1])]
    lines += ["", "Keys, groups and examples of a command: torchloom COMMAND --help"]
    lines += ['Completion in bash: eval "$(torchloom -sc install=bash)"']
    return "\n".join(lines)


def _help(command: Command, loader: ConfigLoader) -> str:
    """Return a command's help. Hydra's own composes a whole configuration first, and takes twice the time."""
    keys = [info for info in schema.describe_class(command.config) if info.name != OVERRIDES]
    root = command.root
    if root is not None and issubclass(root, configs.RunConfig):
        keys += [info for group, cls in COMMON.items() for info in schema.describe_class(cls, f"{group}.")]
    lines = [command.component.summary, "", f"Usage: {USAGE.format(command=command.words)}"]
    if command.examples:
        lines += ["", "Examples:", *(f"  {example}" for example in command.examples)]
    if keys:
        lines += ["", "Keys:", *_columns([(f"{key.name}={_shown(key.default)}", key.doc) for key in keys])]
    if root or OVERRIDES in command.keys:
        of = "" if root else " in place of the checkpoint's"
        lines += [
            "",
            f"Groups, set by GROUP=NAME{of}; 'torchloom show GROUP/NAME' lists the keys GROUP.KEY of a choice:",
        ]
        groups = _groups(loader, root or configs.RunConfig)
        lines += _columns([(group, ", ".join(loader.get_group_options(group))) for group in groups])
    once = root is not None and not issubclass(root, configs.RunConfig)
    return "\n".join([*lines, "", "Flags:", *([] if once else [MULTIRUN]), FLAGS])


def _groups(loader: ConfigLoader, root: type[configs.RootConfig]) -> list[str]:
    """Return the groups of a configuration: those of its kinds, and those of presets only that its primary config has."""
    primary = next(source for source in loader.get_sources() if source.is_config(root.primary))
    defaults = OmegaConf.select(primary.load_config(root.primary).config, "defaults")
    listed = {str(key) for one in defaults if isinstance(one, Mapping) for key in one}
    own = registry.current().groups(root)
    return [group for group in loader.list_groups("") if group in own or group in listed]


def _shown(value: object) -> str:
    return value.removeprefix("???") if isinstance(value, str) else json.dumps(value)


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in rows), default=0)
    return [f"  {left:<{width}}  {right}" for left, right in rows]


def _complete(words: list[str]) -> int:
    """Install shell completion, or answer a shell that asks what could follow."""
    if not any(word.startswith("query=") for word in words):
        hydra = App.create("torchloom")
        try:
            hydra.shell_completion(None, words[1:])
        finally:
            hydra.close()
        return 0
    line = os.environ.get("COMP_LINE", "")
    line = line[: int(os.environ.get("COMP_POINT") or len(line))]
    program, _, rest = line.lstrip().partition(" ")
    name, space, rest = rest.lstrip().partition(" ")
    second, further, later = rest.lstrip().partition(" ")
    names = [one for one in registry.current().names("command") if ":" not in one]
    pairs = [one.partition("_")[2] for one in names if one.startswith(f"{name}_")]
    if not space or (pairs and not further):
        firsts = sorted({one.partition("_")[0] for one in names})
        found, begun = (pairs, second) if space else (firsts, name)
        print(" ".join(one for one in found if one.startswith(begun)))
        return 0
    if pairs:
        name, rest = f"{name}_{second}", later
    # Hydra completes the line of an application, which begins behind the command.
    os.environ["COMP_LINE"], os.environ["COMP_POINT"] = f"{program} {rest}", ""
    with contextlib.suppress(TorchloomError):  # half-typed lines are no mistakes
        return _execute(Command.find(name), words)
    return 1
