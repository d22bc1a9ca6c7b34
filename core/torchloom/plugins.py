"""Finding plugins and calling their hooks, so that one broken plugin never takes the others down.

Environment:
    TORCHLOOM_DISABLE_PLUGINS: Plugins to leave alone, by their own or their distribution's name, separated by commas.
    TORCHLOOM_STRICT_PLUGINS: With ``1``, a plugin that fails raises instead of being reported.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from torchloom import hookspecs
from torchloom.component import Component, Kind
from torchloom.errors import PluginError, Problem, TorchloomError

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUP = "torchloom.plugins"
CORE = "core"
"""Name of the plugin that declares the kinds; nothing works without it, so it cannot be disabled."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REFERENCE = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True)
class PluginSource:
    """A plugin that can be loaded.

    Attributes:
        name: Its entry point's name.
        distribution: Distribution that supplies it.
        version: Version of that distribution.
        load: Returns the plugin, usually a module.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], object]


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that works, with all it declared.

    Attributes:
        seconds: What importing it and asking it took.
        search_paths: Its packages of YAML presets, ``pkg://...``.
    """

    name: str
    distribution: str
    version: str
    seconds: float
    kinds: tuple[Kind, ...]
    components: tuple[Component, ...]
    search_paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"


@dataclass(frozen=True)
class FailedPlugin:
    """A plugin that does not work, and why.

    Attributes:
        error: The cause in one line.
        traceback: The whole of it.
    """

    name: str
    distribution: str
    version: str
    error: str
    traceback: str

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"


class PluginManager:
    """All plugins of one process.

    Attributes:
        failed: Plugins that failed while loading, or in a hook later on.
        disabled: Plugins left alone on request.
    """

    def __init__(self, sources: Iterable[PluginSource], *, disable: Iterable[str] = (), strict: bool = False) -> None:
        """Load plugins.

        Args:
            sources: The plugins.
            disable: Names of plugins or distributions to leave alone.
            strict: Whether a failure raises.

        Raises:
            PluginError: A plugin failed, and ``strict`` is set.
        """
        self._strict = strict
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._loaded: dict[str, LoadedPlugin] = {}
        self.failed: list[FailedPlugin] = []
        self.disabled: list[PluginSource] = []
        unwanted = set(disable)
        objects: list[tuple[PluginSource, object, float]] = []
        known = set()
        for source in sorted(sources, key=lambda source: (source.name != CORE, source.distribution, source.name)):
            known |= {source.name, source.distribution}
            if unwanted & {source.name, source.distribution} and source.name != CORE:
                self.disabled.append(source)
            else:
                objects += self._register(source)
        for name in sorted(unwanted - known):
            _warn(f"TORCHLOOM_DISABLE_PLUGINS names '{name}', which is not installed")
        self._ask(objects)

    @classmethod
    def discover(cls) -> PluginManager:
        """Load the plugins of all installed distributions, as far as the environment variables allow.

        Raises:
            PluginError: A plugin failed, and TORCHLOOM_STRICT_PLUGINS is set.
        """
        names: dict[int, tuple[str, str]] = {}  # reading a distribution's metadata is slow, so once each
        sources = []
        for point in metadata.entry_points(group=GROUP):
            if id(point.dist) not in names:
                names[id(point.dist)] = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
            sources.append(PluginSource(point.name, *names[id(point.dist)], load=point.load))
        disable = os.environ.get("TORCHLOOM_DISABLE_PLUGINS", "")
        return cls(
            sources,
            disable=[name for name in map(str.strip, disable.split(",")) if name],
            strict=os.environ.get("TORCHLOOM_STRICT_PLUGINS", "") == "1",
        )

    @property
    def loaded(self) -> tuple[LoadedPlugin, ...]:
        """The plugins that work."""
        return tuple(self._loaded.values())

    def check_config(self, config: DictConfig) -> list[Problem]:
        """Ask every plugin what is wrong with a configuration (hook `torchloom_check_config`)."""
        found: list[Problem] = []
        for key in list(self._loaded):
            with self._guard(key):
                found += self._call(key, "torchloom_check_config", config=config) or ()
        return found

    def configure_trainer(self, arguments: dict[str, Any], config: DictConfig) -> None:
        """Let every plugin change the Trainer's arguments (hook `torchloom_configure_trainer`).

        A plugin that raises leaves them as they were before it.
        """
        for key in list(self._loaded):
            changed = {name: list(value) if isinstance(value, list) else value for name, value in arguments.items()}
            with self._guard(key):
                self._call(key, "torchloom_configure_trainer", arguments=changed, config=config)
                arguments.clear()
                arguments.update(changed)

    def run_finished(self, folder: Path, summary: dict[str, Any]) -> None:
        """Tell every plugin that a run is over (hook `torchloom_run_finished`)."""
        for key in list(self._loaded):
            with self._guard(key):
                self._call(key, "torchloom_run_finished", folder=folder, summary=summary)

    def _register(self, source: PluginSource) -> list[tuple[PluginSource, object, float]]:
        """Import one plugin; return it with the seconds it took, or nothing if it failed."""
        start = time.perf_counter()
        key = _key(source)
        try:
            plugin = source.load()
            _check_plugin(plugin)
            self._pluggy.register(plugin, key)
            self._pluggy.check_pending()
        except (Exception, SystemExit) as error:
            self._fail(source, error)
            return []
        return [(source, plugin, time.perf_counter() - start)]

    def _ask(self, objects: list[tuple[PluginSource, object, float]]) -> None:
        """Collect what the plugins declare: the kinds of all of them before any component."""
        kinds: dict[str, tuple[Kind, ...]] = {}
        known: dict[str, Kind] = {}
        seconds = {}
        for source, _, spent in objects:
            start = time.perf_counter()
            try:
                declared = tuple(self._call(_key(source), "torchloom_kinds") or ())
                _check_kinds(declared, known)
            except (Exception, SystemExit) as error:
                self._fail(source, error)
                continue
            kinds[_key(source)] = declared
            known |= {kind.name: kind for kind in declared}
            seconds[_key(source)] = spent + time.perf_counter() - start
        for source, _, _ in objects:
            key = _key(source)
            if key not in kinds:
                continue
            start = time.perf_counter()
            try:
                components = tuple(self._call(key, "torchloom_components") or ())
                taken = [
                    one
                    for other in self.loaded
                    if other.distribution == source.distribution
                    for one in other.components
                ]
                _check_components(components, known, taken)
                search_paths = tuple(self._call(key, "torchloom_config_search_paths") or ())
            except (Exception, SystemExit) as error:
                self._fail(source, error)
                continue
            spent = seconds[key] + time.perf_counter() - start
            self._loaded[key] = LoadedPlugin(
                source.name, source.distribution, source.version, spent, kinds[key], components, search_paths
            )

    def _call(self, key: str, hook: str, **arguments: Any) -> Any:
        """Call one hook of one plugin; None if the plugin does not implement it."""
        others = [plugin for name, plugin in self._pluggy.list_name_plugin() if name != key]
        results = self._pluggy.subset_hook_caller(hook, others)(**arguments)
        return results[0] if results else None

    @contextmanager
    def _guard(self, key: str) -> Iterator[None]:
        """Turn a crash in a hook into a failed plugin; an error meant for the user passes."""
        try:
            yield
        except TorchloomError:
            raise
        except Exception as error:
            self._fail(self._loaded.pop(key), error)

    def _fail(self, source: PluginSource | LoadedPlugin, error: BaseException) -> None:
        key = _key(source)
        if self._pluggy.has_plugin(key):
            self._pluggy.unregister(name=key)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        failed = FailedPlugin(
            source.name, source.distribution, source.version, text, "".join(traceback.format_exception(error))
        )
        if self._strict:
            raise PluginError(f"{failed} failed: {text}") from error
        self.failed.append(failed)
        _warn(f"{failed} is left out: {text}; 'torchloom doctor' shows the cause")


_current: PluginManager | None = None


def manager() -> PluginManager:
    """Return the process's plugins, found on the first call."""
    global _current
    if _current is None:
        _current = PluginManager.discover()
    return _current


@contextmanager
def using(plugins: PluginManager) -> Iterator[PluginManager]:
    """Put other plugins in the place of the installed ones for a while, in this process only.

    Args:
        plugins: What `manager` returns meanwhile.
    """
    global _current
    before, _current = _current, plugins
    try:
        yield plugins
    finally:
        _current = before


def _key(plugin: PluginSource | LoadedPlugin) -> str:
    return f"{plugin.distribution}:{plugin.name}"


def _warn(text: str) -> None:
    print(f"torchloom: {text}", file=sys.stderr)


def _check_plugin(plugin: object) -> None:
    if inspect.isclass(plugin):
        raise PluginError(f"a plugin must be a module or an instance, not the class {plugin.__name__}; add '()'")
    if type(plugin).__hash__ is None:  # pluggy keeps plugins in sets, and would fail for all of them
        raise PluginError(f"a plugin must be hashable, and {type(plugin).__name__} is not; a dataclass needs eq=False")
    for name, value in inspect.getmembers(plugin, callable):
        if name.startswith("torchloom_") and not hasattr(value, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(f"{name} is not marked as a hook; put @torchloom.hookimpl above it")


def _check_kinds(kinds: Iterable[Kind], known: Mapping[str, Kind]) -> None:
    words = {word for kind in known.values() for word in (kind.name, kind.group)}
    for kind in kinds:
        if kind.name in words or kind.group in words:
            raise PluginError(f"kind '{kind.name}' is declared by another plugin")


def _check_components(components: Iterable[Component], kinds: Mapping[str, Kind], taken: Iterable[Component]) -> None:
    names = {(component.kind, component.name) for component in taken}
    groups = {kind.group for kind in kinds.values()}
    for component in components:
        said = f"{component.kind} '{component.name}'"
        if component.kind not in kinds:
            raise PluginError(f"{said} is of a kind that no plugin declares; kinds: {', '.join(sorted(kinds))}")
        if not _NAME.fullmatch(component.name):
            raise PluginError(f"{said}: a name is made of lower-case letters, digits and _")
        for reference in (component.target, component.config):
            if not _REFERENCE.fullmatch(reference):
                raise PluginError(f"{said}: '{reference}' is not of the form 'package.module:Class'")
        if set(component.slots) - groups:
            raise PluginError(
                f"{said} opens a group that no kind has: {', '.join(sorted(set(component.slots) - groups))}"
            )
        if (component.kind, component.name) in names:
            raise PluginError(f"{said} is declared twice in one distribution")
        names.add((component.kind, component.name))
