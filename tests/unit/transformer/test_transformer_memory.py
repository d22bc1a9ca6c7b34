"""A memory of what came next: against a search by hand, and a model that gains by it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("faiss", reason="needs torchloom[retrieval]")

from torchloom import run
from torchloom.cli import main
from torchloom.composing import compose
from torchloom.errors import DataError, UnsupportedError
from torchloom.inference import load
from torchloom_transformer.command import measure
from torchloom_transformer.memory import StateMemory, mixed_loss, remembered

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


def test_the_search_finds_what_a_look_at_all_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    stored, asked = torch.randn(50, 6, generator=generator), torch.randn(7, 6, generator=generator)
    tokens = torch.randint(9, (50,), generator=generator)
    memory = StateMemory(6)
    memory.add(stored[:20], tokens[:20])
    memory.add(stored[20:], tokens[20:])
    assert len(memory) == 50
    distance, token = memory.search(asked, 4)
    every = (asked[:, None] - stored[None]).square().sum(-1)
    nearest, place = every.topk(4, largest=False)
    torch.testing.assert_close(distance, nearest)
    assert torch.equal(token, tokens[place])
    assert memory.search(asked, 99)[1].shape == (7, 50)


def test_near_neighbours_have_more_say() -> None:
    distance, token = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[5, 3, 5]])
    says = [math.exp(-one / 2) for one in (1, 2, 4)]
    for wanted, share in ((5, says[0] + says[2]), (3, says[1]), (8, 0.0)):
        given = remembered(distance, token, torch.tensor([wanted]), temperature=2.0)
        assert given.item() == pytest.approx(share / sum(says))


def test_the_mixture_by_hand() -> None:
    model, memory = torch.tensor([0.5, 0.1]), torch.tensor([0.0, 0.8])
    wanted = -(math.log(0.75 * 0.5) + math.log(0.75 * 0.1 + 0.25 * 0.8)) / 2
    assert mixed_loss(model.log(), memory, 0.25) == pytest.approx(wanted)
    assert mixed_loss(model.log(), memory, 0.0) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that has hardly learnt a text which says the same again and again, in no fixed order."""
    folder = tmp_path_factory.mktemp("memory")
    generator = torch.Generator().manual_seed(0)
    words = ["the quick brown fox ", "jumps over a lazy dog ", "while nobody looks ", "and then sleeps "]
    order = torch.randint(len(words), (400,), generator=generator).tolist()
    (folder / "text.txt").write_text("".join(words[one] for one in order), encoding="utf-8")
    settings = [
        "objective=clm",
        "dataset=text_files",
        f"dataset.path={folder / 'text.txt'}",
        "dataset.context_length=32",
        "architecture=decoder",
        "architecture.d_model=32",
        "architecture.num_layers=2",
        "trainer.accelerator=cpu",
        "trainer.progress=none",
        "trainer.max_steps=4",
    ]
    run.train(compose(settings), folder / "run")
    return folder / "run"


def test_memory_helps_and_the_model_alone_is_what_evaluate_says(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["knn", f"ckpt={trained / 'checkpoints' / 'best.ckpt'}", "neighbours=8"]) == 0
    result = json.loads((trained / "knn-val.json").read_text())
    values, _ = load(trained, device="cpu").evaluate("val")
    assert result["loss"] == pytest.approx(values["val/loss"], rel=1e-5)
    assert result["weight"] > 0
    assert result["loss_with_memory"] < 0.8 * result["loss"]
    assert f"with {result['states']:,} positions" in capsys.readouterr().out


def test_all_of_the_training_split_is_remembered(trained: Path) -> None:
    loaded = load(trained, device="cpu")
    positions = sum(batch["tokens"][:, 1:].numel() for batch in loaded.batches("train"))
    assert measure(loaded, "val", 4, 0.5)["states"] == positions


def test_a_share_that_leaves_nothing_is_refused(trained: Path) -> None:
    with pytest.raises(DataError, match="positions, of which held_out=1e-06 leaves none on one side: choose another"):
        measure(load(trained, device="cpu"), "val", 4, 1e-6)


def test_a_model_that_predicts_once_a_window_is_refused(trained: Path) -> None:
    loaded = load(trained, device="cpu")
    loaded.model.protocol = "features"
    with pytest.raises(UnsupportedError) as caught:
        measure(loaded, "val")
    assert str(caught.value) == (
        "a memory of what came next needs a model that predicts what comes next at every position: one trained with "
        "objective=clm and objective.positions=all, not clm on 'features'"
    )
