"""Hydra's view of the registry: config groups whose members are components, made only when they are chosen."""

from __future__ import annotations

from collections.abc import Mapping

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from torchloom import plugins, registry, schema
from torchloom.component import Component
from torchloom.configs import RootConfig, RunConfig, SweepConfig
from torchloom.errors import ConfigError, DuplicateComponentError, Problem

RUN = "run"
"""Config that holds the root keys of a run; its primary config includes it, as another command's includes the command."""


class RegistrySource(ConfigSource):
    """Config source ``registry://``. It keeps no state: Hydra copies it about, and into other processes."""

    @staticmethod
    def scheme() -> str:
        """Return the word before ``://``."""
        return "registry"

    def load_config(self, config_path: str) -> ConfigResult:
        """Make the node of one component, or of the root keys.

        Raises:
            DuplicateComponentError: Two distributions supply the component.
            PluginError: Its config class cannot be imported.
        """
        path = _normal(config_path)
        root = _root(path)
        if root is not None:
            return ConfigResult(self.provider, "registry://", root_node(root), {"package": None})
        group, _, name = path.rpartition("/")
        known = registry.current()
        component = known.get(group, name)
        many = known.kinds[component.kind].many
        return ConfigResult(
            provider=known.supplier(component).distribution,
            path=f"registry://{path}",
            config=schema.make_node(component),
            header={"package": f"{group}.{component.name}" if many else None},
        )

    def available(self) -> bool:
        """Return True: the registry is always there."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether a path is the root or the group of a kind."""
        path = _normal(config_path)
        return not path or registry.current().group_kind(path) is not None

    def is_config(self, config_path: str) -> bool:
        """Whether a path names a component, under an alias too.

        Raises:
            ConfigError: Another source holds the same path, so that it would hang on their order which one counts.
        """
        path = _normal(config_path)
        group, _, name = path.rpartition("/")
        known = registry.current()
        kind = known.group_kind(group)
        own = _root(path) is not None or (kind is not None and known.has(kind.name, name))
        _refuse_second(path, own)
        return own

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the groups at the root, or the components of a group."""
        path = _normal(config_path)
        known = registry.current()
        if path:
            kind = known.group_kind(path)
            return known.names(kind.name) if kind is not None and results_filter != ObjectType.GROUP else []
        groups = [kind.group for kind in known.kinds.values() if kind.configurable]
        return {ObjectType.GROUP: groups, ObjectType.CONFIG: [RUN]}.get(results_filter, [*groups, RUN])  # type: ignore[arg-type]


class RegistrySearchPath(SearchPathPlugin):
    """Puts the registry and every plugin's presets on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the sources; the registry comes first, so that it is asked about every config and sees duplicates."""
        search_path.prepend("torchloom", "registry://")
        for plugin in plugins.manager().loaded:
            for path in plugin.search_paths:
                search_path.append(plugin.distribution, path)


def register() -> None:
    """Make Hydra use the registry; needed before Hydra is initialised, harmless when repeated."""
    hydra_plugins = Plugins.instance()
    hydra_plugins.register(RegistrySource)
    hydra_plugins.register(RegistrySearchPath)


def root_node(root: type[RootConfig] = RunConfig) -> DictConfig:
    """Return the keys at the root of a configuration with their defaults."""
    keys = {info.name: info.default for info in schema.describe_class(root)}
    return OmegaConf.create({**keys, "sweep": schema.to_plain(SweepConfig())} if issubclass(root, RunConfig) else keys)


def run_name(choices: Mapping[str, str | None]) -> str:
    """Return the word that a run's folder is called after: the chosen experiment's, else the architecture's."""
    name = choices.get("experiment") or choices.get("architecture") or "run"
    return name.replace("/", "-").replace(":", "-")  # what no file system takes


def _root(path: str) -> type[RootConfig] | None:
    """Return the class of the root keys that a path names: ``run``, or a command that composes something else."""
    if path == RUN:
        return RunConfig
    known = registry.current()
    if "/" in path or not known.has("command", path):
        return None
    config = known.config_class(known.get("command", path))
    return config if issubclass(config, RootConfig) else None


def _normal(config_path: str) -> str:
    return config_path.strip("/").removesuffix(".yaml")


def _refuse_second(path: str, own: bool) -> None:
    """Refuse a config that two sources hold."""
    holder = GlobalHydra.instance()
    if "/" not in path or path.startswith("hydra/") or not holder.is_initialized():
        return
    sources = holder.config_loader().get_sources()
    found = [source for source in sources if not isinstance(source, RegistrySource) and source.is_config(path)]
    group, _, name = path.rpartition("/")
    holders = [f"{source.path or source.scheme()} of {source.provider}" for source in found]
    if own:
        holders.insert(0, _owner(group, name))
    if len(holders) > 1:
        raise ConfigError(
            [
                Problem(
                    f"{group}={name}",
                    f"is held by {' and by '.join(holders)}",
                    "Rename one; a preset needs a name of its own.",
                )
            ]
        )


def _owner(group: str, name: str) -> str:
    known = registry.current()
    try:
        component: Component = known.get(group, name)
    except DuplicateComponentError:
        return "two distributions' components"
    return f"{component.kind} '{component.name}' of {known.supplier(component).distribution}"


# Here rather than in `register`, so that a process to which Hydra ships only its sources has it too.
OmegaConf.register_new_resolver("torchloom_run_name", run_name, replace=True)
