"""What holds for every component, whatever its kind."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from torchloom import plugins, registry, schema
from torchloom.component import Component
from torchloom.errors import ConfigError, MissingDependencyError
from torchloom.testing.support import default_config, each, load


@each()
class TestComponent:
    """Its record and its config."""

    def test_says_what_it_is_in_one_line(self, component: Component) -> None:
        assert component.summary.strip()
        assert "\n" not in component.summary

    def test_every_option_is_documented(self, component: Component) -> None:
        assert [info.name for info in schema.describe(component) if not info.doc.strip()] == []

    def test_defaults_keep_their_own_ranges(self, component: Component) -> None:
        values = OmegaConf.to_container(schema.make_node(component))
        assert isinstance(values, dict)
        values.pop("defaults", None)
        given = {key: value for key, value in values.items() if value != "???"}
        assert schema.check_node(component, given) == []

    def test_config_survives_yaml(self, component: Component) -> None:
        missing = {info.name for info in schema.describe(component) if info.default == "???"}
        if missing:
            pytest.skip(f"{', '.join(sorted(missing))} must be given, so there is no config to write")
        node = schema.make_node(component)
        node.pop("defaults", None)
        read = OmegaConf.create(OmegaConf.to_yaml(node))
        assert schema.to_config(component, read) == default_config(component)

    def test_unknown_key_is_refused_by_name(self, component: Component) -> None:
        with pytest.raises(ConfigError, match="no_such_option_1"):
            schema.to_config(component, {"no_such_option_1": 1})

    def test_target_follows_the_contract_of_its_kind(self, component: Component) -> None:
        target = load(component)
        contract = registry.current().kinds[component.kind].contract
        if not inspect.isclass(target) or ":" not in contract:
            assert callable(target)
            return
        module, _, name = contract.partition(":")
        assert issubclass(target, getattr(importlib.import_module(module), name))
        assert not inspect.isabstract(target)


@each(where=lambda component: component.describe)
def test_facts_for_show_are_texts_by_name(component: Component) -> None:
    facts = registry.current().facts(component, default_config(component))
    assert facts
    assert all(isinstance(text, str) and text.strip() for pair in facts.items() for text in pair)


@each(where=lambda component: component.needs)
def test_needs_are_asked_for_by_name(component: Component, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in component.needs:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=component.needs[0]):
        registry.current().load(component)


@each(where=lambda component: component.aliases)
def test_former_names_still_find_it(component: Component) -> None:
    assert all(registry.current().get(component.kind, alias) == component for alias in component.aliases)


@each(where=lambda component: component.slots)
def test_slots_name_components(component: Component) -> None:
    known = registry.current()
    assert [name for group, name in component.slots.items() if not known.has(known.kind(group).name, name)] == []


def test_declaring_and_describing_imports_no_torch() -> None:
    """Listing components and showing their options must stay quick: torch alone takes seconds to import."""
    script = """
import json, sys
from torchloom import registry, schema
blamed = []
for component in registry.current().components():
    missing = "???" in [info.default for info in schema.describe(component)]
    if component.describe and not missing:
        registry.current().facts(component, schema.to_config(component, {}))
    if not blamed and {"torch", "pytorch_lightning"} & set(sys.modules):
        blamed.append(f"{component.kind}/{component.name}")
print(json.dumps(blamed))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_no_plugin_failed_to_load() -> None:
    assert [f"{plugin}: {plugin.error}" for plugin in plugins.manager().failed] == []
