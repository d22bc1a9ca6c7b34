"""The `list` command."""

from __future__ import annotations

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from torchloom import registry
from torchloom.commands import WIDTH, presets


def run(config: DictConfig) -> int:
    """List the components of one kind, the presets of a group that has no components, or all kinds with what they have.

    Args:
        config: Keys of `ListConfig`.

    Returns:
        Exit code 0.

    Raises:
        UnknownComponentError: There is no such kind.
    """
    Console(width=WIDTH, highlight=False).print(_kinds() if config.kind is None else _choices(config.kind))
    return 0


def _kinds() -> Table:
    known = registry.current()
    table = Table("kind", "components", "what they are", "names", box=box.SIMPLE_HEAD, pad_edge=False)
    for kind in known.kinds.values():
        names = known.names(kind.name)
        table.add_row(kind.name, str(len(names)), kind.summary, ", ".join(names))
    return table


def _choices(kind: str) -> Table:
    known = registry.current()
    components = known.kinds.get(kind) or known.group_kind(kind)
    found = presets.of(kind if components is None else components.group)
    if components is None and found:
        table = Table("name", "supplied by", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, preset in sorted(found.items()):
            table.add_row(name, presets.supplier(preset))
        return table
    table = Table("name", "what it is", "presets", "distribution", box=box.SIMPLE_HEAD, pad_edge=False)
    for component in known.components(kind):
        supplier = known.supplier(component)
        table.add_row(
            known.label(component),
            component.summary,
            ", ".join(presets.starting_from(component.name, found)),
            f"{supplier.distribution} {supplier.version}",
        )
    return table
