"""The exact texts that a person sees for each way of getting a configuration wrong."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import toys

from torchloom import plugins
from torchloom.composing import compose
from torchloom.errors import ConfigError, DuplicateComponentError, PluginError


@pytest.fixture(autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("conf")
    toys.copy_conf(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "toy_conf", raising=False)
    monkeypatch.setattr("torchloom.composing.CONFIG_MODULE", "toy_conf")
    with plugins.using(toys.make()):
        yield


def complaint(overrides: Sequence[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return str(caught.value)


def experiments(folder: Path, **texts: str) -> toys.Plugin:
    (folder / "experiment").mkdir()
    for name, text in texts.items():
        (folder / f"experiment/{name}.yaml").write_text("# @package _global_\n" + textwrap.dedent(text))
    return toys.Plugin(search_paths=[f"file://{folder}"])


ROOT = (
    "Keys at the root: seed, compile, ckpt; groups: dataset, tokenizer, architecture, attention, objective, optimizer, "
    "scheduler, parallel, trainer, callbacks, logger."
)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        # names
        (
            ["objective=Clasification"],
            """\
            objective=Clasification: no objective is called 'Clasification'; did you mean 'classification'?
                To choose from: classification, clm.""",
        ),
        (
            ["callbacks=[checkpoint,early-stoping]"],
            """\
            callbacks=[checkpoint,early-stoping]: no callback is called 'early-stoping'; did you mean 'early_stopping'?
                To choose from: checkpoint, early_stopping.""",
        ),
        (
            ["scheduler=[constant,constant]"],
            """\
            scheduler=[constant,constant]: one scheduler is chosen at a time
                To try several, add -m: scheduler=a,b.""",
        ),
        # groups that nothing opens
        (
            ["attention=sdpa"],
            """\
            attention=sdpa: architecture 'cnn' takes no attention
                Drop it, or choose an architecture that does: decoder.""",
        ),
        (
            ["tokenizer=bpe"],
            """\
            tokenizer=bpe: dataset 'digits' takes no tokenizer
                Drop it, or choose a dataset that does: python_docs.""",
        ),
        (
            ["tokenizer.vocab_size=300"],
            """\
            tokenizer.vocab_size: dataset 'digits' takes no tokenizer
                Drop it, or choose a dataset that does: python_docs.""",
        ),
        (
            ["callbacks.early_stopping.patience=5"],
            """\
            callbacks.early_stopping.patience: callback 'early_stopping' is not chosen
                Choose it with callbacks=[checkpoint,early_stopping], or drop the key.""",
        ),
        # keys
        (
            ["trainer.max_epoch=3"],
            """\
            trainer.max_epoch: trainer 'default' has no such key
                Did you mean 'max_epochs' (int or null)?""",
        ),
        (["sed=3"], "sed: no such key\n    Did you mean 'seed' (int)?"),
        (["lr=3"], "lr: no such key\n    Did you mean 'optimizer.lr'?"),
        (["architectur=lstm"], "architectur: no such key\n    Did you mean 'architecture'?"),
        (["zzz=1"], f"zzz: no such key\n    {ROOT}"),
        (["+zzz=1"], f"zzz: no such key\n    {ROOT}"),
        (
            ["architecture.num_layers=3"],
            """\
            architecture.num_layers: architecture 'cnn' has no such key
                'num_layers' belongs to decoder, lstm; the chosen architecture is cnn.""",
        ),
        (
            ["+architecture.num_layers=3"],
            """\
            architecture.num_layers: architecture 'cnn' has no such key
                'num_layers' belongs to decoder, lstm; the chosen architecture is cnn.""",
        ),
        (["architecture.head.widht=3"], "architecture.head.widht: no such key\n    Did you mean 'width'?"),
        (["seed.x=3"], "seed.x: 'seed' is a value and has no keys"),
        (["sweep.resum=x"], "sweep.resum: no such key\n    Did you mean 'resume' (str or null)?"),
        (
            ["architecture.name=lstm"],
            "architecture.name=lstm: a component's name is not a setting\n    Choose with architecture=lstm.",
        ),
        # values
        (["dataset.batch_size=abc"], "dataset.batch_size: 'abc' is not an int"),
        (["dataset.batch_size=0"], "dataset.batch_size: 0 is out of range; it must be >= 1"),
        (["trainer.deterministic=7"], "trainer.deterministic: 7 is not a bool"),
        (["optimizer.lr=nan"], "optimizer.lr: nan is not a finite number"),
        (
            ["trainer.accelerator=GPUs"],
            """\
            trainer.accelerator: 'GPUs' is not one of auto, cpu, gpu, tpu, mps
                Did you mean 'gpu'?""",
        ),
        (["compile=maybe"], "compile: 'maybe' is not one of auto, true, false"),
        (["trainer.max_epochs={a: 1}"], "trainer.max_epochs: {'a': 1} is not an int"),
        # grammar
        (["dataset"], "dataset: is not of the form KEY=VALUE"),
        (["=3"], "=3: is not of the form KEY=VALUE"),
        (
            ["dataset.batch_size=[1"],
            """\
            dataset.batch_size=[1: cannot be read (no viable alternative at input '[1')
                Quote what has special characters: 'dataset.batch_size="[1"'.""",
        ),
        (
            ["""dataset.path=What's "up"?"""],
            """\
            dataset.path=What's "up"?: cannot be read (character 18)
                Quote what has special characters: 'dataset.path="What'"'"'s \\"up\\"?"'.""",
        ),
        (
            ["seed=1,2"],
            """\
            seed=1,2: gives several values to one run
                To try each of them, add -m; for a list, write 'seed=[1,2]'; for a text, write 'seed="1,2"'.""",
        ),
        (
            ["+trainer=cpu"],
            "+trainer=cpu: this group is chosen already\n    Write trainer=cpu to replace it.",
        ),
        (["++trainer=cpu"], "++trainer=cpu: a group is chosen without '++'\n    Write trainer=cpu."),
        (["+seed=1"], "+seed=1: this key is there already\n    Write seed=1."),
        (["debug=null"], "debug=null: debug cannot be null\n    Write '~debug'."),
        (["~logger"], "~logger: logger cannot be null\n    Write logger=[]."),
        (["~optimizer"], "optimizer: no optimizer is chosen\n    Choose with optimizer=NAME: adamw."),
    ],
)
def test_text(overrides: list[str], text: str) -> None:
    assert complaint(overrides) == textwrap.dedent(text)


def test_everything_is_reported_at_once() -> None:
    said = complaint(
        [
            "objective=clasification",
            "attention=sdpa",
            "scheduler=cosine",
            "trainer.max_epoch=3",
            "dataset.batch_size=abc",
            "optimizer.lr=-1",
            "architecture.num_layers=4",
            "foo bar",
        ]
    )
    assert said == textwrap.dedent(
        """\
        8 problems in the configuration:
          foo bar: is not of the form KEY=VALUE
          objective=clasification: no objective is called 'clasification'; did you mean 'classification'?
            To choose from: classification, clm.
          scheduler=cosine: no scheduler is called 'cosine'
            To choose from: constant.
          attention=sdpa: architecture 'cnn' takes no attention
            Drop it, or choose an architecture that does: decoder.
          trainer.max_epoch: trainer 'default' has no such key
            Did you mean 'max_epochs' (int or null)?
          architecture.num_layers: architecture 'cnn' has no such key
            'num_layers' belongs to decoder, lstm; the chosen architecture is cnn.
          dataset.batch_size: 'abc' is not an int
          optimizer.lr: -1 is out of range; it must be >= 0"""
    )
    assert len(said.splitlines()) < 24


def test_a_wrong_choice_is_not_followed_by_complaints_about_its_keys() -> None:
    said = complaint(["architecture=decodr", "architecture.num_heads=2", "attention=math", "seed=x"])
    assert [line for line in said.splitlines() if not line.startswith("    ")] == [
        "2 problems in the configuration:",
        "  architecture=decodr: no architecture is called 'decodr'; did you mean 'decoder'?",
        "  seed: 'x' is not an int",
    ]


def test_components_stacked_in_one_place_are_refused_once() -> None:
    assert complaint(["architecture=[cnn,lstm]", "seed=x"]) == textwrap.dedent(
        """\
        2 problems in the configuration:
          architecture=[cnn,lstm]: one architecture is chosen at a time
            To try several, add -m: architecture=a,b.
          seed: 'x' is not an int"""
    )


def test_a_name_given_twice_is_refused_where_each_has_one_place() -> None:
    said = complaint(["callbacks=[checkpoint,early_stopping, checkpoint]"])
    assert said == (
        "callbacks=[checkpoint,early_stopping, checkpoint]: 'checkpoint' is given 2 times, and callbacks.checkpoint is one "
        "place\n    Give it once."
    )


def test_a_second_list_is_refused_since_it_adds_nothing() -> None:
    said = complaint(["callbacks=[checkpoint]", "+callbacks=[early_stopping]"])
    assert said == "+callbacks=[early_stopping]: adds nothing to callbacks=[checkpoint]\n    Give one list of all."


def test_the_cause_is_kept() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["architecture=cnm"])
    assert "Could not find 'architecture/cnm'" in str(caught.value.__cause__)


def test_a_failed_plugin_is_named_where_its_component_is_missed() -> None:
    with plugins.using(toys.make(toys.broken())):
        assert complaint(["objective=glued"]) == (
            "objective=glued: no objective is called 'glued'\n"
            "    To choose from: classification, clm.\n"
            "    plugin 'shattered' (toy-heap 0.3) is left out: ImportError: No module named 'glue'"
        )


def test_a_default_whose_plugin_failed_is_named_too() -> None:
    fewer = toys.Plugin([one for one in toys.COMPONENTS if one.name != "csv"])
    with plugins.using(toys.make(toys.broken(), toys=fewer)):
        assert complaint([]) == (
            "logger=csv: no logger is called 'csv'\n"
            "    To choose from: tensorboard.\n"
            "    plugin 'shattered' (toy-heap 0.3) is left out: ImportError: No module named 'glue'"
        )


def test_a_component_whose_config_cannot_be_imported() -> None:
    lost = toys.Component("scheduler", "lost", "lost_module:Lost", "lost_module:LostConfig", "Nowhere to be found")
    with plugins.using(toys.make(toys.source(toys.Plugin([lost]), "loser", "lost-box"))):
        assert compose().scheduler.name == "constant"
        with pytest.raises(PluginError) as caught:
            compose(["scheduler=lost"])
    assert str(caught.value) == (
        "scheduler 'lost' of plugin 'loser' (lost-box 1.0) cannot be imported from lost_module:LostConfig\n"
        "    ModuleNotFoundError: No module named 'lost_module'"
    )


def test_two_plugins_with_one_name() -> None:
    rival = toys.source(toys.Plugin([toys.component("architecture", "cnn")]), "rival", "rival-box")
    with plugins.using(toys.make(rival)):
        assert compose(["architecture=lstm"]).architecture.name == "lstm"
        with pytest.raises(DuplicateComponentError) as caught:
            compose(["architecture=cnn"])
        assert str(caught.value) == (
            "architecture 'cnn' is supplied by rival-box and by toy-box\n"
            "    say which: architecture=rival-box:cnn or architecture=toy-box:cnn"
        )
        said = complaint(["architecture=cnn", "seed.x=1", "objective=clmm"])
        assert "architecture=cnn: architecture 'cnn' is supplied by rival-box and by toy-box" in said


def test_keys_that_an_experiment_leaves_behind_after_a_swap(tmp_path: Path) -> None:
    plugin = experiments(
        tmp_path,
        deep="""\
            defaults:
              - override /architecture: lstm
            architecture:
              num_layers: 3
            """,
    )
    with plugins.using(toys.make(toys.source(plugin, "far"))):
        assert compose(["experiment=deep"]).architecture.num_layers == 3
        assert compose(["experiment=deep", "architecture=decoder"]).architecture.num_layers == 3
        assert complaint(["experiment=deep", "architecture=cnn"]) == (
            "architecture.num_layers: architecture 'cnn' has no such key; experiment/deep.yaml sets it\n"
            "    'num_layers' belongs to decoder, lstm; the chosen architecture is cnn."
        )


def test_a_group_that_an_experiment_chooses_and_a_swap_closes(tmp_path: Path) -> None:
    plugin = experiments(
        tmp_path,
        kernel="""\
            defaults:
              - override /architecture: decoder
              - override /attention: math
            """,
    )
    with plugins.using(toys.make(toys.source(plugin, "far"))):
        assert complaint(["experiment=kernel", "architecture=cnn", "seed=x"]) == textwrap.dedent(
            """\
            2 problems in the configuration:
              experiment/kernel.yaml: chooses an attention, which no chosen architecture takes
                Keep its own architecture, or choose one that takes it: decoder.
              seed: 'x' is not an int"""
        )


def test_an_experiment_with_a_wrong_name_in_it(tmp_path: Path) -> None:
    plugin = experiments(tmp_path, typo="defaults:\n  - override /scheduler: constnat\n")
    with plugins.using(toys.make(toys.source(plugin, "far"))):
        assert complaint(["experiment=typo"]) == (
            "scheduler=constnat: no scheduler is called 'constnat'; did you mean 'constant'?\n"
            "    To choose from: constant."
        )


def test_an_experiment_that_does_not_exist(tmp_path: Path) -> None:
    with plugins.using(toys.make(toys.source(experiments(tmp_path, somewhere=""), "far"))):
        said = complaint(["experiment=somwhere"])
    assert said.startswith("experiment=somwhere: no experiment is called 'somwhere'; did you mean 'somewhere'?\n")
