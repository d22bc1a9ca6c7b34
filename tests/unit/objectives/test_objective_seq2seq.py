"""Teacher forcing, cutting pieces out of running text, and writing: each equal to what is worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torchloom.contracts.dataset import EpochKey, TensorSplit
from torchloom.contracts.objective import GenerateRequest, Model
from torchloom.contracts.spec import Seq2SeqSpec, TokenSpec
from torchloom.errors import ConfigError, UnsupportedError
from torchloom.testing.support import TinyNetwork, batch_of, differing
from torchloom_attention.configs import SDPAttentionConfig
from torchloom_attention.sdpa import SDPAttention
from torchloom_objectives.configs import Seq2SeqConfig
from torchloom_objectives.seq2seq import Seq2Seq
from torchloom_objectives.spans import SpanCorruption
from torchloom_text.configs import ByteConfig
from torchloom_text.tokenization.plain import ByteTokenizer
from torchloom_transformer.configs import EncoderDecoderConfig
from torchloom_transformer.encoder_decoder import EncoderDecoder

PAIRS = Seq2SeqSpec(vocab_size=17, source_length=12, target_length=8, pad_id=0, bos_id=1, eos_id=2)
TEXT = TokenSpec(vocab_size=200, context_length=64, pad_id=0, eos_id=2)


def padded():
    """Return five pairs whose targets are 2 to 9 tokens long, padding behind them."""
    batch = batch_of(PAIRS, 5)
    batch["target_length"] = torch.tensor([9, 2, 5, 7, 3])
    batch["target"] = batch["target"].masked_fill(torch.arange(9) >= batch["target_length"][:, None], 0)
    return batch


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_of_each_real_token_behind_the_true_ones(smoothing):
    objective = Seq2Seq(Seq2SeqConfig(label_smoothing=smoothing), PAIRS)
    network = TinyNetwork(PAIRS)
    model = Model(network, objective.head(network), objective.protocol)
    batch = padded()
    outputs = model(**objective.inputs(batch))
    total = 0.0
    for row, length in enumerate(batch["target_length"].tolist()):
        target = batch["target"][row, :length]
        logits = model.head(network.seq2seq(batch["source"][row, None], target[None, :-1]))[0]
        total += F.cross_entropy(logits, target[1:], reduction="sum", label_smoothing=smoothing)
    loss = objective.loss(outputs, batch)
    assert_close(loss.total, total)
    assert loss.weight == 8 + 1 + 4 + 6 + 2


def test_metrics_leave_out_padding_and_smoothing():
    objective = Seq2Seq(Seq2SeqConfig(label_smoothing=0.3), PAIRS)
    batch = padded()
    outputs = torch.randn(5, 8, 17, generator=torch.Generator().manual_seed(0))
    metrics = objective.metrics()
    objective.update_metrics(metrics, outputs, batch)
    real = torch.arange(1, 9) < batch["target_length"][:, None]
    logits, targets = outputs[real], batch["target"][:, 1:][real]
    assert_close(metrics["perplexity"].compute(), F.cross_entropy(logits, targets).exp(), check_dtype=False)
    assert_close(metrics["accuracy"].compute(), (logits.argmax(-1) == targets).float().mean())


def restored(source, target, sentinels_from, eos):
    """Put the pieces that a target names back into its source."""
    assert target.pop(0) == 0
    if eos is not None:
        assert target.pop() == eos
    assert target.pop() >= sentinels_from  # one more sentinel ends it
    pieces = {}
    for one in target:
        if one >= sentinels_from:
            name, pieces[one] = one, []
        else:
            pieces[name].append(one)
    assert all(pieces.values())
    assert list(pieces) == sorted(pieces, reverse=True) == [one for one in source if one >= sentinels_from]
    return [token for one in source for token in pieces.get(one, [one])]


@given(
    length=st.integers(0, 300),
    density=st.floats(0.01, 0.9),
    mean_span=st.floats(1.0, 10.0),
    eos=st.sampled_from([None, 3]),
    seed=st.integers(0, 2**31),
)
def test_span_corruption_can_be_undone(length, density, mean_span, eos, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 700, (length,), generator=generator)
    corruption = SpanCorruption(density, mean_span, 1100, 0, eos)
    source, target = corruption(tokens, torch.rand(length, generator=generator))
    cut, pieces = corruption.counts(length)
    assert len(source) == length - cut + pieces
    assert len(target) == 1 + cut + pieces + 1 + (eos is not None)
    assert restored(source.tolist(), target.tolist(), 700, eos) == tokens.tolist()


def test_the_share_cut_out_and_the_pieces_are_as_asked():
    corruption = SpanCorruption(0.15, 3.0, 1000, 0, None)
    assert corruption.counts(512) == (77, 26)
    assert corruption.counts(2) == (1, 1)
    assert corruption.counts(1) == corruption.counts(0) == (0, 0)


def test_every_token_is_as_likely_to_be_cut_out_but_for_the_first():
    corruption = SpanCorruption(0.25, 2.0, 100, 0, None)
    generator = torch.Generator().manual_seed(0)
    gone = torch.zeros(16)
    for _ in range(1000):
        source, _ = corruption(torch.arange(16), torch.rand(16, generator=generator))
        gone += ~torch.isin(torch.arange(16), source)
    assert gone[0] == 0  # a kept piece comes first
    assert gone.sum() == 1000 * 4
    assert gone[1:].min() > 50


def test_running_text_is_corrupted_by_example_and_epoch_alone():
    tokens = torch.randint(4, 150, (20, 65), generator=torch.Generator().manual_seed(0))
    length = torch.full((20,), 65)
    length[3] = 10
    made = Seq2Seq(Seq2SeqConfig(), TEXT).examples(TensorSplit(tokens=tokens, length=length))
    key, rows = EpochKey(1, 0), torch.arange(20)
    whole = made.batch(rows, key)
    for row in range(20):
        alone = made.batch(rows[row : row + 1], key)
        for name in ("source", "target"):
            count = int(alone[f"{name}_length"])
            assert count == whole[f"{name}_length"][row]
            assert torch.equal(alone[name][0], whole[name][row, :count])
            assert not whole[name][row, count:].any()  # padding
        # No sentinel falls among the 150 tokens of the text, and padding takes no part.
        back = restored(alone["source"][0].tolist(), alone["target"][0].tolist(), 150, 2)
        assert back == tokens[row, : min(int(length[row]), 64)].tolist()
    assert whole["target"].shape[1] <= 65
    assert not list(differing(whole, made.batch(rows, key)))
    assert {"source", "target"} <= set(differing(whole, made.batch(rows, EpochKey(1, 1))))
    assert not list(differing(made.batch(rows), made.batch(rows)))
    assert made.augmented


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        (
            Seq2SeqSpec(vocab_size=17, source_length=12, target_length=8),
            {},
            "tokenizer.special_tokens: objective=seq2seq begins a target with bos, pad or eos, none of which the tokenizer "
            "has\n    add bos and eos to it",
        ),
        (
            TEXT,
            {"noise_density": 0.9},
            "objective.noise_density: the 58 of 64 tokens cut out, with 7 sentinels, are longer than the text\n"
            "    lower it, or raise objective.mean_span",
        ),
        (
            TokenSpec(vocab_size=4, context_length=64, pad_id=0),
            {},
            "objective.mean_span: 4 sentinels do not fit a vocabulary of 4\n    raise it, or enlarge the vocabulary",
        ),
    ],
)
def test_what_cannot_be_corrupted_or_begun_is_refused(spec, fields, message):
    with pytest.raises(ConfigError) as caught:
        Seq2Seq(Seq2SeqConfig(**fields), spec)
    assert str(caught.value) == message


def writer(spec, objective):
    """Return a real network that writes varied texts, ends included."""
    torch.manual_seed(0)
    config = EncoderDecoderConfig(d_model=16, num_layers=2, num_heads=4, init_std=0.5, tie_embeddings=False)
    network = EncoderDecoder(config, spec, SDPAttention(SDPAttentionConfig()))
    return Model(network, objective.head(network), objective.protocol).eval()


def letters():
    tokenizer = ByteTokenizer(ByteConfig(special_tokens=["pad", "bos", "eos"]))
    tokenizer.train(["every byte is known"])
    return tokenizer


@torch.no_grad()
def by_hand(model, source, most, start, eos):
    """Write greedily from one source, from the beginning anew for each token."""
    written = []
    while len(written) < most:
        vectors = model.architecture.seq2seq(source[None], torch.tensor([[start, *written]]))
        written.append(int(model.head(vectors)[0, -1].argmax()))
        if written[-1] == eos:
            return written[:-1]
    return written


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_writing_equals_a_loop_by_hand(use_cache):
    tokenizer = letters()
    spec = Seq2SeqSpec(tokenizer.vocab_size, 12, 10, pad_id=0, bos_id=1, eos_id=2)
    objective = Seq2Seq(Seq2SeqConfig(), spec)
    model = writer(spec, objective)
    prompts = ["a cat", "dogs", "the long way", "x"]
    request = GenerateRequest(
        num_samples=6,
        prompts=prompts,
        max_new_tokens=9,
        temperature=0,
        use_cache=use_cache,
        on_token=(heard := []).append,
    )
    texts = objective.generate(model, request, tokenizer).texts
    expected = [tokenizer.decode(by_hand(model, tokenizer.encode(one), 9, 1, 2)) for one in prompts]
    assert list(texts) == [*expected, *expected[:2]]
    assert len(set(expected)) > 1
    assert "".join(heard) == expected[0]


def test_predictions_are_the_greedy_texts_and_end_where_the_model_ends_them():
    objective = Seq2Seq(Seq2SeqConfig(), PAIRS)
    model = writer(PAIRS, objective)
    batch = batch_of(PAIRS, 20)
    batch["source_length"] = torch.arange(20) % 12 + 1
    with torch.no_grad():
        outputs = model(**objective.inputs(batch))
        losses = F.cross_entropy(outputs.transpose(1, 2), batch["target"][:, 1:], reduction="none").mean(1)
    records = objective.predictions(outputs, batch)
    expected = [
        by_hand(model, source[:length], 8, 1, 2)
        for source, length in zip(batch["source"], batch["source_length"], strict=True)
    ]
    assert [record["prediction"] for record in records] == expected
    assert min(map(len, expected)) < 8 == max(map(len, expected))  # some ended by themselves, others cut
    assert_close(torch.tensor([record["loss"] for record in records]), losses)


def test_sampling_follows_the_seed_and_the_shape_of_the_choice():
    tokenizer = letters()
    spec = Seq2SeqSpec(tokenizer.vocab_size, 12, 10, pad_id=0, bos_id=1, eos_id=2)
    objective = Seq2Seq(Seq2SeqConfig(), spec)
    model = writer(spec, objective)

    def written(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        request = GenerateRequest(num_samples=4, prompts=["a cat"], generator=generator, **options)
        return list(objective.generate(model, request, tokenizer).texts)

    assert written(0) == written(0) != written(1)
    assert written(0, top_k=1) == written(1, temperature=0)


@pytest.mark.parametrize(
    ("prompts", "with_tokenizer", "message"),
    [
        (
            ["a"],
            False,
            "objective seq2seq generates text, which needs the tokenizer it was trained with; where it was imported "
            "without, import it again with tokenizer_file=FILE",
        ),
        ([], True, "objective seq2seq writes from a text; give one as the prompt"),
        (["a", ""], True, "objective seq2seq writes from a text; give one as the prompt"),
    ],
)
def test_generating_from_nothing_is_refused(prompts, with_tokenizer, message):
    tokenizer = letters() if with_tokenizer else None
    objective = Seq2Seq(Seq2SeqConfig(), PAIRS)
    with pytest.raises(UnsupportedError) as caught:
        objective.generate(writer(PAIRS, objective), GenerateRequest(prompts=prompts), tokenizer)
    assert str(caught.value) == message
