import dataclasses
import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from torchloom import Component, option, plugins, registry, schema
from torchloom.configs import RunConfig
from torchloom.errors import ConfigError, PluginError


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with plugins.using(toys.make()):
        yield


def architecture(name: str) -> Component:
    return registry.current().get("architecture", name)


def problems(values: dict[str, Any], name: str = "wide") -> list[str]:
    return [str(problem) for problem in schema.check_node(architecture(name), values)]


def test_a_node_holds_the_name_and_the_defaults_as_plain_values() -> None:
    node = schema.make_node(architecture("cnn"))
    assert OmegaConf.to_container(node) == {
        "name": "cnn",
        "stages": [{"width": 32, "pool": True}, {"width": 64, "pool": True}],
        "norm": "none",
        "dropout": 0.0,
        "head": {"width": 32, "pool": True},
    }
    assert "defaults" not in node


def test_a_node_that_opens_groups_fills_them() -> None:
    node = schema.make_node(architecture("decoder"))
    assert OmegaConf.to_container(node)["defaults"] == [{"/attention@_global_.attention": "sdpa"}, "_self_"]


def test_nodes_do_not_share_their_defaults() -> None:
    schema.make_node(architecture("cnn")).stages.append({"width": 1})
    assert len(schema.make_node(architecture("cnn")).stages) == 2


def test_a_name_cannot_be_written_over() -> None:
    node = schema.make_node(architecture("cnn"))
    with pytest.raises(ReadonlyConfigError):
        node.name = "lstm"


def test_an_ambiguous_component_is_named_with_its_distribution() -> None:
    rival = toys.source(toys.Plugin([toys.component("architecture", "cnn")]), "rival", "rival-box")
    with plugins.using(toys.make(rival)):
        assert schema.make_node(architecture("rival-box:cnn")).name == "rival-box:cnn"


finite = st.floats(-1e5, 1e5)
stages = st.builds(toys.Stage, width=st.integers(1, 10**12), pool=st.booleans())
# "???" marks a missing value and "${" begins an interpolation: to OmegaConf neither is a plain text.
words = st.text(st.characters(codec="utf-8", exclude_characters="$?\\", exclude_categories=["C", "Z"]))
wide = st.builds(
    toys.Wide,
    whole=st.integers(-5, 5),
    number=finite,
    flag=st.booleans(),
    word=words,
    maybe=st.none() | st.integers(),
    either=st.integers() | words,
    choice=st.sampled_from(["red", "green"]),
    count=st.sampled_from([1, 2, 4]),
    where=st.none() | words.filter(bool).map(Path),
    many=st.lists(st.integers(), max_size=3),
    pair=st.tuples(finite, finite),
    table=st.dictionaries(words.filter(bool), finite, max_size=3),
    inner=stages,
    inners=st.lists(stages, max_size=2),
    spare=st.none() | stages,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wide)
def test_a_config_survives_node_and_yaml(config: toys.Wide) -> None:
    node = OmegaConf.merge(schema.make_node(architecture("wide")), {"name": "wide"} | schema.to_plain(config))
    text = OmegaConf.to_yaml(node)
    assert schema.to_config(architecture("wide"), OmegaConf.create(text)) == config
    assert schema.to_config(architecture("wide"), schema.to_plain(node)) == config


def test_absent_keys_take_their_defaults() -> None:
    assert schema.to_config(architecture("wide"), {"name": "wide"}) == toys.Wide()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"whole": 1e0}, 1),  # 1e4 is a float to Hydra
        ({"whole": "2"}, 2),  # environment variables are texts
        ({"number": 2}, 2.0),
        ({"number": "1e-3"}, 1e-3),
        ({"flag": "false"}, False),
        ({"word": 12}, "12"),
        ({"maybe": None}, None),
        ({"where": "a/b"}, Path("a/b")),
        ({"pair": [1, 2]}, (1.0, 2.0)),
        ({"inner": {"width": 5}}, toys.Stage(width=5)),
        ({"inners": [{"pool": False}]}, [toys.Stage(pool=False)]),
        ({"table": {"a": 1}}, {"a": 1.0}),
    ],
)
def test_values_that_mean_the_type_become_it(values: dict[str, Any], expected: Any) -> None:
    made = getattr(schema.to_config(architecture("wide"), values), next(iter(values)))
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"whole": "abc"}, "architecture.whole: 'abc' is not an int"),
        ({"whole": 1.5}, "architecture.whole: 1.5 is not an int"),
        ({"whole": True}, "architecture.whole: true is not an int"),
        ({"whole": None}, "architecture.whole: null is not an int"),
        ({"whole": [1]}, "architecture.whole: [1] is not an int"),
        ({"whole": 6}, "architecture.whole: 6 is out of range; it must be >= -5, <= 5"),
        ({"number": float("nan")}, "architecture.number: nan is not a finite number"),
        ({"number": "inf"}, "architecture.number: 'inf' is not a finite number"),
        ({"number": False}, "architecture.number: false is not a float"),
        ({"number": 1e6}, "architecture.number: 1000000.0 is out of range; it must be > -1e+06, < 1e+06"),
        ({"flag": 7}, "architecture.flag: 7 is not a bool"),
        ({"flag": "yes"}, "architecture.flag: 'yes' is not a bool"),
        ({"word": True}, "architecture.word: true is not a str"),
        ({"maybe": "x"}, "architecture.maybe: 'x' is not an int"),
        ({"either": 1.5}, None),
        ({"either": [1]}, "architecture.either: [1] is not an int or str"),
        (
            {"choice": "gren"},
            "architecture.choice: 'gren' is not one of red, green\n    Did you mean 'green'?",
        ),
        ({"count": 3}, "architecture.count: 3 is not one of 1, 2, 4"),
        ({"count": True}, "architecture.count: true is not one of 1, 2, 4"),
        ({"many": 5}, "architecture.many: 5 is not a list\n    Write 'architecture.many=[5]'."),
        ({"many": [1, "b"]}, "architecture.many[1]: 'b' is not an int"),
        ({"pair": [1]}, "architecture.pair: [1] has 1 items; it takes 2"),
        ({"table": {"a": "b"}}, "architecture.table.a: 'b' is not a float"),
        ({"table": 1}, "architecture.table: 1 is not a mapping"),
        ({"inner": 1}, "architecture.inner: 1 is not a mapping\n    Keys: width, pool."),
        ({"inner": {"width": 0}}, "architecture.inner.width: 0 is out of range; it must be >= 1"),
        (
            {"inners": [{}, {"widht": 3}]},
            "architecture.inners[1].widht: no such key\n    Did you mean 'width' (int)?",
        ),
        ({"spare": {"pool": 1}}, "architecture.spare.pool: 1 is not a bool"),
        (
            {"word": "???"},
            "architecture.word: is needed and not given\n    Add architecture.word=VALUE (str).",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused(values: dict[str, Any], message: str | None) -> None:
    assert problems(values) == ([message] if message else [])


def test_an_unknown_key_names_the_nearest_and_its_type() -> None:
    assert problems({"choise": "red"}) == [
        "architecture.choise: architecture 'wide' has no such key\n    Did you mean 'choice' (one of: red, green)?"
    ]


def test_a_key_of_another_component_names_its_owners() -> None:
    assert problems({"num_layers": 3}, "cnn") == [
        "architecture.num_layers: architecture 'cnn' has no such key\n"
        "    'num_layers' belongs to decoder, lstm; the chosen architecture is cnn."
    ]


def test_all_problems_are_raised_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        schema.to_config(architecture("lstm"), {"name": "lstm", "num_layers": 0, "hidden_size": "big", "odd": 1})
    assert str(caught.value) == (
        "3 problems in the configuration:\n"
        "  architecture.num_layers: 0 is out of range; it must be >= 1\n"
        "  architecture.hidden_size: 'big' is not an int\n"
        "  architecture.odd: architecture 'lstm' has no such key\n"
        "    Keys: num_layers, hidden_size."
    )


@pytest.mark.parametrize(
    ("given_value", "expected"), [(True, "true"), (False, "false"), ("true", "true"), ("auto", "auto")]
)
def test_a_boolean_is_taken_for_the_choice_of_that_name(given_value: object, expected: str) -> None:
    found: list[Any] = []
    made = schema.read(RunConfig, {"compile": given_value}, "", found)
    assert not found
    assert made is not None
    assert made.compile == expected


def test_describe_says_everything_about_a_field() -> None:
    fields = {field.name: field for field in schema.describe(architecture("cnn"))}
    assert dataclasses.asdict(fields["dropout"]) == {
        "name": "dropout",
        "type": "float",
        "default": 0.0,
        "doc": "Probability of dropping a unit.",
        "range": ">= 0, < 1",
        "unit": "",
        "source": "Srivastava 2014",
    }
    assert fields["norm"].type == "one of: none, batch"
    assert fields["stages"].type == "list of Stage"
    assert list(fields) == ["stages", "norm", "dropout", "head.width", "head.pool"]
    assert fields["head.width"].default == 32
    optional = {field.name: field for field in schema.describe(registry.current().get("dataset", "python_docs"))}
    assert optional["path"].type == "path or null"
    assert optional["context_length"].unit == "tokens"


class Colour(enum.Enum):
    RED = 1


def test_to_plain_leaves_nothing_but_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY", "9")
    config = OmegaConf.create(
        {
            "a": {"b": "${oc.env:TOY}", "c": "${a.b}"},
            "path": Path("x/y"),
            "colour": Colour.RED,
            "list": [None, 1.5, True],
        }
    )
    assert schema.to_plain(config) == {
        "a": {"b": os.environ["TOY"], "c": "9"},
        "path": "x/y",
        "colour": "RED",
        "list": [None, 1.5, True],
    }


@dataclass
class Reserved:
    name: str = option("x", "Clashes with the component's name.")


@dataclass
class Strange:
    thing: complex = option(1j, "Of a type no config file can hold.")


def test_a_config_class_that_is_unfit_is_refused() -> None:
    odd = [
        dataclasses.replace(toys.component("dataset", "reserved"), config=f"{__name__}:Reserved"),
        dataclasses.replace(toys.component("dataset", "strange"), config=f"{__name__}:Strange"),
        dataclasses.replace(toys.component("dataset", "plain"), config=f"{__name__}:Colour"),
    ]
    with plugins.using(toys.make(toys.source(toys.Plugin(odd), "odd"))):
        with pytest.raises(PluginError, match="may not have a field called 'name'"):
            schema.make_node(odd[0])
        with pytest.raises(PluginError, match=r"dataset\.thing: a config field cannot be of type complex"):
            schema.to_config(odd[1], {"thing": 1})
        with pytest.raises(PluginError, match="is not a dataclass"):
            schema.make_node(odd[2])


def test_installed_components_make_nodes_that_read_back() -> None:
    with plugins.using(plugins.PluginManager.discover()):
        for component in registry.current().components():
            cls = registry.current().config_class(component)
            node = schema.make_node(component)
            if "???" not in str(node):
                node.pop("defaults", None)
                assert schema.to_config(component, node) == cls()
