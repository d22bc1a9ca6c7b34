"""From a language model to answers in a conversation, and how they reach the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import torchloom
from torchloom import assembly, checkpoint, cli, composing

SMALL = ["architecture.d_model=16", "architecture.num_layers=1", "architecture.num_heads=2"]
QUIET = ["debug=fast", "trainer.accelerator=cpu", "trainer.progress=none", "dataset.batch_size=4"]

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")


def talks(folder: Path) -> Path:
    """Write questions with their answers."""
    path = folder / "talk.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "clm"
    words = ["experiment=llm", "tokenizer=bpe", "tokenizer.vocab_size=300", "trainer.val_every_n_steps=null"]
    torchloom.train(torchloom.compose([*words, *SMALL, *QUIET]), folder)
    return folder


def test_a_language_model_goes_on_to_chat(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = talks(tmp_path)
    folder = tmp_path / "chat"
    words = ["experiment=chat", f"dataset.path={path}", f"architecture.init_from={first}"]
    summary = torchloom.train(torchloom.compose([*words, *SMALL, *QUIET]), folder)
    assert {"test/loss", "test/exact", "test/accuracy"} <= summary["metrics"].keys()
    before, after = (checkpoint.record_of(checkpoint.read(checkpoint.best(one))) for one in (first, folder))
    size = before.spec["vocab_size"]
    assert summary["start"]["resized"] == {"embeddings.token.weight": (size, size + 2)}
    assert after.spec["special_tokens"][:2] == ("<|im_start|>", "<|im_end|>")
    assert after.spec["special_ids"][:2] == (size, size + 1)

    loaded = torchloom.load(folder)
    assert loaded.tokenizer is not None
    known = torchloom.load(first).tokenizer
    assert known is not None
    assert torch.equal(loaded.tokenizer.encode("def main():"), known.encode("def main():"))
    assert loaded.evaluate("val")[0]["val/loss"] > 0
    texts = loaded.generate("What is 7?", max_new_tokens=5, seed=3).texts
    capsys.readouterr()
    for stream in ("true", "false"):
        ask = ["generate", f"ckpt={folder}", "prompt='What is 7?'", "max_new_tokens=5", "seed=3", f"stream={stream}"]
        assert cli.main(ask) == 0
        assert capsys.readouterr().out == texts[0] + "\n"
    both = loaded.generate(["What is 7?", "And 8?"], max_new_tokens=5, seed=3).texts
    ask = ["generate", f"ckpt={folder}", "prompts=[What is 7?,And 8?]", "max_new_tokens=5", "seed=3"]
    assert cli.main(ask) == 0
    assert capsys.readouterr().out == "\n\n".join(both) + "\n"


def test_an_output_layer_of_its_own_goes_on_too(tmp_path: Path) -> None:
    words = ["experiment=llm", "tokenizer=bpe", "tokenizer.vocab_size=300", "trainer.val_every_n_steps=null"]
    own = [*SMALL, *QUIET, "architecture.tie_embeddings=false", "objective.bias=true"]
    torchloom.train(torchloom.compose([*words, *own]), tmp_path / "clm")
    chat = ["experiment=chat", f"dataset.path={talks(tmp_path)}", f"architecture.init_from={tmp_path / 'clm'}"]
    made = assembly.assemble(composing.compose([*chat, *own]), tmp_path / "chat")
    before = checkpoint.read(checkpoint.best(tmp_path / "clm"))["state_dict"]
    assert made.network.model.head is not None
    for key, value in made.network.model.head.state_dict().items():
        assert torch.equal(value[:300], before[f"model.head.{key}"])
        assert len(value) == 302
    start = made.network.start
    assert start is not None
    assert start.left == []
    assert start.resized == {
        "embeddings.token.weight": (300, 302),
        "head.weight": (300, 302),
        "head.bias": (300, 302),
    }
