"""The `show` command."""

from __future__ import annotations

import json
from typing import Any

from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchloom import registry, schema
from torchloom.commands import WIDTH, presets
from torchloom.component import Component, Kind
from torchloom.errors import ConfigError, Problem, UnknownComponentError


def run(config: DictConfig) -> int:
    """Show a component or a preset.

    Args:
        config: Keys of `ShowConfig`.

    Returns:
        Exit code 0.

    Raises:
        ConfigError: The word is not of the form KIND/NAME.
        UnknownComponentError: There is no such kind, or it has no such component or preset.
    """
    word, slash, name = config.component.partition("/")
    if not slash:
        raise ConfigError([Problem("component", f"'{word}' is not KIND/NAME", _mend(word))])
    console = Console(width=WIDTH, highlight=False)
    known = registry.current()
    group = known.kind(word).group if word in known.kinds else word
    kind = known.group_kind(group) or known.kinds.get(word)
    found = presets.of(group)
    if name in found:
        _show_preset(console, group, kind, name, found)
    elif kind is None:
        options = sorted(found)
        if not options:
            known.kind(word)  # says which kinds there are
        raise UnknownComponentError(
            f"no {group} is called '{name}'{registry.suggest(name, options)}\n    To choose from: {', '.join(options)}."
        )
    else:
        _show_component(console, kind, known.get(kind.name, name))
    return 0


def _mend(word: str) -> str:
    known = registry.current()
    kinds = [component.kind for component in known.components() if component.name == word]
    kinds += [kind.group for kind in known.kinds.values() if kind.name not in kinds and word in presets.of(kind.group)]
    return (
        f"Did you mean {' or '.join(f'{kind}/{word}' for kind in kinds)}?" if kinds else "For example: architecture/cnn"
    )


def _show_component(console: Console, kind: Kind, component: Component) -> None:
    known = registry.current()
    supplier = known.supplier(component)
    label = known.label(component)
    facts = {
        "summary": component.summary,
        "source": component.source,
        "supplied by": f"{supplier.distribution} {supplier.version}",
        "choose with": f"{kind.group}={'[' + label + ']' if kind.many else label}"
        if kind.configurable
        else f"torchloom {label}",
        "opens groups": ", ".join(f"{group} ({choice} unless chosen)" for group, choice in component.slots.items()),
        "needs": ", ".join(component.needs) + (f" (pip install '{component.extra}')" if component.extra else ""),
        "former names": ", ".join(component.aliases),
        "presets": ", ".join(presets.starting_from(component.name, presets.of(kind.group))),
        **_facts(component, {}),
    }
    _print_facts(console, f"{kind.name}/{label}", facts)
    fields = schema.describe(component)
    if not fields:
        console.print("It has no options.")
        return
    table = Table("key", "type", "default", "range", "what it does", box=box.SIMPLE_HEAD, pad_edge=False)
    for field in fields:
        doc = f"{field.doc} ({field.source})" if field.source else field.doc
        table.add_row(
            *map(Text, (field.name, field.type, _shown(field.default), f"{field.range} {field.unit}".strip(), doc))
        )
    console.print(table)


def _show_preset(console: Console, group: str, kind: Kind | None, name: str, found: dict[str, ConfigResult]) -> None:
    known, preset = registry.current(), found[name]
    chain = presets.chain(found, name)
    facts = {
        "starts from": "".join(chain[1:2]),
        "supplied by": presets.supplier(preset),
        "choose with": f"{group}={name}",
    }
    if kind is not None and known.has(kind.name, chain[-1]):
        nodes = [found[one].config for one in reversed(chain[:-1])]
        facts |= _facts(known.get(kind.name, chain[-1]), OmegaConf.merge(*nodes))
    _print_facts(console, f"{group}/{name}", facts)
    console.print(Text(OmegaConf.to_yaml(preset.config)))


def _facts(component: Component, values: Any) -> dict[str, str]:
    """Return what a component says of itself with these values; nothing while one that must be given is not."""
    given = {key: value for key, value in values.items() if key != "defaults"}
    try:
        config = schema.to_config(component, given)
    except ConfigError:
        return {}
    return registry.current().facts(component, config)


def _print_facts(console: Console, title: str, facts: dict[str, str]) -> None:
    console.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        if value:
            table.add_row(f"  {key}", Text(value))
    console.print(table)


def _shown(value: Any) -> str:
    if value == "???":
        return "(needed)"
    return value if isinstance(value, str) and value else json.dumps(value)
