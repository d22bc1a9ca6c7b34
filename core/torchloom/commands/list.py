"""The `list` command."""

from __future__ import annotations

from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from torchloom import registry
from torchloom.commands import WIDTH


def run(config: DictConfig) -> int:
    """List the components of one kind, or all kinds with the names of theirs.

    Args:
        config: Keys of `ListConfig`.

    Returns:
        Exit code 0.

    Raises:
        UnknownComponentError: There is no such kind.
    """
    Console(width=WIDTH, highlight=False).print(_kinds() if config.kind is None else _components(config.kind))
    return 0


def _kinds() -> Table:
    known = registry.current()
    table = Table("kind", "components", "what they are", "names", box=box.SIMPLE_HEAD, pad_edge=False)
    for kind in known.kinds.values():
        names = known.names(kind.name)
        table.add_row(kind.name, str(len(names)), kind.summary, ", ".join(names))
    return table


def _components(kind: str) -> Table:
    known = registry.current()
    table = Table("name", "what it is", "distribution", box=box.SIMPLE_HEAD, pad_edge=False)
    for component in known.components(kind):
        supplier = known.supplier(component)
        table.add_row(known.label(component), component.summary, f"{supplier.distribution} {supplier.version}")
    return table
