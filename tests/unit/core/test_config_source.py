import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from torchloom import config_source, plugins
from torchloom.composing import compose
from torchloom.config_source import RegistrySearchPath, RegistrySource
from torchloom.errors import ConfigError


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with plugins.using(toys.make()):
        yield


def presets(folder: Path, files: dict[str, str]) -> str:
    """Write YAML presets and return their search path."""
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return f"file://{folder}"


def test_the_source_answers_as_hydra_asks() -> None:
    source = RegistrySource("torchloom", "registry://")
    assert source.available()
    assert source.is_group("")
    assert source.is_group(config_path="architecture")
    assert source.is_group(config_path="callbacks/")
    assert not source.is_group(config_path="callback")
    assert not source.is_group(config_path="command")
    assert not source.is_group(config_path="hydra/launcher")
    assert source.is_config("architecture/cnn")
    assert source.is_config("architecture/cnn.yaml")
    assert source.is_config("architecture/long_short")  # a former name
    assert not source.is_config("architecture/resnet")
    assert not source.is_config("command/train")
    assert source.list("architecture", ObjectType.CONFIG) == ["cnn", "decoder", "lstm", "wide"]
    assert source.list("architecture", ObjectType.GROUP) == []
    assert "architecture" in source.list("", ObjectType.GROUP)
    assert source.list("nowhere", None) == []


def test_several_components_of_a_kind_sit_under_their_names() -> None:
    source = RegistrySource("torchloom", "registry://")
    assert source.load_config("callbacks/early_stopping").header == {"package": "callbacks.early_stopping"}
    assert source.load_config("architecture/cnn").header == {"package": None}
    assert source.load_config("architecture/cnn").provider == "toy-box"


def test_only_the_chosen_components_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = toys.Component("architecture", "lost", "no_such_module:X", "no_such_module:X", "Cannot be imported")
    with plugins.using(toys.make(toys.source(toys.Plugin([lost]), "loser"))):
        assert compose(["architecture=lstm"]).architecture.name == "lstm"


def test_the_source_travels_to_other_processes() -> None:
    source = pickle.loads(pickle.dumps(RegistrySource("torchloom", "registry://")))
    assert source.is_config("architecture/cnn")


def test_plugins_presets_are_attributed_to_their_distribution(tmp_path: Path) -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    path: ConfigSearchPath = ConfigSearchPathImpl()
    with plugins.using(toys.make(toys.source(toys.Plugin(search_paths=["pkg://far.conf"]), "far", "far-box"))):
        RegistrySearchPath().manipulate_search_path(path)
    assert [(one.provider, one.path) for one in path.get_path()] == [
        ("torchloom", "registry://"),
        ("far-box", "pkg://far.conf"),
    ]


def test_a_plugins_preset_and_experiment_compose(tmp_path: Path) -> None:
    where = presets(
        tmp_path,
        {
            "architecture/small": "defaults: [lstm, _self_]\nhidden_size: 8\n",
            "experiment/far": "# @package _global_\ndefaults:\n  - override /architecture: small\nseed: 5\n",
        },
    )
    with plugins.using(toys.make(toys.source(toys.Plugin(search_paths=[where]), "far"))):
        config = compose(["experiment=far"])
        assert (config.architecture.name, config.architecture.hidden_size, config.seed) == ("lstm", 8, 5)
        assert compose(["experiment=far", "architecture.hidden_size=16"]).architecture.hidden_size == 16
        assert compose(["experiment=far", "architecture=cnn"]).architecture.name == "cnn"


def test_a_preset_with_a_components_name_is_refused_naming_both(tmp_path: Path) -> None:
    where = presets(tmp_path, {"architecture/lstm": "defaults: [cnn, _self_]\n"})
    with plugins.using(toys.make(toys.source(toys.Plugin(search_paths=[where]), "far", "far-box"))):
        assert compose(["architecture=cnn"]).architecture.name == "cnn"  # nobody else is hurt
        with pytest.raises(ConfigError) as caught:
            compose(["architecture=lstm"])
    assert str(caught.value) == (
        f"architecture=lstm: is held by architecture 'lstm' of toy-box and by {tmp_path} of far-box\n"
        "    Rename one; a preset needs a name of its own."
    )


def test_a_preset_that_two_distributions_hold_is_refused(tmp_path: Path) -> None:
    text = "defaults: [cnn, _self_]\n"
    one, two = (toys.Plugin(search_paths=[presets(tmp_path / at, {"architecture/odd": text})]) for at in "ab")
    both = toys.make(toys.source(one, "one", "box-one"), toys.source(two, "two", "box-two"))
    with plugins.using(both), pytest.raises(ConfigError) as caught:
        compose(["architecture=odd"])
    assert str(caught.value).splitlines()[0] == (
        f"architecture=odd: is held by {tmp_path}/a of box-one and by {tmp_path}/b of box-two"
    )


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"experiment": "llm", "architecture": "decoder"}, "llm"),
        ({"experiment": None, "architecture": "cnn"}, "cnn"),
        ({"architecture": "rival-box:cnn"}, "rival-box-cnn"),
        ({"experiment": "tiny/llm"}, "tiny-llm"),
        ({}, "run"),
    ],
)
def test_a_run_is_called_after_its_experiment_or_architecture(choices: dict[str, str | None], name: str) -> None:
    assert config_source.run_name(choices) == name
    config = OmegaConf.create({"choices": choices, "dir": "runs/x_${torchloom_run_name:${choices}}"})
    assert config.dir == f"runs/x_{name}"
