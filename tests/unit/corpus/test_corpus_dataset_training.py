"""Training on corpora: packed documents are to a model what they are alone, and `experiment=llm` runs on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from corpus_shards_made import char_tokenizer, write_corpus
from torch import Tensor

import torchloom
from torchloom import assembly, composing
from torchloom.contracts.dataset import Batch, Dataset
from torchloom.contracts.objective import Model
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_objectives.clm import CLM

TEXTS = [
    f"{animal} {verb} {thing}"
    for animal in ("a cat", "the dog", "one bird", "some fish")
    for verb in ("sees", "hears of", "runs to", "dreams of")
    for thing in ("a tree", "the sea", "nothing at all", "every mountain behind the river")
]


def parts(folder: Path, *overrides: str) -> tuple[Dataset, assembly.Network]:
    """Build the dataset and the network of a run on a corpus, in double precision."""
    config = composing.compose(["experiment=llm", "dataset=corpus", f"dataset.path={folder}", *overrides])
    dataset, tokenizer = assembly.make_dataset(config)
    dataset.prepare()
    torch.manual_seed(0)
    made = assembly.make_network(config, dataset.spec, tokenizer)
    made.model.double()
    return dataset, made


def loss_and_gradients(made: assembly.Network, batches: list[Batch]) -> tuple[Tensor, float, list[Tensor]]:
    made.model.zero_grad()
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for batch in batches:
        loss = made.objective.loss(made.model(**made.objective.inputs(batch)), batch)
        total, weight = total + loss.total, weight + float(loss.weight)
    total.backward()  # type: ignore[no-untyped-call]
    return total.detach(), weight, [one.grad.clone() for one in made.model.parameters() if one.grad is not None]


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
@pytest.mark.parametrize("special_tokens", [(), ("eos",), ("bos", "eos")])
def test_packed_documents_are_what_they_are_alone(tmp_path: Path, special_tokens: tuple[str, ...], kernel: str) -> None:
    texts = TEXTS[:7]
    folder = write_corpus(tmp_path, texts, special_tokens=special_tokens)
    settings = ["dataset.context_length=150", "dataset.val_fraction=0", f"attention={kernel}"]
    dataset, made = parts(folder, *settings, "architecture.num_layers=2", "architecture.d_model=32")
    packed = dataset.split("train").batch(torch.tensor([0]))
    tokenizer = char_tokenizer(special_tokens)
    begin, end = (torch.tensor([one] if one is not None else []) for one in map(tokenizer.special_id, ("bos", "eos")))
    alone, left = [], packed["tokens"].shape[1]
    for number, text in enumerate(texts):
        before = begin if number == 0 or len(begin) else end  # the end of a document is where the next one begins
        tokens = torch.cat([before, tokenizer.encode(text), end]).long()
        new = len(tokens) - (len(before) if before is end else 0)
        alone.append(tokens[: len(tokens) - max(0, new - left)])
        left -= min(left, new)
        if not left:
            break
    assert not left

    whole = loss_and_gradients(made, [packed])
    split = loss_and_gradients(made, [{"tokens": tokens[None]} for tokens in alone])
    torch.testing.assert_close(whole[0], split[0])
    assert whole[1] == split[1] == sum(len(tokens) - 1 for tokens in alone)
    torch.testing.assert_close(whole[2], split[2])
    # Without the confinement it is another loss.
    assert abs(loss_and_gradients(made, [{"tokens": packed["tokens"]}])[0] - whole[0]) > 1e-3


def test_the_first_token_of_a_document_is_predicted_from_the_end_before_it_or_not_at_all(tmp_path: Path) -> None:
    """Of three documents of two tokens each, packed without an end, three tokens can be predicted; with one, all but one."""
    for special_tokens, counted in (((), 3), (("eos",), 8)):
        folder = write_corpus(tmp_path / str(counted), ["ab", "cd", "ef"], special_tokens=special_tokens)
        length = f"dataset.context_length={5 if counted == 3 else 8}"
        dataset, made = parts(folder, length, "dataset.val_fraction=0")
        assert isinstance(made.objective, CLM)
        batch = dataset.split("train").batch(torch.tensor([0]))
        assert int((made.objective.targets(batch) >= 0).sum()) == counted


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "small", TEXTS * 2, shards=2)


SMALL = [
    "dataset=corpus",
    "dataset.val_fraction=0.2",
    "dataset.context_length=32",
    "dataset.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.progress=none",
]


@pytest.mark.parametrize("packing", ["documents", "stream"])
def test_a_run_trains_and_its_checkpoint_needs_no_corpus(corpus: Path, tmp_path: Path, packing: str) -> None:
    here = shutil.copytree(corpus, tmp_path / "corpus")
    overrides = ["experiment=llm", *SMALL, f"dataset.path={here}", f"dataset.packing={packing}", "trainer.max_steps=20"]
    summary = torchloom.train(composing.compose(overrides), tmp_path / "run")
    assert summary["status"] == "finished"
    shutil.rmtree(here)
    loaded = torchloom.load(tmp_path / "run", device="cpu")
    text = loaded.generate("the dog ", max_new_tokens=20, seed=0).texts[0]
    assert text.startswith("the dog ")
    assert len(text) > len("the dog ")
    values, _ = torchloom.load(tmp_path / "run", [f"dataset.path={corpus}"], device="cpu").evaluate("val")
    untrained = float(torch.tensor(28.0).log())
    assert values["val/loss"] < untrained - 0.3
    records = loaded.predict(["the dog sees a tree"])
    assert records[0]["loss"] < untrained


def test_a_run_on_a_mixture_goes_on_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", TEXTS[::3])
    overrides = [
        "experiment=llm",
        *SMALL,
        f"dataset.paths=[{corpus},{other}]",
        "dataset.weights=[0.4,0.6]",
        "trainer.max_steps=14",
        "trainer.log_every_n_steps=1",
        "callbacks.checkpoint.every_n_steps=1",
        "callbacks.checkpoint.keep=100",
    ]
    torchloom.train(composing.compose(overrides), tmp_path / "whole")
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for path in sorted((cut / "checkpoints").glob("step-*.ckpt"))[6:]:
        path.unlink()
    torchloom.resume(cut)
    rows = [(folder / "metrics.csv").read_text("utf-8").splitlines() for folder in (tmp_path / "whole", cut)]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 14


def test_other_tokenizers_are_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    config = composing.compose(["experiment=llm", *SMALL, f"dataset.path={corpus}", "tokenizer=char"])
    with pytest.raises(ConfigError) as caught:
        assembly.assemble(config, tmp_path)
    assert str(caught.value) == (
        "tokenizer: dataset=corpus takes the tokenizer that the corpus was built with\n"
        "    leave tokenizer and its keys out"
    )


def first_step(overrides: list[str]) -> None:
    config = composing.compose(overrides)
    dataset, tokenizer = assembly.make_dataset(config)
    dataset.prepare()
    made = assembly.make_network(config, dataset.spec, tokenizer)
    assert isinstance(made.model, Model)
    made.model(**made.objective.inputs(dataset.split("train").batch(torch.arange(2))))


@pytest.mark.parametrize("positions", ["all", "last"])
def test_networks_that_tell_no_documents_apart_say_so(corpus: Path, positions: str) -> None:
    overrides = [
        *SMALL,
        f"dataset.path={corpus}",
        "architecture=lstm",
        "objective=clm",
        f"objective.positions={positions}",
    ]
    with pytest.raises(UnsupportedError, match=r"dataset\.packing=stream"):
        first_step(overrides)
    first_step([*overrides, "dataset.packing=stream"])
