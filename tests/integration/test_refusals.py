"""What does not fit together is refused before training, in words that name the thing, the place and the mend."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchloom
from torchloom import checkpoint
from torchloom.errors import CheckpointError, ConfigError, DataError, TorchloomError, UnsupportedError

SMALL = ["debug=fast", "trainer.accelerator=cpu"]


def refused(overrides: list[str], folder: Path, error: type[TorchloomError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        torchloom.train(torchloom.compose([*SMALL, *overrides]), folder)
    assert not (folder / "checkpoints").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["objective=clm"],
            "objective=clm: takes text, but dataset 'digits' gives images\n"
            "    choose one of objective=adversarial,classification,distillation, or another dataset",
        ),
        (
            ["objective=adversarial"],
            "objective=adversarial: needs the protocol 'adversarial_pair', which architecture 'cnn' does not follow "
            "(it has features)\n    choose one of architecture=gan",
        ),
        (
            ["parallel=single", "trainer.devices=2"],
            "parallel=single: trains in one process, but the trainer asks for 2\n    choose parallel=ddp",
        ),
        (
            [
                "architecture=gan",
                "objective=adversarial",
                "trainer.gradient_clip=1",
                "trainer.accumulate_grad_batches=2",
            ],
            "2 problems in the configuration:\n"
            "  trainer.accumulate_grad_batches: objective 'adversarial' takes its own steps\n    leave it out\n"
            "  trainer.gradient_clip: objective 'adversarial' takes its own steps\n    leave it out",
        ),
        (
            ["architecture=gan", "objective=adversarial", "trainer.activation_checkpointing=true"],
            "trainer.activation_checkpointing: architecture 'gan' has no repeated blocks to recompute\n    leave it out",
        ),
    ],
)
def test_components_that_do_not_fit(overrides: list[str], text: str, tmp_path: Path) -> None:
    assert refused(overrides, tmp_path / "run") == text


def test_a_batch_larger_than_the_data(tmp_path: Path) -> None:
    assert refused(["dataset.batch_size=5000"], tmp_path / "run", DataError) == (
        "the training split holds 1259 examples, less than one batch of 5000; set dataset.batch_size to 1259 or less"
    )


def test_xformers_on_a_processor_says_what_to_use(tmp_path: Path) -> None:
    text = ["dataset=python_docs", "architecture=decoder", "objective=clm", "attention=xformers"]
    assert "use attention=sdpa" in refused(text, tmp_path / "run", UnsupportedError)


def test_a_second_run_in_the_same_folder_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchloom.train(torchloom.compose(SMALL), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(TorchloomError) as caught:
        torchloom.train(torchloom.compose(SMALL), folder)
    assert str(caught.value) == (
        f"{folder}: holds the checkpoints of a run already\n"
        f"    go on with it by ckpt=last hydra.run.dir={folder}, or choose another folder"
    )
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cnn"
    torchloom.train(torchloom.compose(SMALL), folder)
    return folder


def test_a_checkpoint_of_another_architecture(trained: Path) -> None:
    path = checkpoint.newest(trained)
    with pytest.raises(CheckpointError) as caught:
        torchloom.load(path, ["architecture.hidden=32"])
    assert str(caught.value) == (
        f"{path}: its weights are not those of architecture=cnn as configured; 3 tensors differ, first "
        "architecture.dense.bias: the architecture has (32,), the checkpoint (64,)\n"
        "    leave out overrides of architecture, or use the checkpoint that belongs to them"
    )


def test_files_that_are_no_checkpoints(trained: Path, tmp_path: Path) -> None:
    path = checkpoint.newest(trained)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:-100])
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other)
    dangerous = tmp_path / "dangerous.ckpt"
    torch.save({"torchloom": subprocess.run}, dangerous)
    texts = {
        tmp_path / "none.ckpt": "there is no such checkpoint",
        cut: "not a checkpoint, or cut short",
        other: "a checkpoint, but not one that torchloom wrote",
        dangerous: "cannot be read as a checkpoint",
    }
    for file, text in texts.items():
        with pytest.raises(CheckpointError, match=text) as caught:
            torchloom.load(file)
        assert str(caught.value).startswith(f"{file}: ")


def test_the_best_checkpoint_of_a_run_that_was_not_validated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    torchloom.train(torchloom.compose([*SMALL, "trainer.limit_val_batches=0"]), run)
    best = run / "checkpoints" / "best.ckpt"
    with pytest.raises(CheckpointError) as caught:
        torchloom.load(best)
    assert str(caught.value) == (
        f"{best}: there is no such checkpoint; none of the run has been validated yet: ckpt={run} takes its newest"
    )
    assert torchloom.load(run).step > 0


def test_a_checkpoint_works_without_its_run_folder_and_refuses_other_data(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(checkpoint.newest(trained).read_bytes())
    loaded = torchloom.load(alone)
    values, tables = loaded.evaluate("val")
    assert set(values) == {"val/loss", "val/accuracy", "val/f1"}
    assert sum(map(sum, tables["val/confusion_matrix"])) == 179
    assert len(loaded.predict(split="val")) == 179
    with pytest.raises(DataError) as caught:
        torchloom.load(alone, ["dataset.image_size=32"]).evaluate("val")
    assert str(caught.value) == (
        "dataset=digits: gives height=32, width=32, but the model was trained on height=28, width=28; give data like that, "
        "and leave out what changes it"
    )


def test_another_tokenizer_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three " * 100, encoding="utf-8")
    words = ["dataset=text_files", f"dataset.path={text}", "dataset.context_length=8", "dataset.batch_size=4"]
    words += ["architecture=lstm", "architecture.hidden_size=8", "architecture.embedding_dim=8", "objective=clm"]
    torchloom.train(torchloom.compose([*SMALL, *words]), tmp_path / "run")
    for change in ("tokenizer=word", "tokenizer=byte", "tokenizer.special_tokens=[pad,unk]"):
        with pytest.raises(ConfigError) as caught:
            torchloom.load(tmp_path / "run", [change])
        assert str(caught.value) == (
            "tokenizer: the checkpoint brings its own, char, and knows no other\n    leave out what changes it"
        )
    assert torchloom.load(tmp_path / "run", ["dataset.batch_size=2"]).evaluate("val")[0]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "torchloom", "train", *SMALL, f"hydra.run.dir={blocked}/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"torchloom: error: hydra.run.dir: {blocked}/run cannot be written to: Not a directory\n"
        "    Choose another with hydra.run.dir=FOLDER\n"
    )
