import dataclasses

import pytest
import toys

from torchloom import plugins, registry
from torchloom.errors import DuplicateComponentError, MissingDependencyError, PluginError, UnknownComponentError
from torchloom.registry import Registry


def test_names_kinds_and_suppliers() -> None:
    known = Registry(toys.make())
    assert known.names("architecture") == ["cnn", "decoder", "lstm", "wide"]
    assert known.names("callbacks") == ["checkpoint", "early_stopping"]  # by group too
    assert known.kind("callback") is known.kind("callbacks")
    assert known.group_kind("callbacks") is known.kind("callback")
    assert known.group_kind("command") is None
    cnn = known.get("architecture", "cnn")
    assert known.supplier(cnn).distribution == "toy-box"
    assert known.load(cnn) is toys.Empty
    assert known.config_class(cnn) is toys.Cnn


def test_a_renamed_component_is_found_by_its_former_name() -> None:
    known = Registry(toys.make())
    assert known.get("architecture", "long_short").name == "lstm"
    assert "long_short" not in known.names("architecture")


def test_an_unknown_name_is_answered_with_the_nearest_all_names_and_failed_plugins() -> None:
    known = Registry(toys.make(toys.broken()))
    with pytest.raises(UnknownComponentError) as caught:
        known.get("architecture", "CMN")
    assert str(caught.value) == (
        "no architecture is called 'CMN'; did you mean 'cnn'?\n"
        "    To choose from: cnn, decoder, lstm, wide.\n"
        "    plugin 'shattered' (toy-heap 0.3) is left out: ImportError: No module named 'glue'"
    )


@pytest.mark.parametrize("name", ["Python-Docs", "python_doc", "PYTHON_DOCS"])
def test_suggestions_look_past_case_and_dashes(name: str) -> None:
    assert registry.suggest(name, ["digits", "python_docs"]) == "; did you mean 'python_docs'?"


def test_nothing_is_suggested_for_a_name_unlike_any() -> None:
    assert registry.suggest("zzz", ["digits", "python_docs"]) == ""


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(UnknownComponentError) as caught:
        Registry(toys.make()).names("architektur")
    assert str(caught.value) == (
        "no kind is called 'architektur'; did you mean 'architecture'?\n"
        "    To choose from: architecture, attention, callback, command, dataset, logger, objective, optimizer, "
        "parallel, scheduler, tokenizer, trainer."
    )


def test_two_distributions_with_one_name_hurt_only_who_selects_it() -> None:
    other = toys.Plugin([toys.component("architecture", "cnn", toys.Lstm)])
    known = Registry(toys.make(toys.source(other, "rival", "rival-box")))
    with pytest.raises(DuplicateComponentError) as caught:
        known.get("architecture", "cnn")
    assert str(caught.value) == (
        "architecture 'cnn' is supplied by rival-box and by toy-box\n"
        "    say which: architecture=rival-box:cnn or architecture=toy-box:cnn"
    )
    assert known.config_class(known.get("architecture", "rival-box:cnn")) is toys.Lstm
    assert known.config_class(known.get("architecture", "toy-box:cnn")) is toys.Cnn
    assert known.get("architecture", "lstm").name == "lstm"
    assert known.names("architecture") == ["decoder", "lstm", "rival-box:cnn", "toy-box:cnn", "wide"]
    assert {known.label(known.get("architecture", name)) for name in known.names("architecture")} == set(
        known.names("architecture")
    )


def test_a_distribution_may_always_be_named() -> None:
    known = Registry(toys.make())
    assert known.label(known.get("architecture", "toy-box:cnn")) == "cnn"
    with pytest.raises(UnknownComponentError):
        known.get("architecture", "torchloom:cnn")


def test_a_missing_dependency_names_the_extra_or_the_package() -> None:
    extra = toys.component("dataset", "crawl", needs=("no_such_a", "dataclasses"), extra="torchloom[corpus]")
    plain = toys.component("dataset", "other", needs=("no_such_a.inner", "no_such_b"))
    known = Registry(toys.make(toys.source(toys.Plugin([extra, plain]), "needy")))
    with pytest.raises(MissingDependencyError) as caught:
        known.load(known.get("dataset", "crawl"))
    assert str(caught.value) == (
        "dataset 'crawl' needs no_such_a, which is not installed\n    pip install 'torchloom[corpus]'"
    )
    with pytest.raises(MissingDependencyError, match=r"needs no_such_a\.inner, no_such_b, which is not installed"):
        known.load(known.get("dataset", "other"))


def test_a_target_that_cannot_be_imported_keeps_the_cause() -> None:
    lost = dataclasses.replace(toys.component("dataset", "lost"), target="toys:NoSuchClass")
    known = Registry(toys.make(toys.source(toys.Plugin([lost]), "loser", "lost-box")))
    with pytest.raises(PluginError) as caught:
        known.load(known.get("dataset", "lost"))
    assert str(caught.value) == (
        "dataset 'lost' of plugin 'loser' (lost-box 1.0) cannot be imported from toys:NoSuchClass\n"
        "    AttributeError: module 'toys' has no attribute 'NoSuchClass'"
    )
    assert isinstance(caught.value.__cause__, AttributeError)


def test_current_follows_the_plugins_in_use() -> None:
    with plugins.using(toys.make()):
        assert registry.current().names("optimizer") == ["adamw"]
        assert registry.current() is registry.current()
    assert registry.current().names("optimizer") != ["adamw"]


def test_installed_plugins_declare_loadable_configs() -> None:
    known = registry.current()
    for component in known.components():
        assert dataclasses.is_dataclass(known.config_class(component)), component
