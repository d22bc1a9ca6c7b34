"""Windows, splits and mixtures of corpora: what a batch holds, against a reading of the same texts by hand."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_shards_made import char_record, char_tokenizer, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.contracts.spec import TokenSpec
from torchloom.data import Loader
from torchloom.errors import ConfigError, DataError
from torchloom_corpus.dataset.configs import CorpusDatasetConfig, CorpusTokenizerConfig
from torchloom_corpus.dataset.dataset import CorpusDataset
from torchloom_corpus.dataset.tokenizer import CorpusTokenizer
from torchloom_corpus.dataset.windows import FixedWindows, MixedWindows, Stream
from torchloom_corpus.shards import Corpus, TokenizerRecord

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


def text(number: int) -> str:
    """A text of its own, 8 to 60 characters long."""
    return " ".join(WORDS[int(digit)] for digit in oct(number + 8)[2:])


def dataset(*paths: Path, **changes: Any) -> CorpusDataset:
    place = {"path": str(paths[0])} if len(paths) == 1 else {"paths": [str(path) for path in paths]}
    fields = {"context_length": 16, "val_fraction": 0.0, "test_fraction": 0.0, **place, **changes}
    return CorpusDataset(CorpusDatasetConfig(**fields), CorpusTokenizer(CorpusTokenizerConfig()))


def everything(split: Split, key: EpochKey | None = None) -> Batch:
    return split.batch(torch.arange(len(split)), key)


def stream_by_hand(texts: Sequence[str], special_tokens: Sequence[str]) -> tuple[list[int], list[int]]:
    """Tokens of texts end to end, and the number of the document that each belongs to."""
    tokenizer = char_tokenizer(special_tokens)
    begin, end = ([one] if one is not None else [] for one in map(tokenizer.special_id, ("bos", "eos")))
    tokens: list[int] = []
    documents: list[int] = []
    for number, one in enumerate(texts):
        own = begin + tokenizer.encode(one).tolist() + end
        tokens += own
        documents += [number] * len(own)
        if end and not begin:
            documents[-1] += 1  # the end of a document begins the next one
    return tokens, documents


texts_of_any_length = st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=20)


@given(
    texts=texts_of_any_length,
    shards=st.integers(1, 4),
    context_length=st.integers(1, 9),
    special_tokens=st.sampled_from([(), ("eos",), ("bos", "eos"), ("bos",)]),
    keep=st.integers(0, 255),
)
@settings(max_examples=60, deadline=None)
def test_windows_are_those_of_the_texts(
    texts: list[str], shards: int, context_length: int, special_tokens: tuple[str, ...], keep: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(write_corpus(Path(folder), texts, shards=shards, special_tokens=special_tokens))
        kept = {int(one) for rank in range(shards) for one in corpus.hashes(rank) if (keep >> (int(one) % 8)) & 1}

        def choose(hashes: Any) -> Any:
            return np.array([int(one) in kept for one in hashes])

        stream = Stream(corpus, choose)
        chosen = [
            one
            for rank in range(shards)
            for one, of in zip(texts[rank::shards], corpus.hashes(rank), strict=True)
            if int(of) in kept
        ]
        tokens, documents = stream_by_hand(chosen, special_tokens)
        assert stream.documents == len(chosen)
        assert len(stream) == len(tokens)
        split = FixedWindows([stream], context_length, None, packed=True)
        assert len(split) == -(-max(len(tokens) - 1, 0) // context_length)
        for number in range(len(split)):
            batch = split.batch(torch.tensor([number]))
            own = slice(number * context_length, (number + 1) * context_length + 1)
            length = int(batch["length"][0])
            assert batch["tokens"].shape == (1, context_length + 1)
            assert batch["tokens"][0, :length].tolist() == tokens[own]
            found, wanted = batch["documents"][0, :length], torch.tensor(documents[own])
            assert torch.equal(found.diff() != 0, wanted.diff() != 0)


@pytest.mark.parametrize("packing", ["documents", "stream"])
def test_a_batch_is_what_the_contract_says(tmp_path: Path, packing: str) -> None:
    made = dataset(write_corpus(tmp_path, [text(n) for n in range(100)]), packing=packing, val_fraction=0.2)
    assert made.spec == TokenSpec(vocab_size=28, context_length=16, eos_id=0)
    names = {"tokens"} if packing == "stream" else {"tokens", "documents"}
    assert made.split("train").batch(torch.arange(5), EpochKey(0, 0)).keys() == names
    assert made.split("val").batch(torch.arange(5)).keys() == names | {"length"}
    for values in made.split("train").batch(torch.arange(5), EpochKey(0, 0)).values():
        assert (values.shape, values.dtype) == ((5, 17), torch.int64)
    assert len(made.split("test")) == 0


def texts_in(split: Split, tokenizer: CorpusTokenizer) -> set[str]:
    """Return the texts that stand in evaluation windows."""
    batch = everything(split)
    rows = [row[: length if number == len(split) - 1 else 16] for number, (row, length) in enumerate(rows_of(batch))]
    return {one for one in tokenizer.decode(torch.cat(rows)).split("<eos>") if one}


def rows_of(batch: Batch) -> list[tuple[Tensor, int]]:
    return list(zip(batch["tokens"], batch["length"].tolist(), strict=True))


def test_a_document_and_its_copies_stand_in_one_split(tmp_path: Path) -> None:
    texts = [text(n) for n in range(400)]
    # Copies in the same corpus, and in another one that is mixed in; both cut into shards differently.
    one = write_corpus(tmp_path / "one", [*texts, *texts[:50]], shards=3)
    other = write_corpus(tmp_path / "other", texts[::-2], shards=2)
    both, alone = (
        dataset(*paths, val_fraction=0.2, test_fraction=0.1, packing="stream") for paths in ([one, other], [one])
    )
    val, test = (texts_in(alone.split(name), alone._tokenizer) for name in ("val", "test"))
    assert val | test < set(texts)
    assert not val & test
    assert 400 * 0.2 - 32 <= len(val) <= 400 * 0.2 + 32  # four standard deviations
    assert 400 * 0.1 - 24 <= len(test) <= 400 * 0.1 + 24
    assert texts_in(both.split("val"), both._tokenizer) == val
    left = 450 - sum(1 for one in [*texts, *texts[:50]] if one in val | test)
    assert Stream(Corpus(one)).documents == 450
    train = alone.split("train")
    assert isinstance(train, MixedWindows)
    assert train._streams[0].documents == left


def test_the_seed_draws_other_splits(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, [text(n) for n in range(300)])
    found = [dataset(folder, val_fraction=0.2, split_seed=seed) for seed in (0, 0, 1)]
    one, same, other = (texts_in(made.split("val"), made._tokenizer) for made in found)
    assert one == same
    assert len(one & other) < 0.5 * len(one)


def test_every_token_of_a_held_out_split_is_predicted_once(tmp_path: Path) -> None:
    made = dataset(write_corpus(tmp_path, [text(n) for n in range(300)], shards=2), val_fraction=0.3)
    split = made.split("val")
    assert isinstance(split, FixedWindows)
    predicted = int((everything(split)["length"] - 1).sum())
    assert predicted == len(split._streams[0]) - 1


def windows_of(letters: str) -> int:
    return (len(letters) - 1) // 16 - 1


def test_an_epoch_predicts_no_token_twice_and_the_next_one_cuts_elsewhere(tmp_path: Path) -> None:
    letters = "".join(chr(97 + n % 26) + chr(97 + n // 26) for n in range(600))  # each pair of letters stands once
    train = dataset(write_corpus(tmp_path, [letters], special_tokens=()), packing="stream").split("train")
    epochs = []
    for epoch in range(3):
        rows = everything(train, EpochKey(5, epoch))["tokens"]
        starts = sorted(row.tolist() for row in rows)
        epochs.append(starts)
        assert len(starts) == windows_of(letters)
        # Sixteen targets a window, none in two of them: the windows stand side by side in the text.
        places = sorted(where(letters, row) for row in starts)
        assert {after - before for before, after in pairwise(places)} == {16}
    assert epochs[0] != epochs[1] != epochs[2]


def where(letters: str, row: Sequence[int]) -> int:
    piece = char_tokenizer(()).decode(row)
    found = letters.find(piece)
    assert found >= 0
    return found


def of_first(batch: Batch, first: str) -> int:
    """Return how many windows hold nothing but the letters of one corpus."""
    return int((batch["tokens"] == char_tokenizer(()).encode(first)).all(dim=1).sum())


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 9), (50, 1)])
def test_an_epoch_holds_each_corpus_by_its_weight(tmp_path: Path, weights: tuple[float, float]) -> None:
    paths = [write_corpus(tmp_path / one, [one * 1700], special_tokens=()) for one in "ab"]
    train = dataset(*paths, weights=list(weights)).split("train")
    assert len(train) == 2 * windows_of("a" * 1700)
    for epoch in range(3):
        batch = everything(train, EpochKey(0, epoch))
        counts = [of_first(batch, one) for one in "ab"]
        assert sum(counts) == len(train)
        assert counts[0] == round(len(train) * weights[0] / sum(weights))


def test_a_corpus_without_weights_counts_by_its_size(tmp_path: Path) -> None:
    paths = [write_corpus(tmp_path / one, [one * size], special_tokens=()) for one, size in (("a", 3000), ("b", 1000))]
    batch = everything(dataset(*paths).split("train"), EpochKey(0, 0))
    assert of_first(batch, "a") == pytest.approx(3 * of_first(batch, "b"), abs=4)


def test_a_corpus_is_read_through_before_a_window_comes_again(tmp_path: Path) -> None:
    letters = "".join(chr(97 + n % 26) + chr(97 + n // 26) for n in range(600))
    one = write_corpus(tmp_path / "one", [letters], special_tokens=())
    other = write_corpus(tmp_path / "other", [" " * 4000], special_tokens=())
    train = dataset(one, other, weights=[1, 9], packing="stream").split("train")
    assert isinstance(train, MixedWindows)
    share, windows = int(train._edges[1]), train._windows[0]
    assert share < windows / 2
    seen: list[int] = []
    for epoch in range(2 * windows // share):
        rows = train.batch(torch.arange(share), EpochKey(0, epoch))["tokens"].tolist()
        seen += [where(letters, row) for row in rows]
    # A pass has one offset; the next pass begins within an epoch, and has another.
    first, second = seen[:windows], seen[windows : 2 * windows]
    assert len(set(first)) == windows
    assert len({place % 16 for place in first}) == 1
    assert {place % 16 for place in second} != {place % 16 for place in first}
    assert first[:share] != sorted(first)[:share]  # what an epoch takes is spread over the corpus
    upsampled = dataset(one, other, weights=[9, 1], packing="stream").split("train")
    assert isinstance(upsampled, MixedWindows)
    rows = upsampled.batch(torch.arange(int(upsampled._edges[1])), EpochKey(0, 0))["tokens"].tolist()
    counts = Counter(where(letters, row) // 16 for row in rows)
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.fixture
def mixture(tmp_path: Path) -> Split:
    paths = [
        write_corpus(tmp_path / name, [text(n) for n in range(first, first + count)], shards=shards)
        for name, first, count, shards in (("one", 0, 200, 3), ("other", 500, 50, 1))
    ]
    return dataset(*paths, weights=[0.6, 0.4], val_fraction=0.1).split("train")


def batches(loader: Loader, epochs: int = 2) -> list[Batch]:
    return [batch for _ in range(epochs) for batch in loader]


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_loader_goes_on_from_any_step_bit_for_bit(mixture: Split) -> None:
    whole = batches(Loader(mixture, 8, training=True, seed=3))
    for step in (1, len(whole) // 2 - 1, len(whole) // 2, len(whole) // 2 + 3):
        before = Loader(mixture, 8, training=True, seed=3)
        for _, _ in zip(range(step), (batch for _ in range(2) for batch in before), strict=False):
            state = before.state_dict()
        after = Loader(mixture, 8, training=True, seed=3)
        after.load_state_dict(state)
        rest: list[Batch] = []
        while len(rest) < len(whole) - step:
            rest += after
        assert all(same(one, other) for one, other in zip(rest, whole[step:], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_share_the_batches_of_one_process(mixture: Split, workers: int) -> None:
    alone = batches(Loader(mixture, 8, training=True, seed=3), 1)
    ranks = [
        batches(Loader(mixture, 8, training=True, seed=3, rank=rank, world=2, num_workers=workers), 1)
        for rank in range(2)
    ]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert same(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


def test_an_example_does_not_hang_on_its_batch(mixture: Split) -> None:
    together = everything(mixture, EpochKey(3, 2))
    for number in (0, len(mixture) // 2, len(mixture) - 1):
        alone = mixture.batch(torch.tensor([number]), EpochKey(3, 2))
        assert same(alone, {name: values[number : number + 1] for name, values in together.items()})


def test_a_split_travels_to_a_worker_without_its_tokens(mixture: Split) -> None:
    content = pickle.dumps(mixture)
    assert same(everything(pickle.loads(content), EpochKey(1, 1)), everything(mixture, EpochKey(1, 1)))


def test_own_inputs_become_windows(tmp_path: Path) -> None:
    made = dataset(write_corpus(tmp_path / "corpus", [text(n) for n in range(100)]))
    (tmp_path / "own.txt").write_text("from a file", encoding="utf-8")
    batch = everything(made.read(["some text that is longer than a window", str(tmp_path / "own.txt")]))
    tokenizer = char_tokenizer()
    rows = [tokenizer.decode(row[:length]) for row, length in rows_of(batch)]
    assert rows == ["some text that is", "s longer than a w", "window", "from a file"]
    assert batch["input"].tolist() == [0, 0, 0, 1]
    with pytest.raises(DataError, match="'a': has 1 tokens; a prediction needs at least 2"):
        made.read(["a"])


def test_the_tokenizer_comes_with_the_corpus(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, [text(n) for n in range(100)])
    made = dataset(folder)
    made.prepare()
    tokenizer = made._tokenizer
    assert tokenizer.record == char_record()
    assert tokenizer.decode(tokenizer.encode("alpha beta")) == "alpha beta"
    assert tokenizer.exact == char_tokenizer().exact
    other = CorpusTokenizer(CorpusTokenizerConfig())
    other.load_state(tokenizer.state())
    assert other.encode("alpha beta").tolist() == char_tokenizer().encode("alpha beta").tolist()
    taken = CorpusTokenizer(CorpusTokenizerConfig(path=str(folder)))
    taken.train([])
    assert taken.state() == tokenizer.state()
    assert [ids.tolist() for ids in taken.encode_batch(["a", "b"])] == [[2], [3]]
    # A corpus built with another one's tokenizer is described as that one is, so that both can be mixed.
    assert TokenizerRecord.of("corpus", {"path": str(folder)}, taken) == char_record()


def test_a_tokenizer_without_a_corpus_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.path: not given\n    set it to the folder of a built corpus"):
        CorpusTokenizer(CorpusTokenizerConfig()).train(["text"])


def test_corpora_of_two_tokenizers_do_not_mix(tmp_path: Path) -> None:
    one = write_corpus(tmp_path / "one", [text(n) for n in range(100)])
    other = write_corpus(tmp_path / "other", [text(n) for n in range(100)], alphabet="abcdefghijklmnopqrstuvwxyz .")
    with pytest.raises(DataError) as caught:
        dataset(one, other).prepare()
    assert str(caught.value) == (
        f"{other}: was built with another tokenizer, {char_record(alphabet='abcdefghijklmnopqrstuvwxyz .')}, than {one}, "
        f"{char_record()}; build it with tokenizer=corpus tokenizer.path={one}"
    )


def test_a_corpus_of_another_tokenizer_than_the_models_is_refused(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "one", [text(n) for n in range(100)])
    tokenizer = CorpusTokenizer(CorpusTokenizerConfig())
    tokenizer.take(char_record(("unk",)))
    made = CorpusDataset(CorpusDatasetConfig(path=str(folder)), tokenizer)
    with pytest.raises(
        DataError, match=r"one: was built with another tokenizer, char of 28 tokens .*, than the model was"
    ):
        made.prepare()


def test_settings_that_contradict_are_refused_together() -> None:
    config = CorpusDatasetConfig(path="a", paths=["b", "c"], weights=[1.0], val_fraction=0.6, test_fraction=0.5)
    with pytest.raises(ConfigError) as caught:
        CorpusDataset(config, char_tokenizer())
    assert [problem.place for problem in caught.value.problems] == [
        "dataset.paths",
        "dataset.weights",
        "dataset.val_fraction",
        "tokenizer",
    ]
    with pytest.raises(
        ConfigError, match=r"dataset.path: not given\n    set it to a folder that `torchloom corpus build"
    ):
        dataset(path=None)


def test_too_little_text_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, ["alpha", "beta"])
    with pytest.raises(DataError) as caught:
        dataset(folder).split("train")
    assert str(caught.value) == (
        f"{folder}: the training split has 11 tokens, but one window takes 17; give a larger corpus or lower "
        "dataset.context_length"
    )
    with pytest.raises(DataError) as caught:
        dataset(folder, val_fraction=0.001).split("val")
    assert str(caught.value) == (
        f"{folder}: the val split holds 0 documents, which is too little for one prediction; raise "
        "dataset.val_fraction=0.001, or set it to 0 to do without"
    )


def test_verification_is_a_setting(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, [text(n) for n in range(100)])
    with (folder / "tokens/00000.bin").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x05\x00")
    dataset(folder).prepare()
    with pytest.raises(DataError, match="SHA-256"):
        dataset(folder, verify=True).prepare()
