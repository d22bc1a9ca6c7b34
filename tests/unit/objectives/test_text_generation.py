import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import TokenSpec
from torchloom.errors import ConfigError, TorchloomError
from torchloom_attention.configs import SDPAttentionConfig
from torchloom_attention.sdpa import SDPAttention
from torchloom_objectives.clm import CLM
from torchloom_objectives.configs import CLMConfig
from torchloom_objectives.generation import filter_logits, penalise_repetition
from torchloom_recurrent.configs import GRUConfig, LSTMConfig, RNNConfig
from torchloom_recurrent.recurrent import GRU, LSTM, RNN
from torchloom_text.configs import BPEConfig, CharConfig, WordConfig
from torchloom_text.tokenization import BPETokenizer, CharTokenizer, WordTokenizer
from torchloom_transformer.configs import DecoderConfig
from torchloom_transformer.decoder import Decoder

TEXT = "the cat sat on the mat.\nthe dog ate the hat – 日本語 §€ 😀\n" * 20
SETTINGS = settings(max_examples=60, deadline=None)


def tokenizer_of(name: str, **options):
    config, cls = {
        "char": (CharConfig, CharTokenizer),
        "word": (WordConfig, WordTokenizer),
        "bpe": (BPEConfig, BPETokenizer),
    }[name]
    made = cls(config(**options))
    made.train([TEXT])
    return made


CHAR = tokenizer_of("char")


def spec_of(tokenizer, context_length: int = 8) -> TokenSpec:
    specials = {f"{name}_id": tokenizer.special_id(name) for name in ("pad", "unk", "bos", "eos", "mask")}
    return TokenSpec(vocab_size=tokenizer.vocab_size, context_length=context_length, **specials)


def network(name: str, spec: TokenSpec) -> Architecture:
    size = {"embedding_dim": 16, "hidden_size": 16}
    if name in ("rope", "learned"):
        config = DecoderConfig(
            d_model=16, num_layers=2, num_heads=2, num_kv_heads=1, positions=name, tie_embeddings=False
        )
        return Decoder(config, spec, SDPAttention(SDPAttentionConfig()))
    cls, config_class = {"rnn": (RNN, RNNConfig), "lstm": (LSTM, LSTMConfig), "gru": (GRU, GRUConfig)}[name]
    return cls(config_class(**size), spec)


def build(name: str = "lstm", tokenizer=CHAR, positions: str = "all", context_length: int = 8) -> tuple[CLM, Model]:
    torch.manual_seed(0)
    spec = spec_of(tokenizer, context_length)
    objective = CLM(CLMConfig(positions=positions), spec)
    architecture = network(name, spec)
    model = Model(architecture, objective.head(architecture), objective.protocol)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # far from uniform, so that a wrong context would show
    return objective, model.eval()


def texts(objective, model, tokenizer=CHAR, seed: int = 3, **request) -> list[str]:
    request = {"max_new_tokens": 12, **request}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return list(objective.generate(model, GenerateRequest(generator=generator, **request), tokenizer).texts)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["rope", "learned", "rnn", "lstm", "gru"])
def test_cache_changes_nothing_beyond_the_context_too(name, temperature):
    objective, model = build(name)
    request = {
        "prompts": ["the", "", "the cat sat on the mat", "dog"],
        "num_samples": 5,
        "max_new_tokens": 16,
        "temperature": temperature,
    }
    cached, plain = (texts(objective, model, use_cache=use_cache, **request) for use_cache in (True, False))
    assert cached == plain
    assert [len(text) for text in cached] == [19, 16, 38, 19, 19]


@pytest.mark.parametrize("name", ["learned", "lstm"])
def test_greedy_text_equals_a_loop_by_hand_while_the_context_lasts(name):
    objective, model = build(name, context_length=40)
    ids = CHAR.encode("the cat").tolist()
    for _ in range(30):
        with torch.no_grad():
            ids.append(int(model(tokens=torch.tensor([ids]))[0, -1].argmax()))
    assert texts(objective, model, prompts=["the cat"], max_new_tokens=30, temperature=0.0) == [CHAR.decode(ids)]


def test_a_full_context_drops_its_oldest_half():
    objective, model = build("learned", context_length=8)
    ids = CHAR.encode("the ca").tolist()
    begin = 0
    for _ in range(20):
        if len(ids) - begin > 8:
            begin = len(ids) - 4
        with torch.no_grad():
            ids.append(int(model(tokens=torch.tensor([ids[begin:]]))[0, -1].argmax()))
    assert texts(objective, model, prompts=["the ca"], max_new_tokens=20, temperature=0.0) == [CHAR.decode(ids)]


def test_many_to_one_network_continues_from_the_last_window():
    objective, model = build("lstm", positions="last")
    ids = CHAR.encode("the cat sat").tolist()
    for _ in range(12):
        with torch.no_grad():
            ids.append(int(model(inputs=torch.tensor([ids[-8:]]))[0].argmax()))
    for use_cache in (True, False):
        made = texts(objective, model, prompts=["the cat sat"], max_new_tokens=12, temperature=0.0, use_cache=use_cache)
        assert made == [CHAR.decode(ids)]


def test_sample_does_not_depend_on_its_neighbours():
    objective, model = build("rope")
    together = texts(objective, model, prompts=["the", "a", "cat"], num_samples=3)
    assert texts(objective, model, prompts=["the"])[0] == together[0]
    assert texts(objective, model, prompts=["the", "a"], num_samples=2) == together[:2]


def test_prompts_repeat_to_fill_the_samples_and_none_is_left_out():
    objective, model = build()
    made = texts(objective, model, prompts=["the", "dog"], num_samples=5, max_new_tokens=4)
    assert [text[:3] for text in made] == ["the", "dog", "the", "dog", "the"]
    assert len(set(made)) == 5
    assert len(texts(objective, model, prompts=["the", "dog"], num_samples=1, max_new_tokens=4)) == 2


def test_seed_alone_decides_and_the_global_random_state_is_left_alone():
    objective, model = build()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = texts(objective, model, seed=1, num_samples=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert texts(objective, model, seed=1, num_samples=3) == first
    assert texts(objective, model, seed=2, num_samples=3) != first


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_streamed_pieces_add_up_to_the_first_text(name):
    tokenizer = tokenizer_of(name, **({"vocab_size": 280} if name == "bpe" else {}))
    objective, model = build("gru", tokenizer)
    for seed in range(4):
        pieces: list[str] = []
        prompt = "the dog – 日" if seed % 2 else ""
        request = {"prompts": [prompt, "cat"], "max_new_tokens": 24, "seed": seed}
        made = texts(objective, model, tokenizer, on_token=pieces.append, **request)
        assert prompt + "".join(pieces) == made[0]
        assert made == texts(objective, model, tokenizer, **request)


class Reciting(Architecture):
    """Says one text, whatever was said before, then the end token for ever."""

    protocols = frozenset({"sequence"})
    causal = True
    width = 1

    def __init__(self, ids: list[int], spec: TokenSpec) -> None:
        super().__init__(None, spec)
        self.ids = [*ids, *[spec.eos_id] * 300]
        self.anything = nn.Parameter(torch.zeros(()))

    def sequence(self, tokens, *, mask=None, state=None):
        scores = torch.zeros(*tokens.shape, self.spec.vocab_size)
        for place in range(tokens.shape[1]):
            scores[:, place, self.ids[place]] = 9.0
        return scores


def test_characters_of_several_tokens_are_streamed_whole_and_the_end_token_ends():
    tokenizer = BPETokenizer(BPEConfig(vocab_size=257))  # bytes alone: every sign beyond ASCII takes several tokens
    tokenizer.train([TEXT])
    spec = spec_of(tokenizer, context_length=64)
    said = "ä日😀!"
    model = Model(Reciting(tokenizer.encode(said).tolist(), spec), None, "sequence")
    pieces: list[str] = []
    made = texts(CLM(CLMConfig(), spec), model, tokenizer, temperature=0.0, max_new_tokens=50, on_token=pieces.append)
    assert pieces == ["ä", "日", "😀", "!"]
    assert made == [said]


def test_bytes_that_never_become_a_character_are_shown_at_the_end():
    tokenizer = BPETokenizer(BPEConfig(vocab_size=257))
    tokenizer.train([TEXT])
    spec = spec_of(tokenizer, context_length=64)
    model = Model(Reciting(tokenizer.encode("a日").tolist()[:-1], spec), None, "sequence")
    pieces: list[str] = []
    made = texts(CLM(CLMConfig(), spec), model, tokenizer, temperature=0.0, max_new_tokens=50, on_token=pieces.append)
    assert made == ["".join(pieces)] == ["a\ufffd"]


@pytest.mark.parametrize(
    ("specials", "start"),
    [(["bos", "eos"], "bos"), (["eos"], "eos"), (["unk"], "\n"), ([], "\n")],
)
def test_empty_prompt_starts_from_a_token_that_is_not_shown(specials, start):
    tokenizer = tokenizer_of("char", special_tokens=specials)
    objective, model = build("lstm", tokenizer)
    first = tokenizer.special_id(start) if start != "\n" else int(tokenizer.encode("\n"))
    with torch.no_grad():
        expected = int(model(tokens=torch.tensor([[first]]))[0, -1].argmax())
    made = texts(objective, model, tokenizer, temperature=0.0, max_new_tokens=1)
    assert made == ["" if expected == tokenizer.special_id("eos") else tokenizer.decode([expected])]


def test_without_a_line_break_in_the_vocabulary_the_first_ordinary_token_starts():
    tokenizer = CharTokenizer(CharConfig(special_tokens=["unk"]))
    tokenizer.train(["abc"])
    objective, model = build("lstm", tokenizer)
    with torch.no_grad():
        expected = int(model(tokens=torch.tensor([[1]]))[0, -1].argmax())
    assert texts(objective, model, tokenizer, temperature=0.0, max_new_tokens=1) == [tokenizer.decode([expected])]


def test_low_temperature_and_single_choices_are_greedy():
    objective, model = build("rope")
    greedy = texts(objective, model, temperature=0.0, prompts=["the"])
    for choice in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}):
        assert texts(objective, model, prompts=["the"], **choice) == greedy


LOGITS = st.lists(st.lists(st.floats(-20, 20), min_size=7, max_size=7), min_size=1, max_size=3).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


@SETTINGS
@given(LOGITS, st.integers(1, 10))
def test_top_k_keeps_the_k_largest_and_their_proportions(logits, k):
    kept = filter_logits(logits, k, None)
    assert (kept.isfinite().sum(-1) == min(k, 7)).all()
    for row, original in zip(kept, logits, strict=True):
        inside = row.isfinite()
        assert torch.equal(row[inside], original[inside])
        assert inside.all() or original[inside].min() >= original[~inside].max()


@SETTINGS
@given(LOGITS, st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_tokens_that_reach_p(logits, p):
    kept = filter_logits(logits, None, p)
    for row, original in zip(kept, logits, strict=True):
        inside = row.isfinite()
        probability = original.softmax(-1)
        assert torch.equal(row[inside], original[inside])
        assert probability[inside].sum() >= p - 1e-9
        assert probability[inside].sum() - probability[inside].min() < p + 1e-9
        assert inside.all() or probability[inside].min() >= probability[~inside].max()


@SETTINGS
@given(LOGITS, st.integers(1, 7), st.floats(0.01, 1.0))
def test_top_p_counts_within_top_k(logits, k, p):
    both = filter_logits(logits, k, p)
    assert torch.equal(both, filter_logits(filter_logits(logits, k, None), None, p))


def test_sampled_frequencies_follow_the_softmax_at_the_temperature():
    class Constant(Architecture):
        protocols = frozenset({"sequence"})
        causal = True

        def __init__(self):
            super().__init__(None, spec_of(CHAR))
            self.logits = nn.Parameter(torch.linspace(-2, 2, CHAR.vocab_size))

        def sequence(self, tokens, *, mask=None, state=None):
            return self.logits.expand(*tokens.shape, -1)

    objective, model = CLM(CLMConfig(), spec_of(CHAR)), Model(Constant(), None, "sequence")
    made = texts(objective, model, num_samples=4000, max_new_tokens=1, temperature=0.7)
    counts = torch.zeros(CHAR.vocab_size)
    for text in made:
        counts[int(CHAR.encode(text))] += 1
    expected = (model.architecture.logits.detach() / 0.7).softmax(-1)
    assert (counts / 4000 - expected).abs().max() < 0.03


def test_request_out_of_range_is_refused_with_every_problem():
    objective, model = build()
    with pytest.raises(ConfigError) as error:
        texts(objective, model, temperature=-1.0, top_k=0, top_p=1.5)
    assert str(error.value) == (
        "3 problems in the configuration:\n"
        "  temperature: -1.0 is out of range\n    give at least 0; 0 is greedy\n"
        "  top_k: 0 is out of range\n    give at least 1, or leave it out\n"
        "  top_p: 1.5 is out of range\n    give above 0 and at most 1"
    )


def test_a_diverged_model_is_named_as_such():
    objective, model = build()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(
        TorchloomError, match=r"^the model's outputs are not finite, so nothing can be generated: training diverged$"
    ):
        texts(objective, model)


@pytest.mark.parametrize("name", ["rope", "learned", "lstm"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_all_lengths_are_continued_as_each_alone(name, use_cache):
    objective, model = build(name)
    prompts = ["t", "the cat", "the cat sat on the mat.", "dog"]
    request = {"temperature": 0.0, "max_new_tokens": 20, "use_cache": use_cache}
    alone = [texts(objective, model, prompts=[prompt], **request)[0] for prompt in prompts]
    assert texts(objective, model, prompts=prompts, **request) == alone


def test_repetition_penalty_follows_its_formula():
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
    assert penalise_repetition(logits, torch.tensor([[0, 1, 0]]), 2.0).tolist() == [[1.0, -2.0, 0.5, 3.0]]
    assert penalise_repetition(logits, torch.tensor([[0, 1]]), 1.0) is logits


def test_a_large_repetition_penalty_repeats_nothing():
    objective, model = build("learned", context_length=40)
    made = texts(objective, model, prompts=["the"], max_new_tokens=15, temperature=0.0, repetition_penalty=1e6)[0]
    assert len(set(made)) == len(made)
    plain = texts(objective, model, prompts=["the"], max_new_tokens=15, temperature=0.0)[0]
    assert len(set(plain)) < len(plain)


@SETTINGS
@given(st.integers(0, 200), st.integers(0, 25), st.integers(1, 3))
def test_a_sample_ends_before_the_text_to_stop_at_and_so_does_its_stream(seed, start, length):
    objective, model = build("gru", context_length=40)
    request = {"prompts": ["the"], "max_new_tokens": 30, "seed": seed}
    whole = texts(objective, model, **request)[0]
    stop = whole[3 + start : 3 + start + length]
    if not stop:
        return
    pieces = []
    made = texts(objective, model, stop=[stop, "never in there"], on_token=pieces.append, **request)[0]
    assert made == whole[: whole.index(stop, 3)]
    assert "the" + "".join(pieces) == made


def test_stops_and_penalties_out_of_range_are_refused():
    objective, model = build()
    with pytest.raises(ConfigError) as error:
        texts(objective, model, stop=[""], repetition_penalty=0.0)
    assert "repetition_penalty: 0.0 is out of range" in str(error.value)
    assert "stop: [''] is out of range" in str(error.value)
