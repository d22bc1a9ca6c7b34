"""What windows promise: every token predicted once, nothing crossed, everything decided by (seed, epoch)."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from torchloom.contracts.dataset import EpochKey
from torchloom_text.windows import FixedWindows, ShiftedWindows


def everything(split, key=None):
    return split.batch(torch.arange(len(split)), key)


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=4), context=st.integers(1, 12), pad=st.none() | st.just(7)
)
def test_evaluation_predicts_every_token_but_the_first_exactly_once(lengths, context, pad):
    total = sum(lengths)
    ids = torch.arange(100, 100 + total, dtype=torch.int32)
    streams = list(ids.split(lengths))
    batch = everything(FixedWindows(streams, context, pad))

    predicted = {number: [] for number in range(len(streams))}
    for row, length, number in zip(batch["tokens"], batch["length"], batch["input"], strict=True):
        assert 2 <= length <= context + 1
        assert (row[length:] == (pad or 0)).all()
        predicted[int(number)] += row[1:length].tolist()
    assert predicted == {number: stream[1:].tolist() for number, stream in enumerate(streams)}
    assert batch["tokens"].shape[1] == context + 1
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@given(length=st.integers(2, 80), context=st.integers(1, 12), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_a_training_epoch_predicts_no_token_twice_and_reads_the_stream_in_order(length, context, seed, epoch):
    context = min(context, length - 1)
    split = ShiftedWindows(torch.arange(length, dtype=torch.int32), context)
    tokens = everything(split, EpochKey(seed, epoch))["tokens"]
    targets = tokens[:, 1:].flatten()
    assert tokens.dtype == torch.int64
    assert torch.equal(targets, targets[0] + torch.arange(len(targets)))
    assert torch.equal(tokens[1:, 0], tokens[:-1, -1])
    assert len(split) >= max(1, (length - 1) // context - 1)


def test_over_epochs_every_offset_occurs_and_every_token_is_a_target():
    split = ShiftedWindows(torch.arange(50, dtype=torch.int32), 8)
    starts, targets = set(), set()
    for epoch in range(300):
        tokens = everything(split, EpochKey(0, epoch))["tokens"]
        starts.add(int(tokens[0, 0]) % 8)
        targets |= set(tokens[:, 1:].flatten().tolist())
    assert starts == set(range(8))
    assert targets == set(range(1, 50))


def test_a_training_row_depends_on_seed_epoch_and_index_alone():
    split = ShiftedWindows(torch.arange(5000, dtype=torch.int32), 8)
    key = EpochKey(seed=3, epoch=2)
    whole = everything(split, key)["tokens"]
    chosen = torch.tensor([17, 4, 99])
    assert torch.equal(split.batch(chosen, key)["tokens"], whole[chosen])
    assert any(not torch.equal(everything(split, EpochKey(3, epoch))["tokens"], whole) for epoch in (3, 4, 5))
    assert any(not torch.equal(everything(split, EpochKey(seed, 2))["tokens"], whole) for seed in (4, 5, 6))


def test_a_stream_of_one_window_makes_one_example():
    split = ShiftedWindows(torch.arange(9, dtype=torch.int32), 8)
    assert everything(split, EpochKey(0, 5))["tokens"].tolist() == [list(range(9))]


def test_no_stream_makes_an_empty_split():
    split = FixedWindows([], 8, None)
    assert len(split) == 0
    assert everything(split)["tokens"].shape == (0, 9)
