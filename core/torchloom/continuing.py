"""Going on from a saved configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from torchloom import config_source, registry, schema
from torchloom.checking import article, as_problem, examine, has, openers, text_of, unknown_key
from torchloom.component import Component, Kind
from torchloom.composing import closed, load, loading, name_problem, own_paths, parse, sweep_problem
from torchloom.configs import RunConfig
from torchloom.errors import DuplicateComponentError, Problem, UnknownComponentError
from torchloom.schema import to_plain


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
    parsed, problems = parse(overrides)
    config, unfit = _restore(saved)
    problems += unfit
    for override in parsed:
        if registry.current().group_kind(override.key_or_group) is not None and not isinstance(override.value(), dict):
            problems += _choose(config, override)
    for override in parsed:
        if registry.current().group_kind(override.key_or_group) is None or isinstance(override.value(), dict):
            problems += _set(config, override)
    plain, found = examine(config, hooks=not problems)
    places = {problem.place for problem in problems}
    return closed(plain, [*problems, *(problem for problem in found if problem.place not in places)])


def changed_keys(saved: Mapping[str, Any], new: Mapping[str, Any] | DictConfig) -> list[str]:
    """Return the dotted keys whose values differ, sorted; a key that only one side has differs."""
    # Restored first, so that neither a component's new name nor a key added since then counts as a change.
    before, after = _flat(to_plain(_restore(to_plain(saved))[0])), _flat(to_plain(new))
    return sorted(
        key
        for key in before.keys() | after.keys()
        if key not in before or key not in after or before[key] != after[key]
    )


def _restore(saved: Mapping[str, Any]) -> tuple[DictConfig, list[Problem]]:
    """Rebuild nodes from the names in a saved configuration, so that keys added since then have their defaults."""
    known = registry.current()
    problems: list[Problem] = []
    config = config_source.root_node()
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
                problems.append(as_problem(place, error))
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
        return [sweep_problem(override)]
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
            problems.append(as_problem(line, error))
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
    with loading(own_paths()) as loader:
        options = loader.get_group_options(kind.group, ObjectType.CONFIG)
        if name not in options:
            return Problem(name, *registry.current().unknown(kind.name, name, options))
        form = f"{kind.group}=[{name}]" if kind.many else f"{kind.group}={name}"
        opener = next((f"{registry.current().kinds[one.kind].group}={one.name}" for one in openers(kind.group)), None)
        node = to_plain(load(loader, RunConfig.primary, [form, *([opener] if opener else [])])[kind.group])
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
        return [sweep_problem(override)]
    if key in ("experiment", "debug", "sweep") and not isinstance(override.value(), dict):
        return [Problem(line, f"{article(key)} cannot be chosen for a saved run", "Set single keys.")]
    if key.rpartition(".")[2] == schema.NAME and has(config, key):
        return [name_problem(override)]
    if not has(config, key):
        return [unknown_key(config, key)]
    if override.is_delete():
        return [Problem(line, "a key of a saved run cannot be taken away", f"Write {key}=VALUE.")]
    try:
        OmegaConf.update(config, key, override.value(), merge=True)
    except OmegaConfBaseException as error:
        return [Problem(line, text_of(error))]
    return []


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
