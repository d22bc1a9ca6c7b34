"""Looking components up by kind and name."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from torchloom import plugins
from torchloom.component import Component, Kind
from torchloom.configs import RootConfig
from torchloom.errors import DuplicateComponentError, MissingDependencyError, PluginError, UnknownComponentError
from torchloom.plugins import LoadedPlugin, PluginManager


class Registry:
    """The kinds and components of a set of plugins. It never changes once built.

    Attributes:
        kinds: Kinds by name.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self.kinds: dict[str, Kind] = {kind.name: kind for plugin in manager.loaded for kind in plugin.kinds}
        self._groups = {kind.group: kind for kind in self.kinds.values() if kind.configurable}
        self._suppliers: dict[int, LoadedPlugin] = {}
        self._table: dict[tuple[str, str], list[Component]] = {}
        aliases: dict[tuple[str, str], list[Component]] = {}
        for plugin in manager.loaded:
            for component in plugin.components:
                self._suppliers[id(component)] = plugin
                self._table.setdefault((component.kind, component.name), []).append(component)
                for alias in component.aliases:
                    aliases.setdefault((component.kind, alias), []).append(component)
        self._aliases = {key: found for key, found in aliases.items() if key not in self._table}

    def kind(self, word: str) -> Kind:
        """Return a kind by its name or its config group.

        Raises:
            UnknownComponentError: There is none.
        """
        found = self.kinds.get(word) or self._groups.get(word)
        if found is None:
            raise UnknownComponentError("\n    ".join(self.unknown("kind", word, self.kinds)))
        return found

    def group_kind(self, group: str) -> Kind | None:
        """Return the kind behind a config group, or None if the group holds presets only."""
        return self._groups.get(group)

    def groups(self, root: type[RootConfig]) -> dict[str, Kind]:
        """Return the config groups of a command's configuration, with the kinds behind them."""
        return {
            group: kind
            for group, kind in self._groups.items()
            if kind.command == root.command or group in root.borrowed
        }

    def components(self, kind: str | None = None) -> list[Component]:
        """Return the components of one kind, or all, sorted by kind and name."""
        wanted = None if kind is None else self.kind(kind).name
        found = [one for ones in self._table.values() for one in ones if wanted in (None, one.kind)]
        return sorted(found, key=lambda one: (one.kind, one.name, self.supplier(one).distribution))

    def names(self, kind: str) -> list[str]:
        """Return the names that may be chosen, sorted; ``distribution:name`` where two distributions share a name."""
        return sorted(self.label(component) for component in self.components(kind))

    def label(self, component: Component) -> str:
        """Return the name that tells this component from all others of its kind."""
        alone = len(self._table[component.kind, component.name]) == 1
        return component.name if alone else f"{self.supplier(component).distribution}:{component.name}"

    def supplier(self, component: Component) -> LoadedPlugin:
        """Return the plugin that declared a component."""
        return self._suppliers[id(component)]

    def get(self, kind: str, name: str) -> Component:
        """Return a component by name, alias or ``distribution:name``.

        Raises:
            UnknownComponentError: There is none; the message names the nearest and all names, and failed plugins.
            DuplicateComponentError: Two distributions supply it and the name does not say which.
        """
        word = self.kind(kind).name
        distribution, colon, plain = name.rpartition(":")
        found = self._table.get((word, plain)) or self._aliases.get((word, plain)) or []
        if colon:
            found = [component for component in found if self.supplier(component).distribution == distribution]
        if not found:
            raise UnknownComponentError("\n    ".join(self.unknown(word, name, self.names(word))))
        if len(found) > 1:
            owners = sorted(self.supplier(component).distribution for component in found)
            choices = " or ".join(f"{self.kinds[word].group}={owner}:{plain}" for owner in owners)
            raise DuplicateComponentError(
                f"{word} '{plain}' is supplied by {' and by '.join(owners)}\n    say which: {choices}"
            )
        return found[0]

    def has(self, kind: str, name: str) -> bool:
        """Whether `get` would find something or refuse it as ambiguous."""
        try:
            self.get(kind, name)
        except UnknownComponentError:
            return False
        except DuplicateComponentError:
            return True
        return True

    def load(self, component: Component) -> type[Any]:
        """Import a component's class.

        Raises:
            MissingDependencyError: A module in ``needs`` is not installed.
            PluginError: The import fails; the cause is chained.
        """
        missing = [module for module in component.needs if not _installed(module)]
        if missing:
            package = f"'{component.extra}'" if component.extra else " ".join(missing)
            raise MissingDependencyError(
                f"{component.kind} '{component.name}' needs {', '.join(missing)}, which is not installed\n"
                f"    pip install {package}"
            )
        loaded: type[Any] = self._import(component, component.target)
        return loaded

    def config_class(self, component: Component) -> type[Any]:
        """Import a component's config dataclass, which imports no torch.

        Raises:
            PluginError: The import fails; the cause is chained.
        """
        loaded: type[Any] = self._import(component, component.config)
        return loaded

    def facts(self, component: Component, config: Any) -> dict[str, str]:
        """Return what a component says of itself with a config, by name; nothing if it has no ``describe``.

        Raises:
            PluginError: The import fails; the cause is chained.
        """
        if not component.describe:
            return {}
        described: dict[str, str] = self._import(component, component.describe)(config)
        return described

    def _import(self, component: Component, reference: str) -> Any:
        module, _, name = reference.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise PluginError(
                f"{component.kind} '{component.name}' of {self.supplier(component)} cannot be imported "
                f"from {reference}\n"
                f"    {type(error).__name__}: {error}"
            ) from error
        return found

    def unknown(self, word: str, name: str, choices: Iterable[str]) -> tuple[str, str]:
        """Return what to say about a name that is not among the choices, and what to do about it.

        Args:
            word: What the name should have been: a kind, or a group of presets.
            name: The name.
            choices: All that could have been chosen.
        """
        choices = sorted(choices)
        left_out = [f"{failed} is left out: {failed.error}" for failed in self._manager.failed]
        mend = "\n    ".join([f"To choose from: {', '.join(choices) or 'nothing'}.", *left_out])
        return f"no {word} is called '{name}'{suggest(name, choices)}", mend


def current() -> Registry:
    """Return the registry of the process's plugins."""
    return _build(plugins.manager())


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'cnn'?"`` for the choice nearest to a word, or nothing if none is near."""
    near = nearest(word, choices)
    return f"; did you mean '{near}'?" if near else ""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice nearest to a word, case and the difference of ``-`` and ``_`` aside, or None."""
    folded = {_fold(choice): choice for choice in choices}
    close = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


@functools.lru_cache(maxsize=8)
def _build(manager: PluginManager) -> Registry:
    return Registry(manager)


def _fold(word: str) -> str:
    return word.casefold().replace("-", "_")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
