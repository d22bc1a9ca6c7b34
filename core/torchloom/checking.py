"""Saying all that is wrong with a composed configuration at once."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from torchloom import config_source, plugins, registry, schema
from torchloom.component import Component, Kind
from torchloom.configs import RootConfig, RunConfig, SweepConfig
from torchloom.errors import ConfigError, DuplicateComponentError, Problem, UnknownComponentError
from torchloom.schema import to_plain

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra raises for a configuration that it cannot compose; a ValueError for ``group=null``."""


def check(config: DictConfig, root: type[RootConfig] = RunConfig) -> list[Problem]:
    """Return all that is wrong with a composed configuration, whose root keys are those of a class.

    With Hydra's own node still in it, a stray key is traced to the file that sets it.
    """
    return examine(config, root)[1]


def examine(
    config: DictConfig, root: type[RootConfig] = RunConfig, *, hooks: bool = True
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the configuration as plain values of the right types, and all that is wrong with it."""
    problems: list[Problem] = []
    plain = _resolve(config, problems)
    groups = registry.current().groups(root)
    own = {info.name for info in schema.describe_class(root)}
    done: dict[str, Any] = {}

    values = schema.read(root, {key: plain[key] for key in plain if key in own}, "", problems)
    done |= to_plain(values) if values else {}
    extra = {"hydra"}
    if issubclass(root, RunConfig):
        extra.add("sweep")
        done["sweep"] = to_plain(schema.read(SweepConfig, plain.get("sweep", {}), "sweep", problems))
    problems += [unknown_root(key, plain, root) for key in plain if key not in own | extra | set(groups)]

    chosen: list[Component] = []
    for group, kind in groups.items():
        if group not in plain:
            if group in root.required and group not in config:
                problems.append(not_chosen(kind))
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
        problems += _check_slots(chosen, plain, root)
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
                problems.append(Problem(place, text_of(error)))
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
        problems.append(unchosen(kind, place, plain))
        return None, node
    try:
        component = known.get(kind.name, node[schema.NAME])
        instance = schema.to_config(component, node, place)
    except ConfigError as error:
        problems += error.problems
        return component, node
    except (UnknownComponentError, DuplicateComponentError) as error:
        problems.append(as_problem(f"{place}.{schema.NAME}", error))
        return None, node
    return component, {schema.NAME: known.label(component), **to_plain(instance)}


def unchosen(kind: Kind, place: str, plain: Mapping[str, Any]) -> Problem:
    """Return the problem of keys under a component that is not chosen."""
    if openers(kind.group):
        return takes_no(kind.group, place, {group: node for group, node in plain.items() if isinstance(node, Mapping)})
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


def not_chosen(kind: Kind) -> Problem:
    """Return the problem of a group that a configuration must have."""
    names = ", ".join(registry.current().names(kind.name))
    return Problem(kind.group, f"no {kind.name} is chosen", f"Choose with {kind.group}=NAME: {names}.")


def _check_slots(chosen: Sequence[Component], plain: Mapping[str, Any], root: type[RootConfig]) -> list[Problem]:
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
        group
        for group in slots - set(opened) - set(root.borrowed)
        if isinstance(plain.get(group), Mapping) and "name" in plain[group]
    ]
    return problems + [takes_no(group, group, plain) for group in sorted(filled)]


def unknown_key(config: DictConfig, key: str, root: type[RootConfig] = RunConfig) -> Problem:
    """Return the problem of a dotted key that a configuration does not have.

    Args:
        config: The configuration.
        key: The key.
        root: Class of its root keys.
    """
    known = registry.current()
    group, _, rest = key.partition(".")
    kind = known.groups(root).get(group)
    plain = {str(one): node for one, node in config.items_ex(resolve=False)}
    if group == "sweep" and rest and issubclass(root, RunConfig):
        first, _, deeper = rest.partition(".")
        if deeper and first in plain[group]:
            return Problem(key, "no such key yet", f"Write +{key}=VALUE to add it.")
        return schema.unknown_key(SweepConfig, rest, "sweep")
    if kind is None and group in plain:
        return unknown_plain(config, key)
    if kind is None:
        return dataclasses.replace(unknown_root(group, plain, root), place=key)
    place = group
    if kind.many:
        name, _, rest = rest.partition(".")
        place = f"{group}.{name}"
    node = OmegaConf.select(config, place)
    if not isinstance(node, DictConfig) or schema.NAME not in node:
        return dataclasses.replace(unchosen(kind, place, plain), place=key)
    component = known.get(kind.name, node.name)
    first, _, deeper = rest.partition(".")
    if deeper and first in node:
        return unknown_plain(config, key)
    return dataclasses.replace(schema.unknown_component_key(component, first, place), place=key)


def unknown_plain(config: DictConfig, key: str) -> Problem:
    """Return the problem of a dotted key that a mapping does not have, without knowing what the mapping is."""
    parts = key.split(".")
    depth = next(at for at in range(len(parts)) if not has(config, ".".join(parts[: at + 1])))
    node = OmegaConf.select(config, ".".join(parts[:depth])) if depth else config
    if not isinstance(node, DictConfig):
        return Problem(key, f"'{'.'.join(parts[:depth])}' is a value and has no keys")
    keys = [str(one) for one in node if one not in ("hydra", schema.NAME)]
    near = registry.nearest(parts[depth], keys)
    return Problem(key, "no such key", f"Did you mean '{near}'?" if near else f"Keys: {', '.join(keys) or 'none'}.")


def unknown_root(key: str, plain: Mapping[str, Any], root: type[RootConfig]) -> Problem:
    """Return the problem of a key that does not belong at the root."""
    hints = {info.name: f"'{info.name}' ({info.type})" for info in schema.describe_class(root)}
    groups = registry.current().groups(root)
    homes = [f"{group}.{key}" for group in groups if isinstance(plain.get(group), Mapping) and key in plain[group]]
    near = registry.nearest(
        key, [*hints, *(["sweep", "experiment", "debug"] if issubclass(root, RunConfig) else []), *groups]
    )
    if homes:
        mend = f"Did you mean '{homes[0]}'?"
    elif near:
        mend = f"Did you mean {hints.get(near, repr(near))}?"
    else:
        mend = f"Keys at the root: {', '.join(hints)}; groups: {', '.join(groups)}."
    return Problem(key, "no such key", mend)


def openers(group: str) -> list[Component]:
    """Return the components whose choice opens a group."""
    return [component for component in registry.current().components() if group in component.slots]


def takes_no(group: str, place: str, plain: Mapping[str, Any]) -> Problem:
    """Return the problem of a group that no chosen component opens."""
    found = openers(group)
    said = []
    for kind in sorted({component.kind for component in found}):
        node = plain.get(registry.current().kinds[kind].group)
        name = node.get(schema.NAME) if isinstance(node, Mapping) else None
        said.append(f"{kind} '{name}' takes no {group}" if name else f"no chosen {kind} takes {article(group)}")
    kinds = " or ".join(sorted({component.kind for component in found}))
    names = ", ".join(component.name for component in found)
    return Problem(place, " and ".join(said), f"Drop it, or choose {article(kinds)} that does: {names}.")


def several(group: str, line: str) -> Problem:
    """Return the problem of several components in a group that takes one."""
    return Problem(line, f"one {group} is chosen at a time", f"To try several, add -m: {group}=a,b.")


def _stacked(problems: list[Problem], config: DictConfig) -> list[Problem]:
    """Refuse several components in one place, which Hydra merges; the node then is no single component's."""
    if "hydra" not in config:
        return problems
    lines = [str(line) for line in cast(list[Any], OmegaConf.to_container(config.hydra.overrides.task))]
    for line in lines:
        stacked = re.match(r"\+?(\w+)=\[([^\]]*)\]", line)
        kind = registry.current().group_kind(stacked[1]) if stacked else None
        if stacked is None or kind is None:
            continue
        names = [name.strip() for name in stacked[2].split(",")]
        if kind.many:
            found = _repeated(kind, line, names)
            lists = [other for other in lines if other.startswith(f"{kind.group}=")]
            if line.startswith("+") and lists:  # which Hydra passes over in silence
                found.append(Problem(line, f"adds nothing to {lists[-1]}", "Give one list of all."))
        else:
            found = [several(kind.group, line)] if len(names) > 1 else []
        if found:
            others = [problem for problem in problems if problem.place.split(".")[0] != kind.group]
            problems = [*found, *others]
    for path, _, content in _chosen_files(config):
        for default in OmegaConf.select(content, "defaults") or []:
            for key, names in default.items() if isinstance(default, DictConfig) else ():
                kind = registry.current().group_kind(str(key).removeprefix("override ").strip("/ "))
                if kind is not None and kind.many and OmegaConf.is_list(names):
                    problems = [*_repeated(kind, path, list(map(str, names))), *problems]
    return problems


def _repeated(kind: Kind, line: str, names: list[str]) -> list[Problem]:
    """Return the problems of names that a list gives more than once, where each component has one place."""
    return [
        Problem(
            line, f"'{name}' is given {names.count(name)} times, and {kind.group}.{name} is one place", "Give it once."
        )
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _traced(problems: list[Problem], config: DictConfig) -> list[Problem]:
    """Add to each stray key the preset or experiment that sets it, where Hydra's node tells what was chosen."""
    if "hydra" not in config or not any("no such key" in problem.message for problem in problems):
        return problems
    files = list(_chosen_files(config))
    traced = []
    for problem in problems:
        for path, package, content in files:
            inside = problem.place.removeprefix(package)
            if problem.place.startswith(package) and has(content, inside) and "no such key" in problem.message:
                problem = dataclasses.replace(problem, message=f"{problem.message}; {path} sets it")
        traced.append(problem)
    return traced


def _chosen_files(config: DictConfig) -> Iterator[tuple[str, str, DictConfig]]:
    """Yield the presets and experiments that were chosen: file, what its keys stand under, and its content."""
    choices = {group: str(name) for group, name in config.hydra.runtime.choices.items() if name and "/" not in group}
    for source in GlobalHydra.instance().config_loader().get_sources() if GlobalHydra().is_initialized() else []:
        for group, name in choices.items():
            path = f"{group}/{name}"
            if not isinstance(source, config_source.RegistrySource) and source.is_config(path):
                result = source.load_config(path)
                package = "" if result.header["package"] == "_global_" else f"{group}."
                yield f"{path}.yaml", package, cast(DictConfig, result.config)


def has(config: Any, key: str) -> bool:
    """Whether a dotted key is there, whatever its value; keys inside a list are not looked for."""
    node = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or part not in node.keys():  # noqa: SIM118
            return False
        node = node._get_node(part)
    return True


def as_problem(place: str, error: Exception) -> Problem:
    """Return an error as a problem: its first line is what is wrong, the others are the mend."""
    message, _, mend = str(error).partition("\n")
    return Problem(place, message, mend.strip())


def text_of(error: BaseException) -> str:
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


def article(word: str) -> str:
    """Return a word behind its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
