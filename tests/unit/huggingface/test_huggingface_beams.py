"""Beam search beside that of transformers, on the same weights."""

import itertools

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers, whose beam search is the reference")

import transformers
from huggingface_models import bring, ending, give, published, save

import torchloom

SOURCES = ["Once upon", "a", "The 3rd", "no!", "Where is it?"]


def until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@torch.no_grad()
def test_an_exported_t5_writes_the_same(penalty, tmp_path):
    bring(
        save(published("t5", "T5ForConditionalGeneration", num_decoder_layers=2), tmp_path / "theirs"), tmp_path / "run"
    )
    ours = torchloom.load(tmp_path / "run", device="cpu")
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(give(tmp_path / "run", tmp_path / "given")).eval()
    assert ours.tokenizer is not None
    rows = [ours.tokenizer.encode(one) for one in SOURCES]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    made = theirs.generate(
        ids,
        attention_mask=real.long(),
        num_beams=4,
        num_return_sequences=3,
        do_sample=False,
        max_new_tokens=14,
        length_penalty=penalty,
    )
    end = theirs.config.eos_token_id
    expected = [ours.tokenizer.decode(until(row, end)) for row in made[:, 1:].tolist()]
    found = ours.generate(SOURCES, num_beams=4, max_new_tokens=14, num_samples=15, length_penalty=penalty).texts
    # Theirs are in the order of the sources, ours in that of the ranks.
    assert [found[rank * 5 + number] for number in range(5) for rank in range(3)] == expected
    assert len(set(expected)) > 8


@pytest.mark.parametrize(("kind", "cls"), [("gpt2", "GPT2LMHeadModel"), ("llama", "LlamaForCausalLM")])
@torch.no_grad()
def test_language_models_go_on_the_same(kind, cls, tmp_path):
    theirs = published(kind, cls)
    ours = bring(save(theirs, tmp_path / "theirs"), tmp_path / "run")
    assert ours.tokenizer is not None
    ends = ending(theirs)
    for prompt in SOURCES:
        ids = ours.tokenizer.encode(prompt)[None]
        mask = torch.ones_like(ids)
        made = theirs.generate(
            ids, num_beams=4, do_sample=False, max_new_tokens=10, attention_mask=mask, eos_token_id=ends
        )
        new = list(itertools.takewhile(lambda token: token not in ends, made[0, ids.shape[1] :].tolist()))
        found = ours.generate(prompt, max_new_tokens=10, num_beams=4).texts
        assert found == [prompt + ours.tokenizer.decode(new)]
