"""Loaders: every example once, the same order for any number of readers, and resuming between any two batches."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchloom.contracts.dataset import Batch, EpochKey, Split, TensorSplit
from torchloom.data import FrozenSplit, Loader, mix


def numbers(size: int) -> TensorSplit:
    return TensorSplit(image=torch.arange(size).float().view(size, 1), label=torch.arange(size))


def labels(loader: Loader) -> list[list[int]]:
    return [batch["label"].tolist() for batch in loader]


@given(size=st.integers(1, 60), batch=st.integers(1, 20), world=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_evaluation_reads_each_example_once_over_all_readers(size: int, batch: int, world: int) -> None:
    batch *= world
    readers = [Loader(numbers(size), batch, training=False, rank=rank, world=world) for rank in range(world)]
    read = [labels(reader) for reader in readers]
    assert sorted(x for reader in read for one in reader for x in one) == list(range(size))
    assert len({len(reader) for reader in read}) == 1, "every process must take as many batches"


@given(size=st.integers(8, 60), share=st.integers(1, 4), world=st.sampled_from([1, 2]), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_training_batches_are_the_same_examples_for_any_number_of_readers(
    size: int, share: int, world: int, seed: int
) -> None:
    batch = share * 2
    alone = labels(Loader(numbers(size), batch, training=True, seed=seed))
    shares = [
        labels(Loader(numbers(size), batch, training=True, seed=seed, rank=rank, world=world)) for rank in range(world)
    ]
    together = [[x for reader in shares for x in reader[number]] for number in range(len(alone))]
    assert together == alone
    flat = [x for one in alone for x in one]
    assert len(set(flat)) == len(flat) == size // batch * batch


def test_epochs_differ_and_depend_on_the_seed_alone() -> None:
    first, again, other = (Loader(numbers(40), 8, training=True, seed=seed) for seed in (1, 1, 2))
    epochs = [labels(first), labels(first)]
    assert epochs[0] != epochs[1]
    assert epochs == [labels(again), labels(again)]
    assert labels(other) != epochs[0]


@given(stop=st.integers(1, 9))
@settings(max_examples=9, deadline=None)
def test_a_loader_goes_on_behind_the_batch_it_was_saved_at(stop: int) -> None:
    whole = Loader(numbers(40), 8, training=True, seed=3)
    expected = [one for _ in range(2) for one in labels(whole)]
    cut = Loader(numbers(40), 8, training=True, seed=3)
    seen: list[list[int]] = []
    while len(seen) < stop:
        for batch in cut:
            seen.append(batch["label"].tolist())
            if len(seen) == stop:
                state = cut.state_dict()
                break
    resumed = Loader(numbers(40), 8, training=True, seed=3)
    resumed.load_state_dict(state)
    rest = labels(resumed) if state["done"] < 5 else []
    if len(seen) + len(rest) < 10:
        rest += labels(resumed)
    assert seen + rest == expected


def test_reading_leaves_the_global_random_state_alone_and_workers_change_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    inline = labels(Loader(numbers(30), 4, training=True, seed=5))
    beside = labels(Loader(numbers(30), 4, training=True, seed=5, num_workers=2))
    assert inline == beside
    assert torch.equal(before, torch.get_rng_state())


def test_a_limit_ends_the_epoch_and_the_next_one_begins_anew() -> None:
    loader = Loader(numbers(40), 8, training=True, seed=1, limit=2)
    first, second = labels(loader), labels(loader)
    assert len(loader) == len(first) == len(second) == 2
    assert loader.epoch == 1
    assert first != second


class Counting(nn.Module):
    """A frozen stage that counts the images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0), requires_grad=False)
        self.seen = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += len(image)
        return image * self.scale


def test_frozen_features_are_computed_once_and_equal_the_stage() -> None:
    stage = Counting()
    split = FrozenSplit(numbers(50), stage)
    for _ in range(3):
        for indices in torch.randperm(50).split(7):
            batch = split.batch(indices, EpochKey(0, 0))
            assert torch.equal(batch["encoded"][:, 0], indices * 3.0)
            assert torch.equal(batch["label"], indices)
            assert "image" not in batch
    assert stage.seen == 50


def test_only_the_neighbourhood_of_what_is_asked_for_is_computed() -> None:
    stage = Counting()
    FrozenSplit(numbers(1000), stage).batch(torch.tensor([3, 500]))
    assert stage.seen == 32


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_mixed_seeds_are_distinct_for_distinct_parts(first: list[int], second: list[int]) -> None:
    assert (mix(*first) == mix(*second)) == (first == second)
    assert 0 <= mix(*first) < 2**63


class Broken(Split):
    """A split whose rows all fail."""

    def __len__(self) -> int:
        return 10

    def batch(self, indices: torch.Tensor, key: EpochKey | None = None) -> Batch:
        raise ValueError("row 3 is corrupt")


def test_an_unreadable_example_stops_the_epoch_with_its_own_error() -> None:
    import pytest

    with pytest.raises(ValueError, match="row 3 is corrupt"):
        labels(Loader(Broken(), 2, training=True))


class Ragged(TensorSplit):
    def __init__(self, lengths: list[int]) -> None:
        super().__init__(label=torch.arange(len(lengths)))
        self.lengths = torch.tensor(lengths)

    def spread(self, batches: list[list[int]]) -> list[int]:
        """Return for each batch how much longer its longest example is than its shortest."""
        lengths = [[int(self.lengths[x]) for x in one] for one in batches]
        return [max(one) - min(one) for one in lengths]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=12, max_size=300),
    share=st.integers(1, 3),
    world=st.sampled_from([1, 2]),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_batches_of_like_length_are_made_of_the_same_examples(
    lengths: list[int], share: int, world: int, seed: int
) -> None:
    split, batch = Ragged(lengths), share * 2
    usual = labels(Loader(split, batch, training=True, seed=seed))
    grouped = labels(Loader(split, batch, training=True, seed=seed, by_length=True))
    assert [len(one) for one in grouped] == [len(one) for one in usual]
    assert sorted(x for one in grouped for x in one) == sorted(x for one in usual for x in one)
    assert sum(split.spread(grouped)) <= sum(split.spread(usual))
    shares = [
        labels(Loader(split, batch, training=True, seed=seed, by_length=True, rank=rank, world=world))
        for rank in range(world)
    ]
    assert [[x for reader in shares for x in reader[number]] for number in range(len(grouped))] == grouped
    read = [
        labels(Loader(split, batch, training=False, by_length=True, rank=rank, world=world)) for rank in range(world)
    ]
    assert sorted(x for reader in read for one in reader for x in one) == list(range(len(lengths)))


def test_batches_of_like_length_come_in_an_order_that_is_new_in_every_epoch() -> None:
    generator = torch.Generator().manual_seed(0)
    split = Ragged(torch.randint(1, 50, (640,), generator=generator).tolist())
    loader = Loader(split, 8, training=True, seed=1, by_length=True)
    first, second = labels(loader), labels(loader)
    assert first != second
    assert sum(split.spread(first)) < 0.2 * sum(split.spread(labels(Loader(split, 8, training=True, seed=1))))
    firsts = [int(split.lengths[one[0]]) for one in first]
    assert firsts != sorted(firsts)
    assert firsts[:16] != sorted(firsts[:16])
    unknown = Loader(numbers(40), 8, training=True, seed=1, by_length=True)
    assert labels(unknown) == labels(Loader(numbers(40), 8, training=True, seed=1))
