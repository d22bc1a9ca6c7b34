"""Beam search: against trying everything, against greedy choice, and against itself without a cache or in company."""

import itertools
import re

import pytest
import torch
from torch import nn

from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import Seq2SeqSpec, TokenSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom_attention.configs import SDPAttentionConfig
from torchloom_attention.sdpa import SDPAttention
from torchloom_objectives.clm import CLM
from torchloom_objectives.configs import CLMConfig, Seq2SeqConfig
from torchloom_objectives.generation import search, write
from torchloom_objectives.seq2seq import Seq2Seq
from torchloom_recurrent.configs import GRUConfig, LSTMConfig
from torchloom_recurrent.recurrent import GRU, LSTM
from torchloom_text.configs import CharConfig
from torchloom_text.tokenization import CharTokenizer
from torchloom_transformer.configs import DecoderConfig, EncoderDecoderConfig
from torchloom_transformer.decoder import Decoder
from torchloom_transformer.encoder_decoder import EncoderDecoder

EOS = 3


class Rules:
    """Logits that hang on all tokens so far, without a network."""

    def __init__(self, vocab: int, seed: int) -> None:
        self.vocab, self.seed = vocab, seed

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = []
        for row in tokens.tolist():
            number = self.seed
            for one in row:
                number = (number * 31 + one + 7) % 1_000_003
            generator = torch.Generator().manual_seed(number)
            rows.append(2 * torch.randn(self.vocab, generator=generator, dtype=torch.float64))
        return torch.stack(rows)

    def reorder(self, rows: torch.Tensor) -> None:
        """Nothing is kept."""

    def score(self, ids, penalty):
        """Return what a text scores behind token 0."""
        total, seen = 0.0, [0]
        for one in ids:
            total += float(self(torch.tensor([seen]))[0].log_softmax(-1)[one])
            seen.append(one)
        return total / len(ids) ** penalty


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_as_many_beams_as_there_are_texts_find_the_best_of_all(seed, penalty):
    vocab, most = 4, 4
    rules = Rules(vocab, seed)
    texts = [
        ids
        for length in range(1, most + 1)
        for ids in itertools.product(range(vocab), repeat=length)
        if EOS not in ids[:-1] and (ids[-1] == EOS or length == most)
    ]
    ranked = sorted(texts, key=lambda ids: -rules.score(ids, penalty))
    request = GenerateRequest(max_new_tokens=most, num_beams=vocab**most, length_penalty=penalty)
    [found] = search(rules, torch.tensor([[0]]), request, {EOS})
    assert len(found) == len(texts)
    assert found == [[one for one in ids if one != EOS] for ids in ranked]


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_greedy_and_more_are_no_worse_than_it(seed):
    rules = Rules(9, seed)
    request = GenerateRequest(max_new_tokens=7, temperature=0, length_penalty=0.0)
    starts = torch.tensor([[0]])
    greedy = write(rules, [[0]], request, {EOS})
    [found] = search(rules, starts, request, {EOS})
    assert [found[0]] == greedy

    def score(ids):
        return rules.score(ids if len(ids) == 7 else [*ids, EOS], 0.0)

    [wide] = search(rules, starts, GenerateRequest(max_new_tokens=7, num_beams=6, length_penalty=0.0), {EOS})
    assert score(wide[0]) >= score(greedy[0]) - 1e-12
    scores = [score(ids) for ids in wide]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(ids) for ids in wide}) == len(wide)


def test_nothing_is_searched_for_no_tokens():
    assert search(Rules(4, 0), torch.tensor([[0], [1]]), GenerateRequest(max_new_tokens=0, num_beams=3), {EOS}) == [
        [[]],
        [[]],
    ]


LETTERS = CharTokenizer(CharConfig(special_tokens=["pad", "bos", "eos"]))
LETTERS.train(["abcdefghijklm "])


def writer(seed=0):
    """Return a network that turns texts into texts, and ends most of them."""
    torch.manual_seed(seed)
    spec = Seq2SeqSpec(LETTERS.vocab_size, 12, 10, pad_id=0, bos_id=1, eos_id=2)
    objective = Seq2Seq(Seq2SeqConfig(), spec)
    config = EncoderDecoderConfig(d_model=16, num_layers=2, num_heads=4, init_std=0.3, tie_embeddings=False)
    network = EncoderDecoder(config, spec, SDPAttention(SDPAttentionConfig()))
    model = Model(network, objective.head(network), objective.protocol).eval()
    nn.init.normal_(model.head.weight, std=0.5)
    with torch.no_grad():
        model.head.weight[2] *= 1.5
    return objective, model


def continuer(name):
    """Return a language model."""
    torch.manual_seed(0)
    spec = TokenSpec(LETTERS.vocab_size, 8, pad_id=0, bos_id=1, eos_id=2)
    objective = CLM(CLMConfig(), spec)
    if name == "decoder":
        config = DecoderConfig(d_model=16, num_layers=2, num_heads=2, tie_embeddings=False, init_std=0.3)
        network = Decoder(config, spec, SDPAttention(SDPAttentionConfig()))
    else:
        cls, config_class = {"lstm": (LSTM, LSTMConfig), "gru": (GRU, GRUConfig)}[name]
        network = cls(config_class(embedding_dim=16, hidden_size=16), spec)
    model = Model(network, objective.head(network), objective.protocol).eval()
    nn.init.normal_(model.head.weight, std=0.7)
    return objective, model


def texts(objective, model, **request):
    with torch.no_grad():
        return list(objective.generate(model, GenerateRequest(**{"max_new_tokens": 10, **request}), LETTERS).texts)


SOURCES = ["abc", "a", "kl jih gfe", "m m"]


@pytest.mark.parametrize("penalty", [0.5, 1.0])
def test_searching_for_texts_from_texts_is_the_same_without_a_cache_and_alone(penalty):
    objective, model = writer()
    request = {"num_beams": 4, "length_penalty": penalty}
    together = texts(objective, model, prompts=SOURCES, **request)
    assert texts(objective, model, prompts=SOURCES, use_cache=False, **request) == together
    assert [texts(objective, model, prompts=[one], **request)[0] for one in SOURCES] == together
    assert len(set(together)) > 1
    assert together != texts(objective, model, prompts=SOURCES, temperature=0)


@pytest.mark.parametrize("name", ["decoder", "lstm", "gru"])
def test_language_models_search_too_beyond_their_context(name):
    objective, model = continuer(name)
    request = {"prompts": ["abc", "m", ""], "num_beams": 3, "max_new_tokens": 12}
    found = texts(objective, model, **request)
    assert texts(objective, model, use_cache=False, **request) == found
    assert [one[:length] for one, length in zip(found, (3, 1, 0), strict=True)] == ["abc", "m", ""]
    assert found != texts(objective, model, prompts=["abc", "m", ""], max_new_tokens=12, temperature=0)


def test_a_longer_text_is_preferred_the_higher_the_length_penalty():
    objective, model = writer()
    lengths = [
        sum(len(one) for one in texts(objective, model, prompts=SOURCES, num_beams=6, length_penalty=penalty))
        for penalty in (-2.0, 0.0, 1.0, 4.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_a_search_ends_before_a_text_to_stop_at():
    objective, model = writer(1)
    whole = texts(objective, model, prompts=SOURCES, num_beams=4, length_penalty=4.0)
    stop = max(set("".join(whole)), key="".join(whole).count)
    stopped = texts(objective, model, prompts=SOURCES, num_beams=4, length_penalty=4.0, stop=[stop])
    assert stopped != whole
    assert all(stop not in one for one in stopped)


def test_several_samples_are_the_best_ones_in_order_and_no_more_than_beams():
    objective, model = writer()
    request = {"prompts": SOURCES[:2], "num_beams": 3}
    three = texts(objective, model, num_samples=6, **request)
    assert texts(objective, model, **request) == three[:2]
    assert len(set(three[::2])) == len(set(three[1::2])) == 3
    heard = []
    texts(objective, model, on_token=heard.append, **request)
    assert heard == three[:1]
    with pytest.raises(ConfigError) as caught:
        texts(objective, model, num_samples=7, **request)
    assert str(caught.value) == "num_samples: 7 is out of range\n    give at most 6 of 3 beams"
    with pytest.raises(ConfigError, match="num_beams: 0 is out of range"):
        texts(objective, model, **request | {"num_beams": 0})


def test_a_network_whose_state_cannot_follow_is_told_so():
    objective, model = continuer("lstm")
    model.architecture.new_state = lambda batch_size, max_length: type("State", (), {"hidden": None})()
    with pytest.raises(UnsupportedError, match="generate with cache=false"):
        texts(objective, model, prompts=["abc"], num_beams=2)


# Writing token by token, as language models do.


def seeded(objective, model, seed=3, **request):
    return texts(objective, model, generator=torch.Generator().manual_seed(seed), **request)


def test_a_text_drawn_from_a_text_does_not_hang_on_its_neighbours_nor_on_the_cache():
    objective, model = writer()
    together = seeded(objective, model, prompts=SOURCES)
    assert seeded(objective, model, prompts=SOURCES[:2]) == together[:2]
    assert seeded(objective, model, prompts=SOURCES, use_cache=False) == together
    assert seeded(objective, model, prompts=SOURCES, seed=4) != together
    assert seeded(objective, model, prompts=SOURCES, top_p=1e-9) == texts(
        objective, model, prompts=SOURCES, temperature=0
    )


def repeats(text):
    tokens = re.findall(r"<\w+>|.", text)
    return len(set(tokens)) < len(tokens)


def test_what_is_written_from_a_text_stops_streams_and_repeats_as_asked():
    objective, model = writer(1)
    request = {"prompts": SOURCES, "temperature": 0}
    whole = texts(objective, model, **request)
    place, stop = next((n, one[2]) for n, one in enumerate(whole) if len(one) > 2 and one.index(one[2]) == 2)
    heard = []
    order = [SOURCES[place], *SOURCES]
    stopped = texts(objective, model, **request | {"prompts": order}, stop=[stop], on_token=heard.append)
    assert stopped[0] == whole[place][:2] == "".join(heard)
    assert all(stop not in one for one in stopped)
    unrepeated = texts(objective, model, **request, repetition_penalty=1e6)
    assert not any(map(repeats, unrepeated))
    assert any(map(repeats, whole))
    with pytest.raises(ConfigError, match="top_p: 2 is out of range"):
        texts(objective, model, **request, top_p=2)
