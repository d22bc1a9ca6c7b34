"""A small world for the tests of the configuration: two families of data, three of networks, and few presets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torchloom_conf

import torchloom.builtin
from torchloom import Component, hookimpl, option
from torchloom.configs import DatasetConfig, OptimizerConfig
from torchloom.plugins import PluginManager, PluginSource


@dataclass
class Empty:
    pass


@dataclass
class Text(DatasetConfig):
    path: Path | None = option(None, "Where the text is.")
    context_length: int = option(64, "Tokens a model sees.", ge=1, unit="tokens")


@dataclass
class Bpe:
    vocab_size: int = option(512, "Tokens to learn.", ge=2)


@dataclass
class Stage:
    width: int = option(32, "Channels.", ge=1)
    pool: bool = option(True, "Halve the image.")


@dataclass
class Cnn:
    stages: list[Stage] = option(lambda: [Stage(), Stage(64)], "One convolution each.")
    norm: Literal["none", "batch"] = option("none", "Normalisation.")
    dropout: float = option(0.0, "Probability of dropping a unit.", ge=0, lt=1, source="Srivastava 2014")
    head: Stage = option(Stage, "The last one.")


@dataclass
class Lstm:
    num_layers: int = option(1, "Layers.", ge=1)
    hidden_size: int = option(128, "Width.", ge=1)


@dataclass
class Decoder:
    num_layers: int = option(4, "Blocks.", ge=1)
    num_heads: int = option(4, "Heads.", ge=1)


@dataclass
class Early:
    patience: int = option(3, "Validations without progress before training ends.", ge=1, unit="validations")


@dataclass
class Wide:
    """One field of every form that a config may have."""

    whole: int = option(3, "A whole number.", ge=-5, le=5)
    number: float = option(0.5, "A number.", gt=-1e6, lt=1e6)
    flag: bool = option(True, "A flag.")
    word: str = option("a", "A word.")
    maybe: int | None = option(None, "A whole number, or nothing.")
    either: int | str = option("x", "Either.")
    choice: Literal["red", "green"] = option("red", "A colour.")
    count: Literal[1, 2, 4] = option(2, "A number of a few.")
    where: Path | None = option(None, "A path.")
    many: list[int] = option(list, "Whole numbers.")
    pair: tuple[float, float] = option((0.9, 0.99), "Two numbers.")
    table: dict[str, float] = option(dict, "Numbers by word.")
    inner: Stage = option(Stage, "A dataclass.")
    inners: list[Stage] = option(list, "Dataclasses.")
    spare: Stage | None = option(None, "A dataclass, or nothing.")


def component(kind: str, name: str, config: type[Any] = Empty, **more: Any) -> Component:
    return Component(
        kind=kind, name=name, target="toys:Empty", config=f"toys:{config.__name__}", summary=f"A toy {kind}", **more
    )


COMPONENTS = [
    component("dataset", "digits", DatasetConfig),
    component("dataset", "python_docs", Text, slots={"tokenizer": "char"}),
    component("tokenizer", "char"),
    component("tokenizer", "bpe", Bpe),
    component("architecture", "cnn", Cnn, source="LeCun 1989"),
    component("architecture", "lstm", Lstm, aliases=("long_short",)),
    component("architecture", "decoder", Decoder, slots={"attention": "sdpa"}),
    component("architecture", "wide", Wide),
    component("attention", "sdpa"),
    component("attention", "math"),
    component("objective", "classification"),
    component("objective", "clm"),
    component("optimizer", "adamw", OptimizerConfig),
    component("scheduler", "constant"),
    component("parallel", "single"),
    component("callback", "early_stopping", Early),
    component("logger", "csv"),
    component("logger", "tensorboard"),
]


@dataclass(eq=False)
class Plugin:
    """A plugin made of what it returns."""

    components: Iterable[Component] = ()
    search_paths: Iterable[str] = ()
    check: Callable[[Any], Any] = field(default=lambda config: [])

    @hookimpl
    def torchloom_components(self) -> Iterable[Component]:
        return self.components

    @hookimpl
    def torchloom_config_search_paths(self) -> Iterable[str]:
        return self.search_paths

    @hookimpl
    def torchloom_check_config(self, config: Any) -> Any:
        return self.check(config)


def source(plugin: object, name: str = "toys", distribution: str = "toy-box", version: str = "1.0") -> PluginSource:
    return PluginSource(name, distribution, version, lambda: plugin)


def broken(name: str = "shattered", distribution: str = "toy-heap") -> PluginSource:
    def load() -> object:
        raise ImportError("No module named 'glue'")

    return PluginSource(name, distribution, "0.3", load)


def copy_conf(folder: Path) -> None:
    """Make a package ``toy_conf`` that holds the primary config and the fixed presets, but nobody's experiments."""
    conf = Path(torchloom_conf.__file__).parent
    package = folder / "toy_conf"
    for part in ("debug", "trainer"):
        shutil.copytree(conf / part, package / part)
    shutil.copy(conf / "config.yaml", package)
    (package / "__init__.py").touch()


def make(*more: PluginSource, toys: Plugin | None = None, **options: Any) -> PluginManager:
    """Build the core's own plugin, the toys, and more."""
    core = source(torchloom.builtin, "core", "torchloom", "9.9")
    return PluginManager([core, source(toys or Plugin(COMPONENTS)), *more], **options)
