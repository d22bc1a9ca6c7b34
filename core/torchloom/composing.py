"""Composing a run's configuration, and saying all that is wrong with one at once."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from torchloom import config_source, plugins, registry, schema
from torchloom.component import Component, Kind
from torchloom.configs import RunConfig, SweepConfig
from torchloom.errors import ConfigError, DuplicateComponentError, Problem, TorchloomError, UnknownComponentError
from torchloom.schema import to_plain

__all__ = ["changed_keys", "check", "compose", "continue_config", "diagnose", "finish", "to_plain"]

CONFIG_MODULE = "torchloom_conf"
PRIMARY = "config"
"""Name of the primary config of a run."""
REQUIRED = ("dataset", "architecture", "objective", "optimizer", "scheduler", "parallel", "trainer")
"""Groups without which there is no run."""

_HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # Hydra raises ValueError for `group=null`


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a run, exactly as the command line does.

    Args:
        overrides: In Hydra's grammar: ``["experiment=cnn", "optimizer.lr=3e-4"]``.

    Returns:
        The configuration, resolved and checked.

    Raises:
        ConfigError: All that is wrong with it.

    Example:
        >>> compose(["architecture=cnn", "dataset=digits"]).architecture.name
        'cnn'
    """
    with _hydra(_own_paths()) as loader:
        try:
            config = _load(loader, PRIMARY, overrides)
        except TorchloomError:
            raise
        except _HYDRA_ERRORS as error:
            raise diagnose(overrides, error) from error
        return finish(config)


def finish(config: DictConfig) -> DictConfig:
    """Return a composed configuration resolved, with every value of its field's type, and closed to new keys.

    Args:
        config: What Hydra composed; its own node, if still there, is left out.

    Raises:
        ConfigError: All that is wrong with it.
    """
    return _closed(*_examine(config))


def check(config: DictConfig) -> list[Problem]:
    """Return all that is wrong with a composed configuration.

    With Hydra's own node still in it, a stray key is traced to the file that sets it.
    """
    return _examine(config)[1]


def diagnose(overrides: Sequence[str], error: Exception, config_name: str = PRIMARY) -> ConfigError:
    """Find all that is wrong with overrides that Hydra refused to compose, since Hydra stops at the first.

    Args:
        overrides: In Hydra's grammar.
        error: What Hydra raised.
        config_name: The primary config.

    Returns:
        The error to raise in its place.
    """
    with _hydra(frozenset({"registry://"})) as loader:
        problems = _Diagnosis(loader, config_name).run(overrides)
    return ConfigError(problems or [Problem("", _text(error))])


def continue_config(saved: Mapping[str, Any], overrides: Sequence[str] = ()) -> DictConfig:
    """Rebuild a saved configuration from the names in it, and apply overrides.

    Args:
        saved: A configuration as `to_plain` gave it. Renamed components are found by their former names.
        overrides: In Hydra's grammar. ``group=choice`` puts the defaults of another component, or a preset, in a node's
            place.

    Returns:
        The configuration, resolved and checked.

    Raises:
        ConfigError: All that is wrong with it.
    """
    parsed, problems = _parse(overrides)
    config, unfit = _restore(saved)
    problems += unfit
    for override in parsed:
        if registry.current().group_kind(override.key_or_group) is not None and not isinstance(override.value(), dict):
            problems += _choose(config, override)
    for override in parsed:
        if registry.current().group_kind(override.key_or_group) is None or isinstance(override.value(), dict):
            problems += _set(config, override)
    plain, found = _examine(config, hooks=not problems)
    places = {problem.place for problem in problems}
    return _closed(plain, [*problems, *(problem for problem in found if problem.place not in places)])


def changed_keys(saved: Mapping[str, Any], new: Mapping[str, Any] | DictConfig) -> list[str]:
    """Return the dotted keys whose values differ, sorted; a key that only one side has differs."""
    # Restored first, so that neither a component's new name nor a key added since then counts as a change.
    before, after = _flat(to_plain(_restore(to_plain(saved))[0])), _flat(to_plain(new))
    return sorted(
        key
        for key in before.keys() | after.keys()
        if key not in before or key not in after or before[key] != after[key]
    )


@contextlib.contextmanager
def _hydra(needs: frozenset[str]) -> Iterator[ConfigLoader]:
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


def _own_paths() -> frozenset[str]:
    return frozenset({"registry://", f"pkg://{CONFIG_MODULE}"})


def _load(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> DictConfig:
    return loader.load_configuration(config_name, list(overrides), run_mode=RunMode.RUN, from_shell=False)


def _closed(plain: dict[str, Any], problems: list[Problem]) -> DictConfig:
    if problems:
        raise ConfigError(problems)
    made = OmegaConf.create(plain)
    OmegaConf.set_struct(made, True)
    return made


# ---------------------------------------------------------------------------------------------- checking a whole config


def _examine(config: DictConfig, *, hooks: bool = True) -> tuple[dict[str, Any], list[Problem]]:
    """Return the configuration as plain values of the right types, and all that is wrong with it."""
    problems: list[Problem] = []
    plain = _resolve(config, problems)
    known = registry.current()
    groups = {kind.group: kind for kind in known.kinds.values() if kind.configurable}
    run_keys = {field.name for field in dataclasses.fields(RunConfig)}
    done: dict[str, Any] = {}

    root = schema.read(RunConfig, {key: plain[key] for key in plain if key in run_keys}, "", problems)
    done |= to_plain(root) if root else {}
    sweep = schema.read(SweepConfig, plain.get("sweep", {}), "sweep", problems)
    done["sweep"] = to_plain(sweep)
    problems += [_unknown_root(key, plain) for key in plain if key not in run_keys | {"sweep", "hydra"} | set(groups)]

    chosen: list[Component] = []
    for group, kind in groups.items():
        if group not in plain:
            if group in REQUIRED and group not in config:
                problems.append(Problem(group, f"no {kind.name} is chosen", f"Choose with {group}=NAME."))
            continue
        if kind.many and not isinstance(plain[group], Mapping):
            problems.append(Problem(group, "is not a mapping of names", f"Write {group}=[]."))
            continue
        nodes = {f"{group}.{key}": node for key, node in plain[group].items()} if kind.many else {group: plain[group]}
        made = {}
        for place, node in nodes.items():
            component, values = _examine_node(kind, node, place, plain, problems)
            chosen += [component] if component else []
            made[place.rpartition(".")[2]] = values
        done[group] = made if kind.many else made[group]

    if all(key in plain for key in config if key != "hydra"):  # an unreadable node may be the one that opens a group
        problems += _check_slots(chosen, plain)
    problems = _stacked(_traced(problems, config), config)
    if hooks and not problems:
        ready = OmegaConf.create(done)
        with flag_override(ready, "readonly", True):
            problems = plugins.manager().check_config(ready)
    return done, problems


def _resolve(config: DictConfig, problems: list[Problem]) -> dict[str, Any]:
    """Return the configuration without Hydra's node as plain containers, every interpolation filled in."""
    plain: dict[str, Any] = {}
    with _hydra_node_of(config):
        for key in config:
            node = config._get_node(key)
            if key == "hydra":
                continue
            try:
                whole = OmegaConf.is_config(node) and not cast(DictConfig, node)._is_none()
                plain[str(key)] = OmegaConf.to_container(cast(DictConfig, node), resolve=True) if whole else config[key]
            except OmegaConfBaseException as error:
                place = getattr(error, "full_key", None) or str(key)
                problems.append(Problem(place, _text(error)))
    return plain


@contextlib.contextmanager
def _hydra_node_of(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` look into Hydra's node where it is still in the config; Hydra itself does so in a job only."""
    holder = HydraConfig.instance()
    before = holder.cfg
    if "hydra" in config:
        holder.cfg = OmegaConf.masked_copy(config, "hydra")  # type: ignore[assignment] # as HydraConfig.set_config does
    try:
        yield
    finally:
        holder.cfg = before


def _examine_node(
    kind: Kind, node: Any, place: str, plain: Mapping[str, Any], problems: list[Problem]
) -> tuple[Component | None, Any]:
    """Check one component's node; return the component, and the node with values of the right types."""
    known = registry.current()
    if not isinstance(node, Mapping) or not isinstance(node.get(schema.NAME), str):
        problems.append(_unchosen(kind, place, plain))
        return None, node
    try:
        component = known.get(kind.name, node[schema.NAME])
        instance = schema.to_config(component, node, place)
    except ConfigError as error:
        problems += error.problems
        return component, node
    except (UnknownComponentError, DuplicateComponentError) as error:
        problems.append(_as_problem(f"{place}.{schema.NAME}", error))
        return None, node
    return component, {schema.NAME: known.label(component), **to_plain(instance)}


def _unchosen(kind: Kind, place: str, plain: Mapping[str, Any]) -> Problem:
    """Return the problem of keys under a component that is not chosen."""
    openers = _openers(kind.group)
    if openers:
        return _takes_no(kind.group, place, {group: node for group, node in plain.items() if isinstance(node, Mapping)})
    if kind.many:
        name = place.partition(".")[2]
        chosen = [
            key for key, node in plain.get(kind.group, {}).items() if isinstance(node, Mapping) and "name" in node
        ]
        return Problem(
            place,
            f"{kind.name} '{name}' is not chosen",
            f"Choose it with {kind.group}=[{','.join([*chosen, name])}], or drop the key.",
        )
    return Problem(place, f"no {kind.name} is chosen", f"Choose with {place}=NAME.")


def _check_slots(chosen: Sequence[Component], plain: Mapping[str, Any]) -> list[Problem]:
    """Compare the groups that the chosen components open with those that are filled."""
    opened = {group: component for component in chosen for group in component.slots}
    slots = {group for component in registry.current().components() for group in component.slots}
    problems = [
        Problem(
            group,
            f"{component.kind} '{component.name}' needs one, and none is chosen",
            f"Choose with {group}=NAME, such as {group}={component.slots[group]}.",
        )
        for group, component in opened.items()
        if group not in plain
    ]
    filled = [
        group for group in slots - set(opened) if isinstance(plain.get(group), Mapping) and "name" in plain[group]
    ]
    return problems + [_takes_no(group, group, plain) for group in sorted(filled)]


def _openers(group: str) -> list[Component]:
    return [component for component in registry.current().components() if group in component.slots]


def _takes_no(group: str, place: str, plain: Mapping[str, Any]) -> Problem:
    """Return the problem of a group that no chosen component opens."""
    openers = _openers(group)
    said = []
    for kind in sorted({component.kind for component in openers}):
        node = plain.get(registry.current().kinds[kind].group)
        name = node.get(schema.NAME) if isinstance(node, Mapping) else None
        said.append(f"{kind} '{name}' takes no {group}" if name else f"no chosen {kind} takes {_article(group)}")
    kinds = " or ".join(sorted({component.kind for component in openers}))
    names = ", ".join(component.name for component in openers)
    return Problem(place, " and ".join(said), f"Drop it, or choose {_article(kinds)} that does: {names}.")


def _unknown_root(key: str, plain: Mapping[str, Any]) -> Problem:
    """Return the problem of a key that does not belong at the root."""
    hints = {info.name: f"'{info.name}' ({info.type})" for info in schema.describe_class(RunConfig)}
    groups = [kind.group for kind in registry.current().kinds.values() if kind.configurable]
    homes = [f"{group}.{key}" for group in groups if isinstance(plain.get(group), Mapping) and key in plain[group]]
    near = registry.nearest(key, [*hints, "sweep", "experiment", "debug", *groups])
    if homes:
        mend = f"Did you mean '{homes[0]}'?"
    elif near:
        mend = f"Did you mean {hints.get(near, repr(near))}?"
    else:
        mend = f"Keys at the root: {', '.join(hints)}; groups: {', '.join(groups)}."
    return Problem(key, "no such key", mend)


def _several(group: str, line: str) -> Problem:
    return Problem(line, f"one {group} is chosen at a time", f"To try several, add -m: {group}=a,b.")


def _stacked(problems: list[Problem], config: DictConfig) -> list[Problem]:
    """Refuse several components in one place, which Hydra merges; the node then is no single component's."""
    if "hydra" not in config:
        return problems
    for line in map(str, cast(list[Any], OmegaConf.to_container(config.hydra.overrides.task))):
        stacked = re.match(r"\+?(\w+)=\[[^\]]*,", line)
        kind = registry.current().group_kind(stacked[1]) if stacked else None
        if kind is not None and not kind.many:
            others = [problem for problem in problems if problem.place.split(".")[0] != kind.group]
            problems = [_several(kind.group, line), *others]
    return problems


def _traced(problems: list[Problem], config: DictConfig) -> list[Problem]:
    """Add to each stray key the preset or experiment that sets it, where Hydra's node tells what was chosen."""
    if "hydra" not in config or not any("no such key" in problem.message for problem in problems):
        return problems
    choices = {group: str(name) for group, name in config.hydra.runtime.choices.items() if name and "/" not in group}
    files = []
    for source in GlobalHydra.instance().config_loader().get_sources() if GlobalHydra().is_initialized() else []:
        for group, name in choices.items():
            path = f"{group}/{name}"
            if not isinstance(source, config_source.RegistrySource) and source.is_config(path):
                result = source.load_config(path)
                package = "" if result.header["package"] == "_global_" else f"{group}."
                files.append((f"{path}.yaml", package, result.config))
    traced = []
    for problem in problems:
        for path, package, content in files:
            inside = problem.place.removeprefix(package)
            if problem.place.startswith(package) and _has(content, inside) and "no such key" in problem.message:
                problem = dataclasses.replace(problem, message=f"{problem.message}; {path} sets it")
        traced.append(problem)
    return traced


# --------------------------------------------------------------------------------------------- diagnosing bad overrides


class _Diagnosis:
    """Composes again and again, leaving out what is found wrong, until all of it is found."""

    def __init__(self, loader: ConfigLoader, config_name: str) -> None:
        self.loader = loader
        self.config_name = config_name
        self.known = registry.current()
        self.groups = set(loader.list_groups("")) - {"hydra"}
        self.slots = {group for component in self.known.components() for group in component.slots}

    def run(self, overrides: Sequence[str]) -> list[Problem]:
        """Return the problems; none if whatever Hydra minded cannot be found again."""
        parsed, problems = _parse(overrides)
        bad: set[str] = set()  # groups whose node is not the one that was asked for
        choices: list[str] = []
        slots: list[Override] = []
        values: list[Override] = []
        for override in parsed:
            if override.is_sweep_override():
                problems.append(_sweep_problem(override))
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
            elif not bad & {self.known.kinds[one.kind].group for one in _openers(override.key_or_group)}:
                problems.append(_takes_no(override.key_or_group, str(override.input_line), base))
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
        if self.config_name == PRIMARY:
            left = _examine(whole, hooks=not problems)[1]
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
            return [_several(group, line)]
        options = self.loader.get_group_options(group, ObjectType.CONFIG)
        problems = []
        for name in map(str, names):
            if kind is not None and self.known.has(kind.name, name):
                try:
                    self.known.get(kind.name, name)
                except DuplicateComponentError as error:
                    problems.append(_as_problem(line, error))
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
            return _load(self.loader, self.config_name, overrides), []
        except ConfigError as error:
            return None, list(error.problems)
        except TorchloomError as error:
            return None, [_as_problem("", error)]
        except _HYDRA_ERRORS as error:
            return None, [self._misfit(overrides, _text(error))]

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
            openers = _openers(inside[2])
            names, kinds = ", ".join(one.name for one in openers), " or ".join(sorted({one.kind for one in openers}))
            return Problem(
                f"{inside[1]}.yaml",
                f"chooses {_article(inside[2])}, which no chosen {kinds} takes",
                f"Keep its own {kinds}, or choose one that takes it: {names}.",
            )
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
            return [_name_problem(override)]
        if not _has(base, key):
            return [unknown_key(base, key) if self.config_name == PRIMARY else _unknown_plain(base, key)]
        if override.is_add() and not override.is_force_add():
            return [Problem(line, "this key is there already", f"Write {line.removeprefix('+')}.")]
        return []


def unknown_key(config: DictConfig, key: str) -> Problem:
    """Return the problem of a dotted key that a run's configuration does not have.

    Args:
        config: The configuration.
        key: The key.
    """
    known = registry.current()
    group, _, rest = key.partition(".")
    kind = known.group_kind(group)
    plain = {str(one): node for one, node in config.items_ex(resolve=False)}
    if group == "sweep" and rest:
        first, _, deeper = rest.partition(".")
        if deeper and first in plain[group]:
            return Problem(key, "no such key yet", f"Write +{key}=VALUE to add it.")
        return schema.unknown_key(SweepConfig, rest, "sweep")
    if kind is None and group in plain:
        return _unknown_plain(config, key)
    if kind is None:
        return dataclasses.replace(_unknown_root(group, plain), place=key)
    place = group
    if kind.many:
        name, _, rest = rest.partition(".")
        place = f"{group}.{name}"
    node = OmegaConf.select(config, place)
    if not isinstance(node, DictConfig) or schema.NAME not in node:
        return dataclasses.replace(_unchosen(kind, place, plain), place=key)
    component = known.get(kind.name, node.name)
    first, _, deeper = rest.partition(".")
    if deeper and first in node:
        return _unknown_plain(config, key)
    return dataclasses.replace(schema.unknown_component_key(component, first, place), place=key)


def _unknown_plain(config: DictConfig, key: str) -> Problem:
    """Return the problem of a dotted key that a mapping does not have, without knowing what the mapping is."""
    parts = key.split(".")
    depth = next(at for at in range(len(parts)) if not _has(config, ".".join(parts[: at + 1])))
    node = OmegaConf.select(config, ".".join(parts[:depth])) if depth else config
    if not isinstance(node, DictConfig):
        return Problem(key, f"'{'.'.join(parts[:depth])}' is a value and has no keys")
    keys = [str(one) for one in node if one not in ("hydra", schema.NAME)]
    near = registry.nearest(parts[depth], keys)
    return Problem(key, "no such key", f"Did you mean '{near}'?" if near else f"Keys: {', '.join(keys) or 'none'}.")


def _parse(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
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
    return f"cannot be read ({where})", f"Quote what has special characters: '{key}=\"{value}\"'."


def _name_problem(override: Override) -> Problem:
    group = override.key_or_group.split(".")[0]
    mend = f"Choose with {group}={override.value()}."
    return Problem(str(override.input_line), "a component's name is not a setting", mend)


def _group(line: str) -> str:
    return line.partition("=")[0].strip("+~")


def _sweep_problem(override: Override) -> Problem:
    key, value = override.key_or_group, override.get_value_string()
    return Problem(
        str(override.input_line),
        "gives several values to one run",
        f"To try each of them, add -m; for a list, write '{key}=[{value}]'; for a text, write '{key}=\"{value}\"'.",
    )


# ----------------------------------------------------------------------------------------------- continuing a saved run


def _restore(saved: Mapping[str, Any]) -> tuple[DictConfig, list[Problem]]:
    """Rebuild nodes from the names in a saved configuration, so that keys added since then have their defaults."""
    known = registry.current()
    problems: list[Problem] = []
    config = config_source.run_node()
    for key, node in saved.items():
        kind = known.group_kind(key)
        if kind is None:
            config[key] = node
            continue
        several = kind.many and isinstance(node, Mapping)
        for name, values in node.items() if several else [(key, node)]:
            place = f"{key}.{name}" if several else key
            if not isinstance(values, Mapping) or not isinstance(values.get(schema.NAME), str):
                problems.append(Problem(place, f"does not say which {kind.name} it is", "It needs a key 'name'."))
                continue
            try:
                component = known.get(kind.name, values[schema.NAME])
            except (UnknownComponentError, DuplicateComponentError) as error:
                problems.append(_as_problem(place, error))
                continue
            _put(config, kind, component, {one: values[one] for one in values if one != schema.NAME})
    OmegaConf.set_struct(config, True)
    return config, problems


def _put(config: DictConfig, kind: Kind, component: Component, values: Mapping[str, Any]) -> None:
    """Put a component's node with these values into a configuration."""
    node = schema.make_node(component)
    with flag_override(node, "struct", False):
        node.pop("defaults", None)
        node.merge_with(values)
    place = f"{kind.group}.{component.name}" if kind.many else kind.group
    OmegaConf.update(config, place, node, merge=False, force_add=True)


def _choose(config: DictConfig, override: Override) -> list[Problem]:
    """Apply ``group=choice`` to a restored configuration."""
    known = registry.current()
    group, line = override.key_or_group, str(override.input_line)
    kind = known.group_kind(group)
    assert kind is not None
    if override.is_sweep_override():
        return [_sweep_problem(override)]
    value = override.value()
    names = [str(name) for name in (value if isinstance(value, list) else [value])]
    if not kind.many and (len(names) != 1 or override.is_delete() or value is None):
        return [Problem(line, f"one {group} is needed", f"Choose with {group}=NAME.")]
    if kind.many and not override.is_add():
        OmegaConf.update(config, group, {}, merge=False, force_add=True)
    if override.is_delete() or value is None:
        return []
    problems = []
    for name in names:
        try:
            components = [known.get(kind.name, name)]
            values: list[Any] = [{}]
        except DuplicateComponentError as error:
            problems.append(_as_problem(line, error))
            continue
        except UnknownComponentError:
            found = _preset(kind, name)
            if isinstance(found, Problem):
                problems.append(dataclasses.replace(found, place=line))
                continue
            components = [known.get(kind.name, node[schema.NAME]) for node in found]
            values = [{key: one for key, one in node.items() if key != schema.NAME} for node in found]
        for component, given in zip(components, values, strict=True):
            before = config.get(group)
            old = known.get(kind.name, before.name) if not kind.many and before is not None else None
            _put(config, kind, component, given)
            _move_slots(config, old, component)
    return problems


def _preset(kind: Kind, name: str) -> list[dict[str, Any]] | Problem:
    """Return the nodes that a YAML preset gives."""
    with _hydra(_own_paths()) as loader:
        options = loader.get_group_options(kind.group, ObjectType.CONFIG)
        if name not in options:
            return Problem(name, *registry.current().unknown(kind.name, name, options))
        form = f"{kind.group}=[{name}]" if kind.many else f"{kind.group}={name}"
        opener = next((f"{registry.current().kinds[one.kind].group}={one.name}" for one in _openers(kind.group)), None)
        node = to_plain(_load(loader, PRIMARY, [form, *([opener] if opener else [])])[kind.group])
    return list(node.values()) if kind.many else [node]


def _move_slots(config: DictConfig, old: Component | None, new: Component) -> None:
    """Close the groups that only the former component opened, and open the new one's."""
    known = registry.current()
    for group in set(old.slots if old else ()) - set(new.slots):
        with flag_override(config, "struct", False):
            config.pop(group, None)
    for group, choice in new.slots.items():
        kind = known.group_kind(group)
        if group not in config and kind is not None:
            _put(config, kind, known.get(kind.name, choice), {})


def _set(config: DictConfig, override: Override) -> list[Problem]:
    """Apply a value override to a restored configuration."""
    key, line = override.key_or_group, str(override.input_line)
    if override.is_hydra_override():
        return []
    if override.is_sweep_override():
        return [_sweep_problem(override)]
    if key in ("experiment", "debug", "sweep") and not isinstance(override.value(), dict):
        return [Problem(line, f"{_article(key)} cannot be chosen for a saved run", "Set single keys.")]
    if key.rpartition(".")[2] == schema.NAME and _has(config, key):
        return [_name_problem(override)]
    if not _has(config, key):
        return [unknown_key(config, key)]
    if override.is_delete():
        return [Problem(line, "a key of a saved run cannot be taken away", f"Write {key}=VALUE.")]
    try:
        OmegaConf.update(config, key, override.value(), merge=True)
    except OmegaConfBaseException as error:
        return [Problem(line, _text(error))]
    return []


# -------------------------------------------------------------------------------------------------------------- helpers


def _has(config: Any, key: str) -> bool:
    """Whether a dotted key is there, whatever its value; keys inside a list are not looked for."""
    node = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or part not in node.keys():  # noqa: SIM118
            return False
        node = node._get_node(part)
    return True


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _as_problem(place: str, error: Exception) -> Problem:
    message, _, mend = str(error).partition("\n")
    return Problem(place, message, mend.strip())


def _text(error: BaseException) -> str:
    """Return the message of a Hydra or OmegaConf error without the object types and search paths it ends in."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    said = next((str(one) for one in reversed(causes) if str(one)), type(error).__name__)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    kept = []
    for line in lines:
        if re.match(r"(full_key|object_type|reference_type|Config search path|Search path|To append)\b", line):
            break
        kept.append(line)
    return " ".join(kept[:4]) or type(error).__name__


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
