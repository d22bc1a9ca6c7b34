"""What the program says about itself, and that saying it needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import PROGRAM, Result, environment

import torchloom
from torchloom import registry
from torchloom.plugins import PluginManager, PluginSource, using

Call = Callable[..., Result]


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_overview_names_every_command_with_its_summary(words: tuple[str, ...], call: Call) -> None:
    result = call(*words)
    assert result.code == 0
    for command in registry.current().components("command"):
        assert f"  {command.name.replace('_', ' ')}" in result.out
        assert command.summary in result.out


def test_command_of_two_words(call: Call) -> None:
    assert "Usage: torchloom corpus build [KEY=VALUE ...] [FLAGS]" in call("corpus", "build", "--help").out
    assert call("corpus_build", "--help").out == call("corpus", "build", "--help").out
    for words in (("corpus",), ("corpus", "bild"), ("corpus", "out=x")):
        result = call(*words)
        assert result.code == 2
        assert result.err == (
            f"torchloom: error: {' '.join(words)}: 'corpus' is half a command\n"
            "    Write torchloom corpus build or torchloom corpus report.\n"
        )


def test_groups_of_one_command_are_no_keys_of_another(call: Call) -> None:
    """What a corpus is made by is not told by `train --help`, nor accepted there, and the other way round."""
    out = call("train", "--help").out
    rows = [line.split()[:1] for line in out.splitlines()]
    assert ["steps"] not in rows
    assert ["recipe"] not in rows
    result = call("train", "source=warc")
    assert result.code == 2
    assert result.err.startswith("torchloom: error: source: no such key\n")
    rows = [line.split()[:1] for line in call("corpus", "build", "--help").out.splitlines()]
    assert ["tokenizer"] in rows
    assert ["architecture"] not in rows
    assert ["experiment"] not in rows
    result = call("corpus", "build", "source=text_files", "source.path=x", "optimizer.lr=1")
    assert result.code == 2
    assert result.err.startswith("torchloom: error: optimizer.lr: no such key\n")
    assert "--multirun" not in call("corpus", "build", "--help").out
    assert "--multirun" in call("train", "--help").out
    result = call("corpus", "build", "-m", "source=text_files", "tasks=1,2")
    assert result.err == (
        "torchloom: error: -m: 'torchloom corpus build' does one thing at a time\n    Leave it out.\n"
    )


def test_version(call: Call) -> None:
    assert call("--version").out == call("train", "--version").out == f"torchloom {torchloom.__version__}\n"


def test_help_of_a_command(call: Call) -> None:
    """Usage, examples, own keys, keys that fingers know, groups with their options."""
    out = call("train", "--help").out
    assert "Usage: torchloom train [KEY=VALUE ...] [FLAGS]" in out
    assert "\n  torchloom train experiment=cnn\n" in out
    for key in ("seed=0", "compile=auto", "trainer.max_steps=null", "dataset.batch_size=64", "optimizer.lr=0.001"):
        assert f"\n  {key} " in out
    rows = [line.split() for line in out.splitlines()]
    assert ["parallel", "ddp,", "single"] in rows
    assert any(row[:1] == ["experiment"] and "cnn," in row for row in rows)
    out = call("evaluate", "--help").out
    assert "\n  ckpt= " in out
    assert "overrides" not in out.replace("overrides of", "")
    assert "vgg16_transfer" in out
    assert "vgg16_transfer" not in call("list", "--help").out


def test_composed_configuration_is_printed_by_hydras_flags(call: Call) -> None:
    assert call("train", "optimizer.lr=0.5", "--cfg", "job", "--package", "optimizer.lr").out == "0.5\n"
    out = call("evaluate", "ckpt=x/y.ckpt", "split=val", "dataset.path=a b", "trainer=cpu", "--cfg", "job")
    assert out.code == 2  # the checkpoint is not there
    Path("y.ckpt").touch()
    out = call("evaluate", "ckpt=y.ckpt", "split=val", "dataset.path='a b'", "trainer=cpu", "--cfg", "job")
    assert out.out == "ckpt: y.ckpt\nsplit: val\nout: null\noverrides:\n- dataset.path='a b'\n- trainer=cpu\n"
    assert "experiment: null" in call("train", "--info", "defaults-tree").out


def test_list(call: Call) -> None:
    out = call("list").out
    for kind in registry.current().kinds:
        assert f"\n {kind} " in out
    out = call("list", "parallel").out
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row[:1] == ["ddp"]] == ["ddp"]
    assert f"torchloom {torchloom.__version__}" in out
    assert "cnn" not in out
    assert call("list", "kind=parallel").out == out


def test_list_names_presets(call: Call) -> None:
    """Beside the component that they start from in the end, or those of a group that has no components."""
    words = call("list", "architecture").out.replace(",", " ").split()
    assert {"decoder_tiny", "decoder_7b", "nanogpt", "minilm", "vaswani_big"} <= set(words)
    out = call("list", "experiment").out
    listed = [line.split()[0] for line in out.splitlines() if line.strip().endswith("torchloom")]
    there = (Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml")
    assert listed == sorted(file.stem for file in there)
    assert call("list", "callbacks").out == call("list", "callback").out
    missing = call("list", "experimnet")
    assert missing.code == 2
    assert "'experimnet'" in missing.err


def test_show_component(call: Call) -> None:
    out = call("show", "dataset/text_files").out
    assert out.startswith("dataset/text_files\n")
    assert "tokenizer (char unless chosen)" in out
    assert f"torchloom {torchloom.__version__}" in out
    out = call("show", "trainer/default").out
    assert "32-true, bf16-mixed" in " ".join(out.split())
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("accumulate_grad_batches"))
    assert row[1:5] == ["int", "1", ">=", "1"]
    presets = next(line for line in out.splitlines() if line.strip().startswith("presets"))
    assert "cpu" in presets
    assert "gpu" in presets


def test_show_preset(call: Call) -> None:
    out = call("show", "trainer/cpu").out
    assert [line.split() for line in out.splitlines()][1] == ["starts", "from", "default"]
    assert "accelerator: cpu" in out
    assert "max_epochs: 1" in call("show", "debug/fast").out
    assert "did you mean 'fast'" in call("show", "debug/fats").err


def test_doctor(call: Call) -> None:
    """A plugin that fails is named with its cause, and makes the exit code 1."""
    healthy = call("doctor")
    assert healthy.code == 0
    assert "pkg://torchloom_conf" in healthy.out

    def broken() -> object:
        raise ImportError("no module named moon")

    core = PluginSource("core", "torchloom", torchloom.__version__, lambda: sys.modules["torchloom.builtin"])
    sources = [core, PluginSource("lunar", "torchloom-lunar", "0.3", broken)]
    with using(PluginManager(sources)):
        ill = call("doctor")
    assert ill.code == 1
    assert "plugin 'lunar' (torchloom-lunar 0.3) failed: ImportError: no module named moon" in ill.out
    assert "TORCHLOOM_DISABLE_PLUGINS=lunar" in ill.out


def test_nothing_here_imports_torch(tmp_path: Path) -> None:
    """list, show, --help and completion of every sort, in one fresh interpreter."""
    script = """
import os, sys
from torchloom.cli import main
for words in (["list"], ["list", "architecture"], ["show", "architecture/decoder"], ["show", "trainer/cpu"], ["--help"],
              ["train", "--help"], ["evaluate", "--help"], ["train", "--cfg", "job"], ["trian"]):
    main(words)
for line in ("torchloom tr", "torchloom train arch", "torchloom train architecture=", "torchloom train dataset."):
    os.environ["COMP_LINE"] = line
    os.environ["COMP_POINT"] = str(len(line))
    assert main(["-sc", "query=bash"]) == 0
heavy = {"torch", "pytorch_lightning", "lightning", "torchvision", "torchmetrics", "matplotlib", "sklearn"}
sys.exit(",".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


BASH = """
eval "$(torchloom -sc install=bash)"
complete_line() {
    COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE)
    [[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=(); hydra_bash_completion; echo "${COMPREPLY[*]}"
}
complete -p torchloom | grep -o "hydra_bash_completion.*"
complete_line "torchloom tr"
complete_line "torchloom train arch"
complete_line "torchloom train parallel="
complete_line "torchloom train trainer=cpu optimizer.lr"
complete_line "torchloom nothing x"
"""


def test_completion_in_bash(tmp_path: Path) -> None:
    """The installed completion function, called as bash calls it."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    bash = ["bash", "--norc", "-c", BASH]
    done = subprocess.run(bash, cwd=tmp_path, env=environment() | {"PATH": path}, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "hydra_bash_completion torchloom",
        "train",
        "architecture. architecture=",
        "parallel=ddp parallel=single",
        "optimizer.lr=",
        "",
    ]


def test_completion_lists_keys_of_a_group(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "torchloom train dataset.")
    monkeypatch.delenv("COMP_POINT", raising=False)
    words = call("-sc", "query=bash").out.split()
    assert {"dataset.batch_size=", "dataset.num_workers="} <= set(words)
    assert all(word.startswith("dataset.") for word in words)
