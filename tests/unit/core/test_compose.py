import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ReadonlyConfigError

from torchloom import plugins
from torchloom.checking import check
from torchloom.composing import compose, finish
from torchloom.continuing import changed_keys, continue_config
from torchloom.errors import ConfigError, Problem
from torchloom.schema import to_plain

TEXT = ["dataset=python_docs", "architecture=decoder", "objective=clm"]


@pytest.fixture(autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("conf")
    toys.copy_conf(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "toy_conf", raising=False)
    monkeypatch.setattr("torchloom.composing.CONFIG_MODULE", "toy_conf")
    with plugins.using(toys.make()):
        yield


def names(config: object) -> dict[str, object]:
    return {key: node["name"] for key, node in to_plain(config).items() if isinstance(node, dict) and "name" in node}


def test_the_defaults_make_a_whole_run() -> None:
    config = compose()
    assert names(config) == {
        "dataset": "digits",
        "architecture": "cnn",
        "objective": "classification",
        "optimizer": "adamw",
        "scheduler": "constant",
        "parallel": "single",
        "trainer": "default",
    }
    assert list(config.callbacks) == ["checkpoint"]
    assert list(config.logger) == ["csv"]
    assert (config.seed, config.compile, config.ckpt) == (0, "auto", None)
    assert "hydra" not in config


def test_choosing_text_and_attention_opens_their_groups() -> None:
    config = compose(TEXT)
    assert (config.tokenizer.name, config.attention.name) == ("char", "sdpa")
    config = compose([*TEXT, "tokenizer=bpe", "tokenizer.vocab_size=300", "attention=math"])
    assert (config.tokenizer.vocab_size, config.attention.name) == (300, "math")


def test_an_experiment_may_override_an_opened_group(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /dataset: python_docs\n  - override /tokenizer: bpe\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/words.yaml").write_text(text)
    with plugins.using(toys.make(toys.source(toys.Plugin(search_paths=[f"file://{tmp_path}"]), "far"))):
        assert compose(["experiment=words"]).tokenizer.name == "bpe"
        assert compose(["experiment=words", "tokenizer=char"]).tokenizer.name == "char"


def test_values_come_out_as_their_fields_types() -> None:
    config = compose(
        ["trainer.max_steps=1e3", "optimizer.lr=1", "compile=true", "dataset=python_docs", "dataset.path=7"]
    )
    plain = to_plain(config)
    assert (plain["trainer"]["max_steps"], type(plain["trainer"]["max_steps"])) == (1000, int)
    assert (plain["optimizer"]["lr"], type(plain["optimizer"]["lr"])) == (1.0, float)
    assert plain["compile"] == "true"
    assert plain["dataset"]["path"] == "7"


def test_presets_debug_and_many_groups() -> None:
    config = compose(["trainer=gpu", "debug=fast", "callbacks=[checkpoint,early_stopping]", "logger=[]"])
    assert (config.trainer.name, config.trainer.accelerator, config.trainer.precision) == (
        "default",
        "gpu",
        "bf16-mixed",
    )
    assert config.trainer.limit_train_batches == 2
    assert list(config.callbacks) == ["checkpoint", "early_stopping"]
    assert config.logger == {}
    assert list(compose(["+callbacks=early_stopping"]).callbacks) == ["checkpoint", "early_stopping"]
    assert compose(["debug=fast", "trainer.limit_train_batches=9"]).trainer.limit_train_batches == 9


@pytest.mark.parametrize("name", ["default", "overfit", "fast"])
def test_every_debug_preset_composes(name: str) -> None:
    assert compose([f"debug={name}"]).trainer.limit_train_batches is not None


def test_a_component_of_an_ambiguous_name_is_chosen_with_its_distribution() -> None:
    rival = toys.source(toys.Plugin([toys.component("architecture", "cnn", toys.Lstm)]), "rival", "rival-box")
    with plugins.using(toys.make(rival)):
        config = compose(["architecture=rival-box:cnn", "architecture.hidden_size=9"])
        assert (config.architecture.name, config.architecture.hidden_size) == ("rival-box:cnn", 9)
        assert not check(config)


def test_the_result_is_closed_to_new_keys_and_stays_writeable() -> None:
    config = compose()
    config.trainer.max_epochs = 3
    assert not check(config)
    with pytest.raises(ConfigAttributeError):
        config.trainer.max_epoch = 3


def test_checking_a_checked_config_changes_nothing() -> None:
    config = compose(TEXT)
    assert finish(config) == config


def test_interpolations_are_filled_in_and_bad_ones_reported() -> None:
    assert compose(["seed=7", "dataset.num_workers=${seed}"]).dataset.num_workers == 7
    with pytest.raises(ConfigError) as caught:
        compose(["dataset.num_workers=${sed}"])
    assert str(caught.value) == "dataset.num_workers: Interpolation key 'sed' not found"


def test_hydra_is_left_as_it_was() -> None:
    assert not GlobalHydra.instance().is_initialized()
    compose()
    with pytest.raises(ConfigError):
        compose(["seed=x"])
    assert not GlobalHydra.instance().is_initialized()


def test_composing_works_inside_another_hydra_application(tmp_path: Path) -> None:
    code = """
        import hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig
        from torchloom.composing import compose

        @hydra.main(version_base="1.3", config_path=None)
        def main(config):
            mine = GlobalHydra.instance().hydra
            print(compose(["seed=3"]).seed, compose(["seed=4"]).seed)
            assert GlobalHydra.instance().hydra is mine
            assert HydraConfig.get().job.name == "app"

        main()
    """
    (tmp_path / "app.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "3 4\n"


def test_plugins_are_found_anew_in_worker_processes() -> None:
    joblib = pytest.importorskip("joblib")
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(_compose_here)(seed) for seed in (1, 2))
    assert found == [(1, "cnn"), (2, "cnn")]


def _compose_here(seed: int) -> tuple[int, str]:
    from torchloom.composing import compose

    config = compose([f"seed={seed}"])
    return config.seed, config.architecture.name


def test_a_plugins_check_is_reported_and_sees_a_read_only_config() -> None:
    def refuse(config: object) -> list[Problem]:
        with pytest.raises(ReadonlyConfigError):
            config.seed = 1  # type: ignore[attr-defined]
        return [Problem("seed", "is unlucky", "Take another.")] if config.seed == 13 else []  # type: ignore[attr-defined]

    with plugins.using(toys.make(toys.source(toys.Plugin(check=refuse), "luck"))):
        assert compose(["seed=12"]).seed == 12
        with pytest.raises(ConfigError) as caught:
            compose(["seed=13"])
    assert str(caught.value) == "seed: is unlucky\n    Take another."


def test_a_config_made_by_hand_is_checked_as_a_whole() -> None:
    plain = to_plain(compose(TEXT))
    del plain["tokenizer"]
    del plain["optimizer"]
    plain["architecture"] = {"name": "cnn"}
    plain["scheduler"] = {"name": "cosin"}
    plain["extra"] = 1
    assert [str(problem) for problem in check(OmegaConf.create(plain))] == [
        "extra: no such key\n    Keys at the root: seed, compile, ckpt; groups: dataset, tokenizer, architecture, "
        "attention, objective, optimizer, scheduler, parallel, trainer, callbacks, logger.",
        "optimizer: no optimizer is chosen\n    Choose with optimizer=NAME: adamw.",
        "scheduler.name: no scheduler is called 'cosin'\n    To choose from: constant.",
        "tokenizer: dataset 'python_docs' needs one, and none is chosen\n"
        "    Choose with tokenizer=NAME, such as tokenizer=char.",
        "attention: architecture 'cnn' takes no attention\n    Drop it, or choose an architecture that does: decoder.",
    ]


# ----------------------------------------------------------------------------------------------- continuing saved runs


def test_a_saved_run_is_rebuilt_as_it_was() -> None:
    saved = to_plain(
        compose([*TEXT, "tokenizer=bpe", "callbacks=[checkpoint,early_stopping]", "seed=4", "optimizer.lr=0.5"])
    )
    again = continue_config(saved)
    assert to_plain(again) == saved
    assert changed_keys(saved, again) == []


def test_overrides_change_values_choices_and_presets() -> None:
    saved = to_plain(compose(TEXT))
    new = continue_config(
        saved,
        ["trainer.max_epochs=3", "attention=math", "callbacks=[early_stopping]", "+logger=tensorboard", "compile=true"],
    )
    assert new.trainer.max_epochs == 3
    assert new.attention.name == "math"
    assert list(new.callbacks) == ["early_stopping"]
    assert list(new.logger) == ["csv", "tensorboard"]
    assert [key for key in changed_keys(saved, new) if not key.startswith("callbacks")] == [
        "attention.name",
        "compile",
        "logger.tensorboard.name",
        "trainer.max_epochs",
    ]
    gpu = continue_config(saved, ["trainer=gpu", "trainer.max_steps=5"])
    assert (gpu.trainer.precision, gpu.trainer.max_steps) == ("bf16-mixed", 5)


def test_replacing_a_component_takes_its_opened_groups_with_it() -> None:
    saved = to_plain(compose(TEXT))
    assert "attention" not in continue_config(saved, ["architecture=lstm"])
    back = continue_config(to_plain(continue_config(saved, ["dataset=digits"])), ["dataset=python_docs"])
    assert back.tokenizer.name == "char"


def test_a_renamed_component_and_a_key_added_since_are_no_change() -> None:
    saved = to_plain(compose(["architecture=lstm"]))
    saved["architecture"]["name"] = "long_short"
    del saved["trainer"]["progress"]
    again = continue_config(saved)
    assert again.architecture.name == "lstm"
    assert again.trainer.progress == "rich"
    assert changed_keys(saved, again) == []


def test_a_saved_config_that_names_no_component_is_refused() -> None:
    saved = to_plain(compose())
    saved["optimizer"] = {"lr": 1}
    saved["logger"] = None
    with pytest.raises(ConfigError) as caught:
        continue_config(saved)
    assert str(caught.value) == textwrap.dedent(
        """\
        2 problems in the configuration:
          optimizer: does not say which optimizer it is
            It needs a key 'name'.
          logger: does not say which logger it is
            It needs a key 'name'."""
    )


def test_all_problems_of_a_continued_run_come_together() -> None:
    saved = to_plain(compose(TEXT))
    saved["optimizer"]["name"] = "lion"
    with pytest.raises(ConfigError) as caught:
        continue_config(
            saved,
            [
                "objective=cml",
                "trainer.max_epoch=3",
                "dataset.batch_size=0",
                "experiment=llm",
                "dataset.name=digits",
                "seed=1,2",
                "~seed",
                "attention=null",
            ],
        )
    assert str(caught.value) == textwrap.dedent(
        """\
        9 problems in the configuration:
          optimizer: no optimizer is called 'lion'
            To choose from: adamw.
          objective=cml: no objective is called 'cml'; did you mean 'clm'?
            To choose from: classification, clm.
          attention=null: one attention is needed
            Choose with attention=NAME.
          trainer.max_epoch: trainer 'default' has no such key
            Did you mean 'max_epochs' (int or null)?
          experiment=llm: an experiment cannot be chosen for a saved run
            Set single keys.
          dataset.name=digits: a component's name is not a setting
            Choose with dataset=digits.
          seed=1,2: gives several values to one run
            To try each of them, add -m; for a list, write 'seed=[1,2]'; for a text, write 'seed="1,2"'.
          ~seed: a key of a saved run cannot be taken away
            Write seed=VALUE.
          dataset.batch_size: 0 is out of range; it must be >= 1"""
    )
