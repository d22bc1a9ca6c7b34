"""Composing a configuration from overrides, and finding all that is wrong with those that Hydra refuses."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from torchloom import config_source, registry, schema
from torchloom.checking import (
    HYDRA_ERRORS,
    article,
    as_problem,
    examine,
    has,
    not_chosen,
    openers,
    several,
    takes_no,
    text_of,
    unknown_key,
    unknown_plain,
)
from torchloom.configs import RootConfig, RunConfig
from torchloom.errors import ConfigError, DuplicateComponentError, Problem, TorchloomError

CONFIG_MODULE = "torchloom_conf"


def compose(overrides: Sequence[str] = (), root: type[RootConfig] = RunConfig) -> DictConfig:
    """Compose the configuration of a run, exactly as the command line does.

    Args:
        overrides: In Hydra's grammar: ``["experiment=cnn", "optimizer.lr=3e-4"]``.
        root: Class of the root keys, where it is not a training run that is composed.

    Returns:
        The configuration, resolved and checked.

    Raises:
        ConfigError: All that is wrong with it.

    Example:
        >>> compose(["architecture=cnn", "dataset=digits"]).architecture.name
        'cnn'
    """
    with loading(own_paths()) as loader:
        try:
            config = load(loader, root.primary, overrides)
        except TorchloomError:
            raise
        except HYDRA_ERRORS as error:
            raise diagnose(overrides, error, root.primary, root) from error
        return finish(config, root)


def finish(config: DictConfig, root: type[RootConfig] = RunConfig) -> DictConfig:
    """Return a composed configuration resolved, with every value of its field's type, and closed to new keys.

    Args:
        config: What Hydra composed; its own node, if still there, is left out.
        root: Class of its root keys.

    Raises:
        ConfigError: All that is wrong with it.
    """
    return closed(*examine(config, root))


def diagnose(
    overrides: Sequence[str],
    error: Exception,
    config_name: str = RunConfig.primary,
    root: type[RootConfig] | None = RunConfig,
) -> ConfigError:
    """Find all that is wrong with overrides that Hydra refused to compose, since Hydra stops at the first.

    Args:
        overrides: In Hydra's grammar.
        error: What Hydra raised.
        config_name: The primary config.
        root: Class of its root keys; None if it has keys of a command only, and no groups.

    Returns:
        The error to raise in its place.
    """
    with loading(frozenset({"registry://"})) as loader:
        problems = _Diagnosis(loader, config_name, root).run(overrides)
    return ConfigError(problems or [Problem("", text_of(error))])


@contextlib.contextmanager
def loading(needs: frozenset[str]) -> Iterator[ConfigLoader]:
    """Give a config loader, and leave no trace.

    Args:
        needs: Search paths by which a Hydra application that is running is known for torchloom's own, to be used again.
    """
    holder = GlobalHydra.instance()
    before = holder.hydra
    if before is not None and needs <= {element.path for element in before.config_loader.get_search_path().get_path()}:
        yield before.config_loader
        return
    config_source.register()
    runtime = JobRuntime.instance()
    name = runtime.get("name") if "name" in runtime.conf else None
    holder.clear()
    try:
        with hydra.initialize_config_module(CONFIG_MODULE, job_name="torchloom", version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = before
        runtime.set("name", name)


def own_paths() -> frozenset[str]:
    """Return the search paths by which a run's configuration is found."""
    return frozenset({"registry://", f"pkg://{CONFIG_MODULE}"})


def load(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose one configuration with Hydra's node in it."""
    return loader.load_configuration(config_name, list(overrides), run_mode=RunMode.RUN, from_shell=False)


def closed(plain: dict[str, Any], problems: list[Problem]) -> DictConfig:
    """Return plain values as a configuration closed to new keys.

    Raises:
        ConfigError: There are problems.
    """
    if problems:
        raise ConfigError(problems)
    made = OmegaConf.create(plain)
    OmegaConf.set_struct(made, True)
    return made


class _Diagnosis:
    """Composes again and again, leaving out what is found wrong, until all of it is found."""

    def __init__(self, loader: ConfigLoader, config_name: str, root: type[RootConfig] | None) -> None:
        self.loader = loader
        self.config_name = config_name
        self.root = root
        self.known = registry.current()
        foreign = {kind.group for kind in self.known.kinds.values()} - set(self.known.groups(root) if root else ())
        self.groups = set(loader.list_groups("")) - {"hydra"} - foreign
        self.slots = {group for component in self.known.components() for group in component.slots}

    def run(self, overrides: Sequence[str]) -> list[Problem]:
        """Return the problems; none if whatever Hydra minded cannot be found again."""
        parsed, problems = parse(overrides)
        bad: set[str] = set()  # groups whose node is not the one that was asked for
        choices: list[str] = []
        slots: list[Override] = []
        values: list[Override] = []
        for override in parsed:
            if override.is_sweep_override():
                problems.append(sweep_problem(override))
                bad.add(override.key_or_group)
            elif override.key_or_group not in self.groups or isinstance(override.value(), dict):
                values.append(override)
            elif found := self._check_choice(override):
                problems += found
                bad.add(override.key_or_group)
            elif override.key_or_group in self.slots:
                slots.append(override)
            else:
                choices.append(str(override.input_line))
        base, good, found = self._add(None, [], choices)
        problems += found
        bad |= {_group(line) for line in choices if line not in good}
        if base is None:
            return problems

        opened: list[str] = []
        for override in slots:
            if override.key_or_group in base:
                opened.append(str(override.input_line))
            elif not bad & {self.known.kinds[one.kind].group for one in openers(override.key_or_group)}:
                problems.append(takes_no(override.key_or_group, str(override.input_line), base))
                bad.add(override.key_or_group)
        base, good, found = self._add(base, good, opened)
        assert base is not None
        problems += found

        lines: list[str] = []
        for override in values:
            if override.key_or_group.split(".")[0] not in bad:
                found = self._check_key(override, base)
                problems += found
                lines += [] if found else [str(override.input_line)]
        whole, _, found = self._add(base, good, lines)
        assert whole is not None
        problems += found
        if self.root is not None:
            left = examine(whole, self.root, hooks=not problems)[1]
            problems += [problem for problem in left if problem.place.split(".")[0] not in bad]
        return problems

    def _check_choice(self, override: Override) -> list[Problem]:
        """Check the names chosen for a group."""
        group, value, line = override.key_or_group, override.value(), str(override.input_line)
        kind = self.known.group_kind(group)
        if override.is_delete() and (kind is None or not kind.many):
            return []
        if override.is_force_add():
            return [Problem(line, "a group is chosen without '++'", f"Write {line[2:]}.")]
        if value is None or override.is_delete():
            mend = f"Write {group}=[]." if kind is not None and kind.many else f"Write '~{group}'."
            return [Problem(line, f"{group} cannot be null", mend)]
        names = value if isinstance(value, list) else [value]
        if len(names) != 1 and not (kind is not None and kind.many):
            return [several(group, line)]
        options = self.loader.get_group_options(group, ObjectType.CONFIG)
        problems = []
        for name in map(str, names):
            if kind is not None and self.known.has(kind.name, name):
                try:
                    self.known.get(kind.name, name)
                except DuplicateComponentError as error:
                    problems.append(as_problem(line, error))
            elif name not in options:
                word = kind.name if kind is not None else group
                problems.append(Problem(line, *self.known.unknown(word, name, options)))
        return problems

    def _add(
        self, base: DictConfig | None, good: list[str], lines: list[str]
    ) -> tuple[DictConfig | None, list[str], list[Problem]]:
        """Compose with further overrides: with all of them, or else with each that goes with those before it.

        Args:
            base: What ``good`` composes to; None if that is not known.
            good: Overrides that compose.
            lines: Further ones.

        Returns:
            The configuration, the overrides in it, and what is wrong with the others.
        """
        if base is not None and not lines:
            return base, good, []
        whole, problems = self._try([*good, *lines])
        if whole is not None:
            return whole, [*good, *lines], []
        if base is None:
            base, hopeless = self._try(good)
            if base is None:
                return None, good, hopeless
        if len(lines) == 1:
            return base, good, problems
        problems = []
        for line in lines:
            more, found = self._try([*good, line])
            problems += found
            if more is not None:
                base, good = more, [*good, line]
        return base, good, problems

    def _try(self, overrides: list[str]) -> tuple[DictConfig | None, list[Problem]]:
        try:
            return load(self.loader, self.config_name, overrides), []
        except ConfigError as error:
            return None, list(error.problems)
        except TorchloomError as error:
            return None, [as_problem("", error)]
        except HYDRA_ERRORS as error:
            return None, [self._misfit(overrides, text_of(error))]

    def _misfit(self, choices: list[str], text: str) -> Problem:
        """Put Hydra's complaint about the defaults list into words."""
        absent = re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text)
        if absent:
            group, name = absent[1], absent[2]
            kind = self.known.group_kind(group)
            options = self.loader.get_group_options(group, ObjectType.CONFIG)
            place = re.match(r"In '([^']+/[^']+)'", text)
            return Problem(
                f"{place[1]}.yaml" if place else f"{group}={name}",
                *self.known.unknown(kind.name if kind else group, name, options),
            )
        inside = re.match(r"In '([^']+)': Could not override '([^'@]+)", text)
        if inside and inside[2] in self.slots:
            found = openers(inside[2])
            names, kinds = ", ".join(one.name for one in found), " or ".join(sorted({one.kind for one in found}))
            return Problem(
                f"{inside[1]}.yaml",
                f"chooses {article(inside[2])}, which no chosen {kinds} takes",
                f"Keep its own {kinds}, or choose one that takes it: {names}.",
            )
        unchosen = re.match(r"You must specify '(\w+)'", text)
        if unchosen and (needed := self.known.group_kind(unchosen[1])):
            return not_chosen(needed)
        outside = re.match(r"Could not override '([^'@]+)'. No match", text)
        if outside:
            line = next((choice for choice in choices if choice.startswith(f"{outside[1]}=")), outside[1])
            return Problem(line, "nothing is chosen for this group that could be replaced", f"Write +{line}.")
        again = re.match(r"Multiple values for ([\w/]+)", text)
        if again:
            line = next((choice for choice in choices if choice.startswith(f"+{again[1]}=")), again[1])
            return Problem(line, "this group is chosen already", f"Write {line.removeprefix('+')} to replace it.")
        return Problem(choices[-1] if choices else "", text)

    def _check_key(self, override: Override, base: DictConfig) -> list[Problem]:
        """Check that a key exists and takes an override of this form."""
        key, line = override.key_or_group, str(override.input_line)
        path, _, last = key.rpartition(".")
        if override.is_hydra_override():
            return []
        if last == schema.NAME and isinstance(OmegaConf.select(base, path), DictConfig):
            return [name_problem(override)]
        if not has(base, key):
            return [unknown_key(base, key, self.root) if self.root is not None else unknown_plain(base, key)]
        if override.is_add() and not override.is_force_add():
            return [Problem(line, "this key is there already", f"Write {line.removeprefix('+')}.")]
        return []


def parse(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Parse overrides one by one, so that each bad one is reported."""
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in overrides:
        try:
            override = parser.parse_overrides([text])[0]
            if not override.key_or_group:
                raise HydraException(text)
            parsed.append(override)
        except HydraException as error:
            problems.append(Problem(text, *_syntax(text, str(error))))
    return parsed, problems


def _syntax(text: str, cause: str) -> tuple[str, str]:
    """Return what is wrong with an override that cannot be parsed, and what to do about it."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        return "is not of the form KEY=VALUE", ""
    lexer = "LexerNoViableAltException: "
    lines = cause.splitlines()
    where = f"character {len(lines[1]) - len(lexer)}" if cause.startswith(lexer) else lines[0]
    quoted = shlex.quote(f"{key}={_quoted(value)}")
    return f"cannot be read ({where})", f"Quote what has special characters: {quoted}."


def _quoted(value: str) -> str:
    """Return a text in the quotes of the overrides' grammar."""
    bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] in "\"'" else value
    return QuotedString(bare, Quote.double).with_quotes()


def name_problem(override: Override) -> Problem:
    """Return the problem of an override that sets a component's name."""
    group = override.key_or_group.split(".")[0]
    mend = f"Choose with {group}={override.value()}."
    return Problem(str(override.input_line), "a component's name is not a setting", mend)


def sweep_problem(override: Override) -> Problem:
    """Return the problem of several values where one is taken."""
    key, value = override.key_or_group, override.get_value_string()
    return Problem(
        str(override.input_line),
        "gives several values to one run",
        f"To try each of them, add -m; for a list, write '{key}=[{value}]'; for a text, write '{key}=\"{value}\"'.",
    )


def _group(line: str) -> str:
    return line.partition("=")[0].strip("+~")
