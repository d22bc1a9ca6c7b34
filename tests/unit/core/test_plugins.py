import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import toys

from torchloom import Component, hookimpl, plugins
from torchloom.errors import PluginError, UnsupportedError
from torchloom.plugins import PluginManager

THING = toys.component("architecture", "thing")


def lay_out(folder: Path, distribution: str, modules: dict[str, str], points: dict[str, str]) -> None:
    """Install a distribution by hand: its modules and its metadata."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(code))
    info = folder / f"{distribution.replace('-', '_')}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.1\n")
    lines = [f"{name} = {module}" for name, module in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[torchloom.plugins]", *lines, ""]))


GOOD = """
    from torchloom import Component, hookimpl

    @hookimpl
    def torchloom_components():
        return [Component("architecture", "stranger", "x:X", "x:C", "From afar")]
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three installed distributions: one that works, one that cannot be imported, one that raises in a hook."""
    lay_out(tmp_path, "far-good", {"far_good": GOOD}, {"good": "far_good"})
    lay_out(tmp_path, "far-torn", {"far_torn": "import no_such_module_anywhere"}, {"torn": "far_torn"})
    hook = "from torchloom import hookimpl\n@hookimpl\ndef torchloom_components():\n    return [1 / 0]\n"
    lay_out(tmp_path, "far-sore", {"far_sore": hook}, {"sore": "far_sore", "exits": "far_exits"})
    (tmp_path / "far_exits.py").write_text("raise SystemExit('bye')")
    monkeypatch.syspath_prepend(tmp_path)
    for variable in ("TORCHLOOM_DISABLE_PLUGINS", "TORCHLOOM_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_broken_distributions_hurt_only_themselves(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = PluginManager.discover()
    stranger = next(plugin for plugin in found.loaded if plugin.name == "good")
    assert (stranger.distribution, stranger.version) == ("far-good", "2.1")
    assert [component.name for component in stranger.components] == ["stranger"]
    assert {"core", "good"} <= {plugin.name for plugin in found.loaded}
    failed = {plugin.name: plugin for plugin in found.failed}
    assert failed["torn"].error == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    assert failed["sore"].error == "ZeroDivisionError: division by zero"
    assert failed["exits"].error == "SystemExit: bye"
    assert "return [1 / 0]" in failed["sore"].traceback
    said = [line for line in capsys.readouterr().err.splitlines() if "far-torn" in line]
    assert said == [
        "torchloom: plugin 'torn' (far-torn 2.1) is left out: ModuleNotFoundError: No module named "
        "'no_such_module_anywhere'; 'torchloom doctor' shows the cause"
    ]


def test_plugins_are_disabled_by_their_own_and_their_distributions_name(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLOOM_DISABLE_PLUGINS", "torn, far-sore,core,goood")
    found = PluginManager.discover()
    assert {"torn", "sore", "exits"} <= {plugin.name for plugin in found.disabled}
    assert {"core", "good"} <= {plugin.name for plugin in found.loaded}
    assert not {"torn", "sore", "exits"} & {plugin.name for plugin in found.failed}
    assert "torchloom: TORCHLOOM_DISABLE_PLUGINS names 'goood', which is not installed" in capsys.readouterr().err


def test_strict_raises_with_the_cause(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLOOM_STRICT_PLUGINS", "1")
    monkeypatch.setenv("TORCHLOOM_DISABLE_PLUGINS", "far-sore,torchloom")
    with pytest.raises(PluginError) as caught:
        PluginManager.discover()
    assert str(caught.value) == (
        "plugin 'torn' (far-torn 2.1) failed: ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


class Misspelt:
    @hookimpl
    def torchloom_componets(self) -> list[Component]:
        return []


class WrongArgument:
    @hookimpl
    def torchloom_check_config(self, settings: object) -> list[Component]:
        return []


@dataclass
class Unhashable:
    @hookimpl
    def torchloom_components(self) -> list[Component]:
        return []


class Unmarked:
    def torchloom_components(self) -> list[Component]:
        return []


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Misspelt(), "unknown hook 'torchloom_componets'"),
        (WrongArgument(), "Argument(s) {'settings'} are declared in the hookimpl but can not be found in the hookspec"),
        (Unhashable(), "a plugin must be hashable, and Unhashable is not; a dataclass needs eq=False"),
        (Unmarked(), "torchloom_components is not marked as a hook; put @torchloom.hookimpl above it"),
        (toys.Plugin, "a plugin must be a module or an instance, not the class Plugin; add '()'"),
        (toys.Plugin([THING, THING]), "architecture 'thing' is declared twice in one distribution"),
        (
            toys.Plugin([toys.component("artchitecture", "thing")]),
            "artchitecture 'thing' is of a kind that no plugin declares; kinds: architecture, attention, ",
        ),
        (
            toys.Plugin([toys.component("architecture", "My-Thing")]),
            "architecture 'My-Thing': a name is made of lower-case letters, digits and _",
        ),
        (
            toys.Plugin([Component("architecture", "thing", "package.module.Class", "toys:Empty", "")]),
            "architecture 'thing': 'package.module.Class' is not of the form 'package.module:Class'",
        ),
        (
            toys.Plugin([toys.component("architecture", "thing", slots={"atention": "sdpa"})]),
            "architecture 'thing' opens a group that no kind has: atention",
        ),
    ],
)
def test_a_plugin_that_breaks_the_rules_is_left_out_and_told_why(plugin: object, message: str) -> None:
    found = toys.make(toys.source(plugin, "odd", "odd-box"))
    assert [failed.name for failed in found.failed] == ["odd"]
    assert message in found.failed[0].error
    assert [loaded.name for loaded in found.loaded] == ["core", "toys"]


def test_a_kind_is_declared_once() -> None:
    class Second:
        @hookimpl
        def torchloom_kinds(self) -> list[object]:
            from torchloom import Kind

            return [Kind("dataset", "x:X", "Again")]

    found = toys.make(toys.source(Second(), "second", "second-box"))
    assert found.failed[0].error == "PluginError: kind 'dataset' is declared by another plugin"


def test_a_crash_in_a_later_hook_takes_out_that_plugin_alone_and_undoes_its_changes() -> None:
    class Crashes:
        @hookimpl
        def torchloom_configure_trainer(self, arguments: dict[str, object]) -> None:
            arguments["max_epochs"] = 7
            arguments["callbacks"].append("half done")  # type: ignore[attr-defined]
            raise RuntimeError("no")

    class Works:
        @hookimpl
        def torchloom_configure_trainer(self, arguments: dict[str, object]) -> None:
            arguments["profiler"] = "simple"

    found = toys.make(toys.source(Crashes(), "a_crashes"), toys.source(Works(), "b_works"))
    arguments = {"callbacks": ["bar"], "max_epochs": 1}
    found.configure_trainer(arguments, None)  # type: ignore[arg-type]
    assert arguments == {"callbacks": ["bar"], "max_epochs": 1, "profiler": "simple"}
    assert [failed.name for failed in found.failed] == ["a_crashes"]
    found.configure_trainer(arguments, None)  # type: ignore[arg-type]
    assert len(found.failed) == 1


def test_an_error_for_the_user_passes_through_a_hook() -> None:
    class Refuses:
        @hookimpl
        def torchloom_configure_trainer(self) -> None:
            raise UnsupportedError("not on this machine")

    found = toys.make(toys.source(Refuses(), "refuses"))
    with pytest.raises(UnsupportedError, match="not on this machine"):
        found.configure_trainer({}, None)  # type: ignore[arg-type]
    assert not found.failed


def test_the_meaning_of_plugins_does_not_depend_on_their_order() -> None:
    one, two = toys.source(toys.Plugin([THING]), "one", "box-one"), toys.source(toys.Plugin(), "two", "box-two")
    there, back = (
        {plugin.name: plugin.components for plugin in toys.make(*way).loaded} for way in [(one, two), (two, one)]
    )
    assert there == back
    assert there["one"] == (THING,)


def test_using_puts_other_plugins_in_place_and_takes_them_away() -> None:
    before = plugins.manager()
    with plugins.using(toys.make()) as other:
        assert plugins.manager() is other
    assert plugins.manager() is before
    assert plugins.manager() is before  # found once


def test_finding_plugins_and_composing_import_no_torch() -> None:
    code = """
        import sys
        from torchloom import builtin, composing, config_source, plugins, registry, schema
        config = composing.compose(["architecture=decoder", "dataset=python_docs", "objective=clm"])
        assert config.architecture.name == "decoder"
        for component in registry.current().components():
            schema.describe(component)
        heavy = {"torch", "pytorch_lightning", "torchvision", "torchmetrics", "matplotlib"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env={**os.environ}, timeout=60)
