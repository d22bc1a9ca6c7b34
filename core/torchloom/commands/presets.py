"""Presets: YAML files of a group, which start from each other and in the end from a component."""

from __future__ import annotations

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf


def of(group: str) -> dict[str, ConfigResult]:
    """Return the YAML files of a group by name, in whatever package they lie."""
    holder = GlobalHydra.instance()
    if not holder.is_initialized():
        return {}
    sources = [
        one for one in holder.config_loader().get_sources() if one.scheme() in ("pkg", "file") and one.is_group(group)
    ]
    return {
        name: source.load_config(f"{group}/{name}")
        for source in sources
        for name in source.list(group, ObjectType.CONFIG)
    }


def chain(presets: dict[str, ConfigResult], name: str) -> list[str]:
    """Return a preset, the preset that it starts from, and so on to the component."""
    names = [name]
    while names[-1] in presets:
        defaults = OmegaConf.select(presets[names[-1]].config, "defaults") or []
        bases = [one for one in defaults if isinstance(one, str) and one != "_self_"]
        if not bases:
            break
        names.append(bases[0])
    return names


def starting_from(component: str, presets: dict[str, ConfigResult]) -> list[str]:
    """Return the presets that in the end start from a component."""
    return [name for name in presets if chain(presets, name)[-1] == component]


def supplier(preset: ConfigResult) -> str:
    """Return the package that a preset comes with; Hydra calls that of the application "main"."""
    return preset.provider.replace("main", "torchloom")
