"""Whatever a decoder is made of, a cache and neighbours of other lengths change no token of what it writes."""

import pytest
import torch

from torchloom import assembly
from torchloom.composing import compose
from torchloom.contracts.objective import GenerateRequest
from torchloom.contracts.spec import TokenSpec
from torchloom_text.configs import ByteConfig
from torchloom_text.tokenization import ByteTokenizer

VARIANTS = {
    "relative, shared keys": ["positions=relative", "num_kv_heads=1", "head_dim=6"],
    "sinusoidal, norms after": ["positions=sinusoidal", "norm_placement=after", "scale_embeddings=true"],
    "experts": ["experts=3", "experts_per_token=1"],
    "again and again, experts": ["recurrence=learned", "recurrent_steps=2", "experts=3"],
}
PROMPTS = ["the cat", "o", "once upon"]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_cache_and_neighbours_change_no_token(name):
    tokenizer = ByteTokenizer(ByteConfig())
    tokenizer.train(["any"])
    shape = ["d_model=16", "num_layers=2", "num_heads=4", "init_std=0.3", *VARIANTS[name]]
    words = ["architecture=decoder", *(f"architecture.{word}" for word in shape), "objective=clm", "dataset=text_files"]
    torch.manual_seed(0)
    made = assembly.make_network(compose([*words, "tokenizer=byte"]), TokenSpec(tokenizer.vocab_size, 10), tokenizer)
    made.model.eval()

    @torch.no_grad()
    def written(prompts, **settings):
        # More than the context, so that the oldest half is forgotten on the way.
        request = GenerateRequest(prompts=prompts, max_new_tokens=9, **settings)
        return list(made.objective.generate(made.model, request, tokenizer).texts)

    greedy = written(PROMPTS, temperature=0.0)
    assert len(set(greedy)) == len(PROMPTS)
    assert written(PROMPTS, temperature=0.0, use_cache=False) == greedy
    assert [written([prompt], temperature=0.0)[0] for prompt in PROMPTS] == greedy
    drawn = [
        written(PROMPTS, generator=torch.Generator().manual_seed(3), top_k=20, use_cache=cache)
        for cache in (True, False)
    ]
    assert drawn[0] == drawn[1]
