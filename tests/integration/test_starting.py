"""Starting from another run: its backbone and tokenizer, frozen blocks, layer-wise rates, adapters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import torchloom
from torchloom import assembly, checkpoint, run
from torchloom.composing import compose
from torchloom.contracts.architecture import Architecture
from torchloom.errors import CheckpointError, ConfigError
from torchloom_text.configs import WordConfig
from torchloom_text.tokenization import WordTokenizer

SHAPE = ["architecture=decoder", "architecture.d_model=16", "architecture.num_layers=3", "architecture.num_heads=2"]
QUIET = [
    "trainer.accelerator=cpu",
    "trainer.progress=none",
    "trainer.max_steps=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
]
TEXT = ["objective=clm", "dataset=python_docs", "dataset.context_length=16", "dataset.batch_size=4", *QUIET]


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),  # frozen blocks are, on purpose
]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    run.train(compose([*TEXT, *SHAPE, "architecture.positions=learned"]), folder)
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    content = checkpoint.read(checkpoint.best(folder))
    return dict(content["state_dict"])


def assembled(overrides: list[str], folder: Path) -> assembly.Run:
    return assembly.assemble(compose(overrides), folder)


def test_backbone_and_tokenizer_come_from_the_run(first: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("import this and that\n" * 200, encoding="utf-8")  # its own vocabulary would be far smaller
    made = assembled(
        [
            *SHAPE,
            "architecture.positions=learned",
            f"architecture.init_from={first}",
            "objective=clm",
            "objective.positions=last",
            "dataset=text_files",
            f"dataset.path={text}",
            "dataset.context_length=16",
            "dataset.batch_size=4",
            *QUIET,
        ],
        tmp_path,
    )
    saved = weights_of(first)
    for key, value in made.network.architecture.state_dict().items():
        assert torch.equal(value, saved[f"model.architecture.{key}"]), key
    record = checkpoint.record_of(checkpoint.read(checkpoint.best(first)))
    assert made.network.tokenizer is not None
    assert made.network.tokenizer.state() == record.tokenizer
    start = made.network.start
    assert start is not None
    assert sorted(start.taken) == sorted(made.network.architecture.state_dict())
    assert start.resized == {}
    assert start.left == []  # it shares the embedding


def test_what_was_taken_is_told_at_once_and_in_the_summary_of_a_continued_run_too(
    first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shape = [*TEXT, *SHAPE, "architecture.positions=learned"]
    start = [*shape, "dataset.context_length=24", f"architecture.init_from={first}"]
    told = f"{first}: 20 tensors taken, 1 resized, 0 left behind"
    summary = run.train(compose(start), tmp_path / "second")
    assert capfd.readouterr().err.splitlines().count(f"torchloom: architecture.init_from={told}") == 1
    goes_on = run.train(
        run.continued(checkpoint.newest(tmp_path / "second"), ["trainer.max_steps=3"]), tmp_path / "second"
    )
    assert "init_from" not in capfd.readouterr().err
    assert goes_on["notes"] == summary["notes"] == {"init_from": told}
    assert goes_on["start"]["taken"] == summary["start"]["taken"]
    assert summary["start"]["resized"] == {"embeddings.position.weight": (16, 24)}


def test_summary_tells_where_the_weights_came_from(first: Path, tmp_path: Path) -> None:
    config = compose([*TEXT, *SHAPE, "architecture.positions=learned", f"architecture.init_from={first}"])
    summary = run.train(config, tmp_path / "second")
    taken = len(summary["start"]["taken"])
    assert summary["notes"]["init_from"] == f"{first}: {taken} tensors taken, 0 resized, 0 left behind"


def test_continued_run_needs_the_first_no_more(first: Path, tmp_path: Path) -> None:
    """The weights and the tokenizer are in its own checkpoint by then."""
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    settings = [*TEXT, *SHAPE, "architecture.positions=learned", f"architecture.init_from={copy}"]
    run.train(compose([*settings, "trainer.max_steps=4"]), tmp_path / "whole")
    run.train(compose(settings), tmp_path / "parts")
    shutil.rmtree(copy)
    newest = checkpoint.newest(tmp_path / "parts")
    run.train(run.continued(newest, ["trainer.max_steps=4"]), tmp_path / "parts")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    assert torchloom.load(tmp_path / "parts").step == 4


def test_longer_contexts_keep_the_positions_that_are_known(first: Path, tmp_path: Path) -> None:
    settings = [*TEXT, *SHAPE, "architecture.positions=learned", f"architecture.init_from={first}"]
    made = assembled([*settings, "dataset.context_length=24"], tmp_path)
    assert made.network.start is not None
    assert made.network.start.resized == {"embeddings.position.weight": (16, 24)}
    saved = weights_of(first)["model.architecture.embeddings.position.weight"]
    assert torch.equal(made.network.architecture.state_dict()["embeddings.position.weight"][:16], saved)


def test_a_shallower_network_begins_with_the_blocks_that_are_named(first: Path, tmp_path: Path) -> None:
    shallow = [*SHAPE, "architecture.num_layers=2", "architecture.positions=learned"]
    words = [*TEXT, *shallow, f"architecture.init_from={first}"]
    made = assembled([*words, "architecture.init_blocks=[3,1]"], tmp_path)
    saved = weights_of(first)
    for key, value in made.network.architecture.state_dict().items():
        place, index, name = key.partition("layers.")[0], *key.partition("layers.")[2].partition(".")[::2]
        theirs = key if not index else f"{place}layers.{ {'0': 2, '1': 0}[index] }.{name}"
        assert torch.equal(value, saved[f"model.architecture.{theirs}"]), key
    start = made.network.start
    assert start is not None
    assert {one.split(".")[3] for one in start.left if one != "head.weight"} == {"1"}
    for blocks in ("[1]", "[1, 4]"):
        with pytest.raises(ConfigError) as error:
            assembled([*words, f"architecture.init_blocks={blocks}"], tmp_path)
        assert str(error.value) == (
            f"architecture.init_blocks: {blocks} is not a choice of 2 from the 3 blocks of {first}\n"
            "    name 2 of them, from 1"
        )
    words = [*TEXT, "architecture=lstm", f"architecture.init_from={first}", "architecture.init_blocks=[1]"]
    with pytest.raises(ConfigError, match="picks from one stack of blocks, which LSTM does not have\n    leave it out"):
        assembled(words, tmp_path)


def test_another_network_is_refused_by_name(first: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        assembled(
            [*TEXT, "architecture=decoder", "architecture.d_model=16", f"architecture.init_from={first}"], tmp_path
        )
    assert str(error.value) == (
        f"architecture.init_from={first}: its backbone is another network; 7 tensors differ, first "
        "embeddings.position.weight: (16, 16) there, none here\n"
        "    build it as that run's architecture=decoder was: architecture.num_layers=3 architecture.num_heads=2 "
        "architecture.positions=learned"
    )
    with pytest.raises(CheckpointError, match="choose architecture=decoder, which that run trained"):
        assembled([*TEXT, "architecture=lstm", f"architecture.init_from={first}"], tmp_path)
    with pytest.raises(CheckpointError, match="nowhere: there is no such checkpoint"):
        assembled([*TEXT, *SHAPE, "architecture.init_from=nowhere"], tmp_path)


def test_another_tokenizer_is_refused_by_name(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        assembled([*TEXT, *SHAPE, f"architecture.init_from={first}", "tokenizer=word"], tmp_path)
    assert str(error.value) == (
        f"tokenizer=word: is not what {first} was trained with\n    choose tokenizer=char; it takes that run's"
    )
    with pytest.raises(ConfigError, match="was trained on text, and dataset 'digits' is not like that"):
        assembled(["experiment=cnn", f"architecture.init_from={first}", *QUIET], tmp_path)


def test_a_tokenizers_file_that_is_not_the_runs_is_refused_by_name(first: Path, tmp_path: Path) -> None:
    """The run's own is taken, so that a file beside it would be passed over in silence."""
    files = {}
    for name, text in (("same", "one two three two one"), ("other", "four five six five four")):
        maker = WordTokenizer(WordConfig(special_tokens=["unk"], min_frequency=1))
        maker.train([text])
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(maker.state(), encoding="utf-8")
    words = [*TEXT, *SHAPE, "tokenizer=word", f"tokenizer.path={files['same']}"]
    run.train(compose(words), tmp_path / "run")
    start = f"architecture.init_from={tmp_path / 'run'}"
    made = assembled([*words, start], tmp_path)
    assert made.network.tokenizer is not None
    assert made.network.tokenizer.decode(made.network.tokenizer.encode("one three")) == "one three"
    with pytest.raises(ConfigError) as error:
        assembled([*words, start, f"tokenizer.path={files['other']}"], tmp_path)
    assert str(error.value) == (
        f"tokenizer.path: {files['other']} holds another tokenizer than {tmp_path / 'run'} was trained with\n"
        "    leave it out; that run's is taken"
    )


@pytest.mark.parametrize(("count", "learning"), [(0, 4), (1, 3), (2, 2), (3, 1), (-1, 0)])
def test_frozen_blocks_do_not_change(count: int, learning: int, tmp_path: Path) -> None:
    settings = [*TEXT, *SHAPE, "architecture.tie_embeddings=false", "architecture.dropout=0.1"]
    made = assembled([*settings, f"architecture.freeze={count}"], tmp_path)
    architecture: Architecture = made.network.architecture
    before = {key: value.clone() for key, value in architecture.state_dict().items()}
    made.trainer.fit(made.module, datamodule=made.data)
    changed = {
        key.split(".")[2] for key, value in architecture.state_dict().items() if not torch.equal(value, before[key])
    }
    assert len(changed & {"0", "1", "2", "weight"}) == (learning if count else 4)
    assert ("weight" in changed) == (count != -1)
    architecture.train()
    assert [block.training for block in architecture.blocks()] == [count != -1 and index >= count for index in range(3)]


def test_too_many_blocks_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        assembled([*TEXT, *SHAPE, "architecture.freeze=4"], tmp_path)
    assert str(error.value) == (
        "architecture.freeze: 4 blocks cannot be frozen of 3\n    choose fewer, or -1 for the whole backbone"
    )


def test_layer_decay_slows_what_lies_below(tmp_path: Path) -> None:
    made = assembled([*TEXT, *SHAPE, "architecture.tie_embeddings=false", "optimizer.layer_decay=0.5"], tmp_path)
    optimizer = made.module.configure_optimizers()[0]
    architecture = made.network.architecture
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    peak = made.network.config.optimizer.lr
    head = made.network.model.head
    assert head is not None
    assert {rates[id(one)] for one in head.parameters()} == {peak}
    for index, block in enumerate(architecture.blocks()):
        assert {rates[id(one)] for one in block.parameters()} == {peak * 0.5 ** (3 - index)}
    for part in architecture.input_stage():
        assert {rates[id(one)] for one in part.parameters()} == {peak * 0.5**4}
    assert len(rates) == len(list(made.network.model.parameters()))


def test_adapters_learn_while_the_backbone_rests(first: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs torchloom[lora]")
    settings = [*TEXT, *SHAPE, "architecture.positions=learned", f"architecture.init_from={first}"]
    config = compose([*settings, "architecture.lora=2", "trainer.max_steps=3"])
    made = assembly.assemble(config, tmp_path)
    plain = assembled(settings, tmp_path)
    tokens = torch.arange(16)[None]
    made.network.architecture.eval()
    plain.network.architecture.eval()
    with torch.no_grad():  # adapters begin by adding nothing
        assert torch.equal(made.network.architecture.sequence(tokens), plain.network.architecture.sequence(tokens))
    summary = run.train(config, tmp_path / "adapted")
    # Two matrices of rank 2 beside qkv (16 to 48), out (16 to 16), up (16 to 96) and down (48 to 16) of three blocks.
    assert summary["parameters"]["trainable"] == 3 * 2 * ((16 + 48) + (16 + 16) + (16 + 96) + (48 + 16))
    saved = weights_of(tmp_path / "adapted")
    original = weights_of(first)
    rested = {
        key: saved[key] if key in saved else saved[key.replace(".weight", ".base_layer.weight")] for key in original
    }
    same = [key for key, value in original.items() if torch.equal(rested[key], value)]
    assert sorted(same) == sorted(original)
    loaded = torchloom.load(tmp_path / "adapted")
    assert any("lora_A" in key for key in loaded.model.state_dict())


def test_adapters_need_linear_layers(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs torchloom[lora]")
    with pytest.raises(ConfigError) as error:
        assembled(["experiment=cnn", "architecture.lora=2", *QUIET], tmp_path)
    assert str(error.value) == (
        "architecture.lora: adapters stand beside linear layers, and the blocks of CNN have none\n"
        "    leave it out, or choose a Transformer"
    )


def test_blocks_of_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        assembled([*TEXT, *SHAPE, "architecture.init_blocks=[1]"], tmp_path)
    assert str(caught.value) == (
        "architecture.init_blocks: names blocks of another run, and there is none\n"
        "    name it too: architecture.init_from=RUN"
    )
