"""The exact text of every mistake on the command line; none leaves a file behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import Result

from torchloom import registry

Call = Callable[..., Result]

MISTAKES = {
    "unknown component": (
        ["train", "parallel=singel"],
        """\
torchloom: error: parallel=singel: no parallel is called 'singel'; did you mean 'single'?
    To choose from: ddp, single.
""",
    ),
    "unknown key": (
        ["train", "trainer.max_epoch=3"],
        """\
torchloom: error: trainer.max_epoch: trainer 'default' has no such key
    Did you mean 'max_epochs' (int or null)?
""",
    ),
    "wrong type": (["train", "optimizer.lr=fast"], "torchloom: error: optimizer.lr: 'fast' is not a float\n"),
    "out of range": (
        ["train", "trainer.max_epochs=0"],
        "torchloom: error: trainer.max_epochs: 0 is out of range; it must be >= 1\n",
    ),
    "a key left from another component": (
        ["train", "optimizer=adamw", "optimizer.momentum=0.9"],
        """\
torchloom: error: optimizer.momentum: optimizer 'adamw' has no such key
    'momentum' belongs to sgd; the chosen optimizer is adamw.
""",
    ),
    "several at once": (
        ["train", "parallel=singel", "optimizer.lr=fast", "trainer.max_epochs=0"],
        """\
torchloom: error: 3 problems in the configuration:
  parallel=singel: no parallel is called 'singel'; did you mean 'single'?
    To choose from: ddp, single.
  optimizer.lr: 'fast' is not a float
  trainer.max_epochs: 0 is out of range; it must be >= 1
""",
    ),
    "no value": (["train", "foo"], "torchloom: error: foo: is not of the form KEY=VALUE\n"),
    "several values without -m": (
        ["train", "seed=1,2"],
        """\
torchloom: error: seed=1,2: gives several values to one run
    To try each of them, add -m; for a list, write 'seed=[1,2]'; for a text, write 'seed="1,2"'.
""",
    ),
    "a flag that there is not": (
        ["train", "--fast"],
        """\
usage: torchloom train [KEY=VALUE ...] [FLAGS]
torchloom train: error: unrecognized arguments: --fast
""",
    ),
    "a checkpoint that is not given": (
        ["evaluate"],
        """\
torchloom: error: ckpt: is needed and not given
    For example: torchloom evaluate ckpt=last
""",
    ),
    "a checkpoint that is not there": (
        ["train", "ckpt=no.ckpt"],
        """\
torchloom: error: ckpt: there is no file no.ckpt
    ckpt=last is the newest checkpoint of the newest run.
""",
    ),
    "no run to go on with": (
        ["train", "ckpt=last"],
        """\
torchloom: error: ckpt=last: no run under runs or sweeps has a checkpoint
    Name the run's folder with hydra.run.dir=FOLDER, or the file with ckpt=FILE
""",
    ),
    "a command's key": (
        ["list", "kin=architecture"],
        """\
torchloom: error: kin: 'torchloom list' has no such key
    Did you mean 'kind' (str or null)?
""",
    ),
    "a command's key, where others are of the run": (
        ["generate", "max_new_token=30"],
        """\
torchloom: error: max_new_token: 'torchloom generate' has no such key
    Did you mean 'max_new_tokens' (int)?
""",
    ),
    "two words": (
        ["show", "architecture/cnn", "architecture/lstm"],
        """\
torchloom: error: architecture/cnn architecture/lstm: 'torchloom show' takes one word, the component
    Everything after it is KEY=VALUE; 'torchloom show --help' lists the keys
""",
    ),
    "a word that is no KIND/NAME": (
        ["show", "cnn"],
        """\
torchloom: error: component: 'cnn' is not KIND/NAME
    Did you mean architecture/cnn?
""",
    ),
    "a preset alone": (
        ["show", "decoder_7b"],
        """\
torchloom: error: component: 'decoder_7b' is not KIND/NAME
    Did you mean architecture/decoder_7b?
""",
    ),
    "a group set where a component is named": (
        ["show", "architecture=decoder_7b"],
        """\
torchloom: error: architecture: 'torchloom show' has no such key
    Write torchloom show architecture/decoder_7b
""",
    ),
    "groups set where a component is named, several and none": (
        ["show", "dataset=digits,mnist", "~architecture"],
        """\
torchloom: error: 2 problems in the configuration:
  dataset: 'torchloom show' has no such key
    Write torchloom show dataset/digits
  architecture: 'torchloom show' has no such key
    Write torchloom show architecture/NAME
""",
    ),
    "jobs of a sweep": (
        ["train", "-m", "parallel=singel,single", "trainer.max_epochs=0,1", "optimizer.lr=1,2"],
        """\
torchloom: error: 2 problems in the configuration:
  parallel=singel: no parallel is called 'singel'; did you mean 'single'? (jobs 0, 1, 2, 3 of 8)
    To choose from: ddp, single.
  trainer.max_epochs: 0 is out of range; it must be >= 1 (jobs 0, 1, 4, 5 of 8)
""",
    ),
    "what all jobs of a sweep share": (
        ["train", "-m", "parallel=singel,single", "trainer.max_epoch=3"],
        """\
torchloom: error: 2 problems in the configuration:
  parallel=singel: no parallel is called 'singel'; did you mean 'single'? (job 0 of 2)
    To choose from: ddp, single.
  trainer.max_epoch: trainer 'default' has no such key
    Did you mean 'max_epochs' (int or null)?
""",
    ),
    "an interval": (
        ["train", "-m", "seed=interval(0,1)"],
        """\
torchloom: error: seed=interval(0,1): has no list of values to try
    Write KEY=A,B,C or KEY=range(A,B).
""",
    ),
    "a continued run that is swept over": (
        ["train", "-m", "ckpt=last", "seed=1,2"],
        """\
torchloom: error: ckpt: goes on with one run, which cannot be swept over
    Leave out -m.
""",
    ),
    "a sweep that is not there": (
        ["train", "sweep.resume=nowhere"],
        """\
torchloom: error: sweep.resume: nowhere does not exist
    Name the folder that the sweep printed as its last line.
""",
    ),
    "a folder that is no sweep's": (
        ["train", "-m", "sweep.resume=."],
        """\
torchloom: error: sweep.resume: . is not a sweep's folder: it has no multirun.yaml that can be read
    Name the folder that the sweep printed as its last line.
""",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_told_exactly_and_leaves_nothing(case: str, call: Call, tmp_path: Path) -> None:
    words, text = MISTAKES[case]
    result = call(*words)
    assert result.err == text
    assert result.out == ""
    assert result.code == 2
    assert list(tmp_path.iterdir()) == []


def test_unknown_command_names_the_nearest_and_all(call: Call) -> None:
    result = call("trian", "seed=1")
    names = ", ".join(registry.current().names("command"))
    assert result.err == (
        f"torchloom: error: no command is called 'trian'; did you mean 'train'?\n    To choose from: {names}.\n"
    )
    assert result.code == 2


def test_a_flag_before_the_command_is_refused(call: Call) -> None:
    result = call("-m", "train")
    assert result.err.startswith("torchloom: error: '-m' stands where a command belongs\n    torchloom COMMAND")
    assert result.code == 2


@pytest.mark.parametrize("variable", ["TORCHLOOM_TRACEBACK", "HYDRA_FULL_ERROR"])
def test_traceback_on_request(variable: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in call("train", "optimizer.lr=fast").err
    monkeypatch.setenv(variable, "1")
    result = call("train", "optimizer.lr=fast")
    assert "Traceback" in result.err
    assert result.err.endswith("torchloom: error: optimizer.lr: 'fast' is not a float\n")


def test_a_step_given_twice_in_a_recipe_is_refused_by_the_recipes_name(call: Call, tmp_path: Path) -> None:
    """Each step has one place, so that one of two would be lost."""
    (tmp_path / "recipe").mkdir()
    recipe = "# @package _global_\ndefaults:\n  - override /steps: [length, whitespace, length]\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(recipe, encoding="utf-8")
    given = ["corpus", "build", "source=text_files", "source.path=x", f"--config-dir={tmp_path}"]
    result = call(*given, "recipe=mine")
    assert result.code == 2
    assert result.err == (
        "torchloom: error: recipe/mine.yaml: 'length' is given 2 times, and steps.length is one place\n    Give it once.\n"
    )
    assert "'length' is given 2 times" in call(*given, "steps=[length,length]").err
