"""Hidden tokens: how many and which, that only they count, and that the examples alone decide."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from torchloom.contracts.dataset import EpochKey, TensorSplit
from torchloom.contracts.objective import Model
from torchloom.contracts.spec import TokenSpec
from torchloom.errors import ConfigError
from torchloom.testing.support import TEXT, TinyNetwork, differing
from torchloom_objectives.configs import MLMConfig
from torchloom_objectives.masking import IGNORED
from torchloom_objectives.mlm import MLM
from torchloom_text.configs import BPEConfig, WordPieceConfig
from torchloom_text.tokenization.subwords import BPETokenizer
from torchloom_text.tokenization.words import WordPieceTokenizer

SPECIAL = ["pad", "unk", "cls", "sep", "mask"]
MASK = 1
KEY = EpochKey(seed=3, epoch=0)
SPEC = TokenSpec(vocab_size=1000, context_length=100, pad_id=0, mask_id=MASK, bos_id=2, eos_id=3)


def running_text(rows=7000, padded_every=7):
    """Return windows of which every seventh is padded from position 40 on; ``eos`` stands at 20 in all."""
    tokens = torch.randint(4, SPEC.vocab_size, (rows, 101), generator=torch.Generator().manual_seed(0))
    length = torch.full((rows,), 101)
    length[::padded_every] = 40
    tokens[:, 0], tokens[:, 20] = SPEC.bos_id, SPEC.eos_id
    return TensorSplit(tokens=tokens.masked_fill(torch.arange(101) >= length[:, None], SPEC.pad_id), length=length)


def examples(split, spec=SPEC, tokenizer=None, **fields):
    objective = MLM(MLMConfig(**fields), spec)
    objective.tokenizer = tokenizer
    return objective.examples(split)


@pytest.fixture(scope="module")
def wordpiece():
    tokenizer = WordPieceTokenizer(WordPieceConfig(vocab_size=600, special_tokens=SPECIAL))
    tokenizer.train([TEXT[:200_000]])
    return tokenizer


@pytest.fixture(scope="module")
def bpe():
    tokenizer = BPETokenizer(BPEConfig(vocab_size=600, special_tokens=SPECIAL))
    tokenizer.train([TEXT[:200_000]])
    return tokenizer


def spec_of(tokenizer, context_length):
    ids = {f"{name}_id": tokenizer.special_id(name) for name in ("pad", "unk", "bos", "eos", "mask")}
    return TokenSpec(tokenizer.vocab_size, context_length, **ids)


def test_shares_over_many_tokens():
    split = running_text()
    before = split.tensors["tokens"][:, :100]
    batch = examples(split).batch(torch.arange(len(split)), KEY)
    tokens, hidden = batch["tokens"], batch["targets"] != IGNORED
    count = hidden.sum().item()
    assert count > 90_000
    ordinary = before > 3
    assert hidden.sum() / ordinary.sum() == pytest.approx(0.15, abs=0.005)
    masked, kept = tokens[hidden] == MASK, tokens[hidden] == before[hidden]
    assert masked.sum() / count == pytest.approx(0.8, abs=0.005)
    assert kept.sum() / count == pytest.approx(0.1, abs=0.005)
    random = tokens[hidden][~masked & ~kept]
    assert len(random) / count == pytest.approx(0.1, abs=0.005)
    assert random.min() > 3  # never a special token
    assert random.unique().numel() > 0.98 * (SPEC.vocab_size - 4)  # but any other


def test_shares_are_the_configs():
    split = running_text(1000)
    before = split.tensors["tokens"][:, :100]
    batch = examples(split, share=0.5, masked=0.0, random=1.0).batch(torch.arange(1000), KEY)
    hidden = batch["targets"] != IGNORED
    assert hidden.sum() / (before > 3).sum() == pytest.approx(0.5, abs=0.01)
    assert not (batch["tokens"] == MASK).any()


def test_nothing_is_hidden_in_padding_or_special_tokens_and_all_else_stays():
    split = running_text(700)
    before = split.tensors["tokens"][:, :100]
    batch = examples(split, share=1.0).batch(torch.arange(700), KEY)
    hidden = batch["targets"] != IGNORED
    assert torch.equal(hidden, before > 3)
    assert torch.equal(batch["tokens"][~hidden], before[~hidden])
    assert torch.equal(batch["targets"][hidden], before[hidden])
    assert batch["length"].unique().tolist() == [40, 100]


def test_padding_is_known_by_length_where_no_token_is_reserved_for_it():
    spec = dataclasses.replace(SPEC, pad_id=None)
    tokens = torch.full((5, 101), 9)
    batch = examples(TensorSplit(tokens=tokens, length=torch.full((5,), 30)), spec, share=1.0).batch(torch.arange(5))
    assert torch.equal(batch["targets"] != IGNORED, (torch.arange(100) < 30).expand(5, -1))


def test_the_tokenizers_cls_and_sep_are_never_hidden_nor_drawn(wordpiece):
    cls, sep = (wordpiece.special_id(name) for name in ("cls", "sep"))
    spec = spec_of(wordpiece, 50)
    ids = wordpiece.encode(TEXT[:20_000])[:4800].view(100, 48)
    edges = torch.full((100, 1), cls), torch.full((100, 2), sep)
    split = TensorSplit(tokens=torch.cat((edges[0], ids, edges[1]), dim=1))
    batch = examples(split, spec, wordpiece, share=1.0, masked=0.0, random=1.0).batch(torch.arange(100), KEY)
    assert (batch["tokens"][:, 0] == cls).all()
    assert (batch["tokens"][:, 49] == sep).all()
    assert (batch["targets"][:, [0, 49]] == IGNORED).all()
    assert not torch.isin(batch["tokens"][:, 1:49], torch.tensor([cls, sep, spec.pad_id, spec.mask_id])).any()


def test_every_row_hides_something_unless_it_is_all_special():
    tokens = torch.full((400, 101), SPEC.eos_id)
    tokens[1:, 5] = 9  # one ordinary token
    hidden = examples(TensorSplit(tokens=tokens)).batch(torch.arange(400), KEY)["targets"] != IGNORED
    assert hidden.sum(1).tolist() == [0] + [1] * 399


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batch_size_and_order_do_not_matter(size):
    made = examples(running_text(64))
    whole = made.batch(torch.arange(64), KEY)
    order = torch.arange(64).flip(0)
    parts = [made.batch(indices, KEY) for indices in order.split(size)]
    joined = {name: torch.cat([part[name] for part in parts])[order] for name in whole}
    assert not list(differing(whole, joined))


def test_new_in_every_epoch_and_for_every_seed_but_fixed_in_evaluation():
    made = examples(running_text(64))
    rows = torch.arange(64)
    first, again = made.batch(rows, KEY), made.batch(rows, KEY)
    assert not list(differing(first, again))
    for key in (EpochKey(3, 1), EpochKey(4, 0), None):
        assert {"tokens", "targets"} <= set(differing(first, made.batch(rows, key)))
    assert not list(differing(made.batch(rows), made.batch(rows)))
    assert made.augmented


@pytest.mark.parametrize("name", ["wordpiece", "bpe"])
def test_whole_words_are_hidden_together(name, request):
    tokenizer = request.getfixturevalue(name)
    words = [word for word in TEXT[:60_000].split() if word.isascii() and word.isalpha()][:2000]
    spec = spec_of(tokenizer, 400)
    pieces, owners = [], []
    for number, word in enumerate(words):
        ids = tokenizer.encode(word if number == 0 or name == "wordpiece" else " " + word).tolist()
        pieces += ids
        # A space that no longer piece has taken in is no part of the word behind it.
        owners += [-1 if tokenizer.decode([one]) == " " else number for one in ids]
    assert len(pieces) > 1.3 * len(words)  # many words are of several pieces
    rows = len(pieces) // 400
    tokens = torch.tensor(pieces)[: rows * 400].view(rows, 400)
    owner = torch.tensor(owners)[: rows * 400].view(rows, 400)
    made = examples(TensorSplit(tokens=tokens), spec, tokenizer, whole_word=True)
    hidden = made.batch(torch.arange(rows), KEY)["targets"] != IGNORED
    same = owner[:, 1:] == owner[:, :-1]
    assert torch.equal(hidden[:, 1:][same], hidden[:, :-1][same])
    assert not torch.equal(hidden[:, 1:][~same], hidden[:, :-1][~same])  # but words apart from each other
    assert hidden.float().mean() == pytest.approx(0.15, abs=0.03)


def test_loss_is_the_cross_entropy_of_the_hidden_tokens_summed():
    made = examples(running_text(6))
    objective, network = MLM(MLMConfig(), SPEC), TinyNetwork(SPEC, causal=False)
    batch = made.batch(torch.arange(6), KEY)
    model = Model(network, objective.head(network), objective.protocol)
    everywhere = model.head(network.sequence(batch["tokens"]))
    outputs = model(**objective.inputs(batch))
    by_hand = [
        -everywhere[row, place].log_softmax(-1)[batch["targets"][row, place]]
        for row, place in (batch["targets"] != IGNORED).nonzero().tolist()
    ]
    assert outputs.shape == (len(by_hand), SPEC.vocab_size)  # the head reads nothing else
    loss = objective.loss(outputs, batch)
    assert_close(loss.total, torch.stack(by_hand).sum())
    assert loss.weight == len(by_hand)
    metrics = objective.metrics()
    objective.update_metrics(metrics, outputs, batch)
    assert_close(metrics["perplexity"].compute(), torch.stack(by_hand).mean().exp(), check_dtype=False)
    guessed = everywhere.argmax(-1) == batch["targets"]
    assert_close(metrics["accuracy"].compute(), guessed.sum() / len(by_hand))


def test_predictions_name_what_was_hidden_and_what_was_guessed():
    made = examples(running_text(3))
    batch = made.batch(torch.arange(3))
    outputs = torch.nn.functional.one_hot(batch["targets"][batch["targets"] != IGNORED], SPEC.vocab_size).float()
    for record, targets in zip(MLM(MLMConfig(), SPEC).predictions(outputs, batch), batch["targets"], strict=True):
        assert record["hidden"] == record["prediction"] == targets[targets != IGNORED].tolist()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: MLM(MLMConfig(), dataclasses.replace(SPEC, mask_id=None)),
            "tokenizer.special_tokens: objective=mlm hides tokens behind the special token mask, which the tokenizer does "
            "not have\n    add mask to it",
        ),
        (
            lambda: MLM(MLMConfig(masked=0.8, random=0.3), SPEC),
            "objective.masked: 0.8 and objective.random=0.3 are more than all hidden tokens\n"
            "    lower one of them: together at most 1",
        ),
        (
            lambda: examples(running_text(7), whole_word=True),
            "objective.whole_word: needs the tokenizer, to know which tokens make up a word; this data has none\n"
            "    leave it out",
        ),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == message
