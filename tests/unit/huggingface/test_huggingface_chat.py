"""A model of chat leaves with its template, so that transformers answers as it does here."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers, which reads what is exported")

import transformers
from huggingface_models import give

import torchloom

TALK = [{"role": "user", "content": "Mary went to the garden. Where is Mary?"}]


@pytest.mark.parametrize(("positions", "template"), [("rope", "chatml"), ("learned", "plain")])
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
@torch.no_grad()
def test_an_exported_model_answers_the_same(positions, template, tmp_path):
    layout = {"learned": ["norm=layernorm", "activation=gelu_tanh", "bias=true"], "rope": []}[positions]
    words = ["experiment=chat", "debug=fast", "trainer.accelerator=cpu", "trainer.progress=none"]
    small = ["d_model=16", "num_layers=1", "num_heads=2", f"positions={positions}", "init_std=0.4", *layout]
    data = ["dataset.examples=40", "dataset.eval_examples=10", "dataset.batch_size=4", f"dataset.template={template}"]
    with torch.enable_grad():
        torchloom.train(
            torchloom.compose([*words, *data, *(f"architecture.{one}" for one in small), "tokenizer.vocab_size=300"]),
            tmp_path / "run",
        )
    ours = torchloom.load(tmp_path / "run", device="cpu")
    folder = give(tmp_path / "run", tmp_path / "given")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**ids, do_sample=False, max_new_tokens=20)[0, ids["input_ids"].shape[1] :].tolist()
    end = model.config.eos_token_id
    assert end == ours.spec.end_id
    made = made[: made.index(end)] if end in made else made
    expected = ours.tokenizer.decode(made)
    assert ours.generate(TALK[0]["content"], max_new_tokens=20, temperature=0).texts == [expected]
    assert expected
