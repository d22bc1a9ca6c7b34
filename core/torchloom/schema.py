"""From config dataclasses to Hydra nodes and back, with every value checked against the dataclass.

A node is a plain mapping of the dataclass's defaults, so that Hydra composes whatever it is given, and all that is
wrong with the result is found here, together: unknown keys, types, choices and ranges.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

from omegaconf import DictConfig, Node, OmegaConf

from torchloom import registry
from torchloom.component import Component
from torchloom.errors import ConfigError, PluginError, Problem

NAME = "name"
"""Key of every component's node that holds the component's name."""

T = TypeVar("T")
_MISSING = "???"  # OmegaConf's mark of a value that must be given


@dataclasses.dataclass(frozen=True)
class FieldInfo:
    """One field of a config dataclass, in words.

    Attributes:
        name: Its key; dotted within nested dataclasses.
        type: ``"int"``, ``"one of: a, b"``, ``"float or null"``.
        default: Plain value; ``"???"`` if it must be given.
        doc: What it does.
        range: ``">= 1, < 10"``; empty if unlimited.
        unit: Unit of the value.
        source: Paper or code the default comes from.
    """

    name: str
    type: str
    default: Any
    doc: str
    range: str
    unit: str
    source: str


def make_node(component: Component) -> DictConfig:
    """Return a component's node: its name, its defaults and, if it opens groups, the defaults list that fills them.

    Raises:
        PluginError: Its config class cannot be imported or is not fit to be one.
    """
    node = copy.deepcopy(_defaults(_checked_class(component)))
    slots = [{f"/{group}@_global_.{group}": choice} for group, choice in component.slots.items()]
    head: dict[str, Any] = {"defaults": [*slots, "_self_"]} if slots else {}
    made = OmegaConf.create({**head, NAME: registry.current().label(component), **node})
    name = made._get_node(NAME)
    assert isinstance(name, Node)
    name._set_flag("readonly", True)  # a component is chosen by its group, never by writing its name
    return made


def check_node(component: Component, node: Any, place: str = "") -> list[Problem]:
    """Return everything wrong with a component's node.

    Args:
        component: The component that the node is for.
        node: A mapping; the key ``name`` is not looked at.
        place: Dotted key of the node, for messages; the kind's group unless given.
    """
    return _read_node(component, node, place)[1]


def to_config(component: Component, node: Any, place: str = "") -> Any:
    """Return the config dataclass instance that a node describes, nested dataclasses included.

    Args:
        component: The component that the node is for.
        node: A mapping; keys that are absent take their defaults.
        place: Dotted key of the node, for messages; the kind's group unless given.

    Raises:
        ConfigError: Everything that is wrong with the node.
    """
    instance, problems = _read_node(component, node, place)
    if problems:
        raise ConfigError(problems)
    return instance


def describe(component: Component) -> list[FieldInfo]:
    """Return what `torchloom show` says about a component's fields, those of nested dataclasses behind their own."""
    return describe_class(_checked_class(component))


def describe_class(cls: type[Any], prefix: str = "") -> list[FieldInfo]:
    """Return the fields of any config dataclass, in words."""
    found = []
    for name, field in _fields(cls).items():
        meta = field.metadata
        info = FieldInfo(
            name=prefix + name,
            type=type_text(_hints(cls)[name]),
            default=_defaults(cls).get(name, _MISSING),
            doc=meta.get("doc", ""),
            range=_range_text(meta),
            unit=meta.get("unit", ""),
            source=meta.get("source", ""),
        )
        inner = _dataclass_of(_hints(cls)[name])
        found += describe_class(inner, f"{prefix}{name}.") if inner else [info]
    return found


def read(
    cls: type[T],
    values: Any,
    place: str,
    problems: list[Problem],
    unknown: Callable[[str], Problem] | None = None,
) -> T | None:
    """Build a config dataclass from plain values.

    Args:
        cls: The dataclass.
        values: A mapping; keys that are absent take their defaults.
        place: Dotted key of the mapping, for messages; empty for the root.
        problems: Takes whatever is wrong.
        unknown: Says what is wrong with a key that the dataclass does not have.

    Returns:
        The instance; None if there was anything wrong.
    """
    before = len(problems)
    if not isinstance(values, Mapping):
        problems.append(Problem(place, f"{_shown(values)} is not a mapping", f"Keys: {', '.join(_fields(cls))}."))
        return None
    ready = {}
    for key, value in values.items():
        at = f"{place}.{key}" if place else str(key)
        if key not in _fields(cls):
            problems.append(unknown(str(key)) if unknown else unknown_key(cls, str(key), place))
            continue
        ready[key] = _convert(_hints(cls)[key], value, at, _fields(cls)[key].metadata, problems)
    for key, field in _fields(cls).items():
        if key not in values and field.default is field.default_factory is dataclasses.MISSING:
            problems.append(Problem(f"{place}.{key}" if place else key, "is needed and not given"))
    return cls(**ready) if len(problems) == before else None


def unknown_key(cls: type[Any], key: str, place: str, owner: str = "") -> Problem:
    """Return the problem of a key that a config dataclass does not have.

    Args:
        cls: The dataclass.
        key: The key.
        place: Dotted key of the mapping it stands in.
        owner: What has no such key, such as ``"architecture 'cnn'"``.
    """
    near = registry.nearest(key, _fields(cls))
    mend = (
        f"Did you mean '{near}' ({type_text(_hints(cls)[near])})?"
        if near
        else f"Keys: {', '.join(_fields(cls)) or 'none'}."
    )
    return Problem(f"{place}.{key}" if place else key, f"{owner} has no such key" if owner else "no such key", mend)


def to_plain(value: Any) -> Any:
    """Return a configuration as plain containers, strings, numbers, booleans and None, safe inside any checkpoint.

    Args:
        value: A DictConfig (interpolations are resolved), a config dataclass, or anything made of them.
    """
    if OmegaConf.is_config(value):
        return to_plain(OmegaConf.to_container(value, resolve=True, enum_to_str=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def type_text(hint: Any) -> str:
    """Return a type in words: ``"int"``, ``"one of: a, b"``, ``"list of int"``, ``"float or null"``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of: {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else type_text(arg) for arg in args)
    if origin in (list, tuple):
        inner = [type_text(arg) for arg in args if arg is not Ellipsis]
        return f"list of {', '.join(inner)}" if inner else "list"
    if origin is dict:
        return f"mapping of {type_text(args[0])} to {type_text(args[1])}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of: {', '.join(hint.__members__)}"
    if hint is Any:
        return "anything"
    return {str: "str", Path: "path"}.get(hint, getattr(hint, "__name__", str(hint)))


def unknown_component_key(component: Component, key: str, place: str) -> Problem:
    """Return the problem of a key that a component does not have, naming the components that would have taken it."""
    known = registry.current()
    owner = f"{component.kind} '{component.name}'"
    takers = [
        other.name
        for other in known.components(component.kind)
        if other is not component and key in _fields_or_none(other)
    ]
    if takers:
        return Problem(
            f"{place}.{key}",
            f"{owner} has no such key",
            f"'{key}' belongs to {', '.join(takers)}; the chosen {component.kind} is {component.name}.",
        )
    return unknown_key(known.config_class(component), key, place, owner)


def _read_node(component: Component, node: Any, place: str) -> tuple[Any, list[Problem]]:
    known = registry.current()
    place = place or known.kinds[component.kind].group
    problems: list[Problem] = []
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if isinstance(plain, Mapping):
        plain = {key: value for key, value in plain.items() if key != NAME}
    unknown = functools.partial(unknown_component_key, component, place=place)
    return read(_checked_class(component), plain, place, problems, unknown), problems


def _checked_class(component: Component) -> type[Any]:
    """Return a component's config class, which has been found fit to be one.

    Raises:
        PluginError: It is not a dataclass, or has a field that nodes reserve.
    """
    cls = registry.current().config_class(component)
    said = f"{component.config}, the config of {component.kind} '{component.name}',"
    if not dataclasses.is_dataclass(cls):
        raise PluginError(f"{said} is not a dataclass")
    reserved = {NAME, "defaults"} & set(_fields(cls))
    if reserved:
        raise PluginError(f"{said} may not have a field called '{min(reserved)}'")
    return cls


def _fields_or_none(component: Component) -> Sequence[str]:
    """Return the keys of a component that the user did not ask for, so a broken one has none."""
    try:
        return list(_fields(_checked_class(component)))
    except PluginError:
        return []


def _cached(function: Callable[[type[Any]], T]) -> Callable[[type[Any]], T]:
    """Cache by class; `functools.cache` alone takes no ``type[Any]`` for hashable."""
    return cast(Callable[[type[Any]], T], functools.cache(function))


@_cached
def _fields(cls: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


@_cached
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@_cached
def _defaults(cls: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in _fields(cls).items():
        if field.default is not dataclasses.MISSING:
            found[name] = to_plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[name] = to_plain(field.default_factory())
        else:
            found[name] = _MISSING
    return found


def _dataclass_of(hint: Any) -> type[Any] | None:
    """Return the dataclass that a field holds, directly or optionally."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((one for one in options if isinstance(one, type) and dataclasses.is_dataclass(one)), None)


def _convert(hint: Any, value: Any, place: str, meta: Mapping[str, Any], problems: list[Problem]) -> Any:
    """Return a plain value as its field's type wants it; what does not fit becomes a problem."""
    if value == _MISSING and isinstance(value, str):
        problems.append(Problem(place, "is needed and not given", f"Add {place}=VALUE ({type_text(hint)})."))
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, place, meta, problems)
    if origin is Literal:
        return _convert_choice(args, value, place, problems)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        name = _convert_choice(tuple(hint.__members__), value, place, problems)
        return None if name is None else hint[name]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read(hint, value, place, problems)
    if (origin or hint) in (list, tuple):
        return _convert_list(hint, value, place, meta, problems)
    if (origin or hint) is dict:
        if not isinstance(value, Mapping):
            problems.append(Problem(place, f"{_shown(value)} is not a mapping"))
            return None
        inner = args[1] if args else Any
        return {key: _convert(inner, one, f"{place}.{key}", meta, problems) for key, one in value.items()}
    return value if hint is Any else _convert_scalar(hint, value, place, meta, problems)


def _convert_union(hint: Any, value: Any, place: str, meta: Mapping[str, Any], problems: list[Problem]) -> Any:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if value is None and len(options) < len(typing.get_args(hint)):
        return None
    if len(options) == 1:
        return _convert(options[0], value, place, meta, problems)
    for option in sorted(options, key=lambda option: type(value) is not option):
        found: list[Problem] = []
        converted = _convert(option, value, place, meta, found)
        if not found:
            return converted
    problems.append(Problem(place, f"{_shown(value)} is not {_article(type_text(hint))}"))
    return None


def _convert_choice(choices: tuple[Any, ...], value: Any, place: str, problems: list[Problem]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    # `compile=true` is a boolean to Hydra and to YAML, where the choice is the word.
    word = str(value).lower() if isinstance(value, bool) else str(value)
    for choice in choices:
        if word == str(choice):
            return choice
    near = registry.nearest(word, map(str, choices))
    problems.append(
        Problem(
            place,
            f"{_shown(value)} is not one of {', '.join(map(str, choices))}",
            f"Did you mean '{near}'?" if near else "",
        )
    )
    return None


def _convert_list(hint: Any, value: Any, place: str, meta: Mapping[str, Any], problems: list[Problem]) -> Any:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if not isinstance(value, (list, tuple)):
        problems.append(Problem(place, f"{_shown(value)} is not a list", f"Write '{place}=[{value}]'."))
        return None
    fixed = origin is tuple and args and Ellipsis not in args
    if fixed and len(value) != len(args):
        problems.append(Problem(place, f"{_shown(value)} has {len(value)} items; it takes {len(args)}"))
        return None
    inner = args if fixed else [args[0] if args else Any] * len(value)
    items = [
        _convert(one, item, f"{place}[{at}]", meta, problems)
        for at, (one, item) in enumerate(zip(inner, value, strict=True))
    ]
    return origin(items)


def _convert_scalar(hint: Any, value: Any, place: str, meta: Mapping[str, Any], problems: list[Problem]) -> Any:
    try:
        converted = _SCALARS[hint](value)
    except KeyError:
        raise PluginError(f"{place}: a config field cannot be of type {type_text(hint)}") from None
    except (ValueError, TypeError, OverflowError):
        problems.append(Problem(place, f"{_shown(value)} is not {_article(type_text(hint))}"))
        return None
    if isinstance(converted, (int, float)) and not isinstance(converted, bool):
        if not math.isfinite(converted):
            problems.append(Problem(place, f"{_shown(value)} is not a finite number"))
        elif any(
            meta.get(name) is not None and not holds(converted, meta[name]) for name, (_, holds) in _BOUNDS.items()
        ):
            problems.append(Problem(place, f"{_shown(value)} is out of range; it must be {_range_text(meta)}"))
    return converted


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    if isinstance(value, float) and not value.is_integer():  # 1e4 is a float to Hydra, and means an int
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    return float(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):  # what an environment variable may say
        return value.lower() == "true"
    raise ValueError


def _str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Path)):
        raise TypeError
    return str(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    Path: lambda value: Path(_str(value)),
}
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": (">=", lambda value, bound: value >= bound),
    "gt": (">", lambda value, bound: value > bound),
    "le": ("<=", lambda value, bound: value <= bound),
    "lt": ("<", lambda value, bound: value < bound),
}


def _range_text(meta: Mapping[str, Any]) -> str:
    return ", ".join(f"{sign} {meta[name]:g}" for name, (sign, _) in _BOUNDS.items() if meta.get(name) is not None)


def _article(text: str) -> str:
    if text.startswith(("one of", "list", "mapping", "null")):
        return text
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
