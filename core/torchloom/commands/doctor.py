"""The `doctor` command."""

from __future__ import annotations

import platform
from importlib import metadata

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchloom import plugins
from torchloom.commands import WIDTH

LIBRARIES = (
    "torchloom",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "xformers",
)


def run(config: DictConfig) -> int:
    """Print versions, devices, plugins and where configuration is looked for.

    Args:
        config: Has no keys.

    Returns:
        Exit code: 1 if a plugin failed, 0 otherwise.
    """
    console = Console(width=WIDTH, highlight=False)
    manager = plugins.manager()
    _print_rows(
        console, "Versions", [("python", platform.python_version()), *((one, _version(one)) for one in LIBRARIES)]
    )
    _print_rows(console, "Devices", _devices())
    table = Table("plugin", "distribution", "components", "seconds", box=box.SIMPLE_HEAD, pad_edge=False)
    for plugin in manager.loaded:
        supplier = f"{plugin.distribution} {plugin.version}"
        table.add_row(plugin.name, supplier, str(len(plugin.components)), f"{plugin.seconds:.3f}")
    console.print(Text("Plugins", style="bold"), table)
    for source in manager.disabled:
        console.print(
            Text(f"  {source.name} ({source.distribution}) is left alone: TORCHLOOM_DISABLE_PLUGINS names it\n")
        )
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        found = [(one.provider, f"{one.schema}://{one.path}") for one in sources if one.schema != "structured"]
        _print_rows(console, "Configuration is looked for in", found)
    for failed in manager.failed:
        console.print(Text(f"{failed} failed: {failed.error}", style="bold red"))
        console.print(Text(failed.traceback))
        console.print(
            Text(f"    upgrade {failed.distribution}, or go without: TORCHLOOM_DISABLE_PLUGINS={failed.name}\n")
        )
    console.print(Text(f"{len(manager.loaded)} plugins work, {len(manager.failed)} failed."))
    return 1 if manager.failed else 0


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("cpu", f"{torch.get_num_threads()} threads")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU"))
    return found


def _print_rows(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    for left, right in rows:
        table.add_row(f"  {left}", Text(right))
    console.print(Text(title, style="bold"), table, "")
