"""Splits and randomness: laws that hold for any data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom.contracts.dataset import EpochKey
from torchloom.errors import DataError
from torchloom_vision.sampling import digests, divide, few, subset, uniform


def pool(seed: int, classes: int, each: int, copies: int):
    """Return hashes and labels of `each` different examples a class, with `copies` repeats strewn among them."""
    rng = np.random.default_rng(seed)
    content = rng.integers(0, 2**63, classes * each).astype(np.uint64)
    labels = np.repeat(np.arange(classes), each)
    again = rng.integers(0, len(content), copies)
    content, labels = np.concatenate([content, content[again]]), np.concatenate([labels, labels[again]])
    order = rng.permutation(len(content))
    return content[order], labels[order]


SHARES = {"test": 0.2, "val": 0.1}


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(10, 60), st.integers(0, 30), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_no_copy_stands_in_two_splits_and_nothing_is_lost(data_seed, classes, each, copies, split_seed):
    content, labels = pool(data_seed, classes, each, copies)
    splits = divide(content, labels, np.array(["train"] * len(labels)), SHARES, split_seed)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(labels)))
    held = [set(content[indices]) for indices in splits.values()]
    assert sum(map(len, held)) == len(set.union(*held))
    for indices in splits.values():
        assert set(labels[indices]) == set(labels)


def test_split_is_stratified_deterministic_and_seeded():
    content, labels = pool(0, 4, 100, 0)
    free = np.array(["train"] * len(labels))
    splits = divide(content, labels, free, SHARES, 0)
    assert {name: np.bincount(labels[indices]).tolist() for name, indices in splits.items()} == {
        "train": [70] * 4,
        "test": [20] * 4,
        "val": [10] * 4,
    }
    again = divide(content, labels, free, SHARES, 0)
    assert all(np.array_equal(splits[name], again[name]) for name in splits)
    assert not np.array_equal(splits["test"], divide(content, labels, free, SHARES, 1)["test"])


def test_an_example_s_split_does_not_depend_on_the_order_of_the_examples():
    content, labels = pool(0, 3, 50, 10)
    free = np.array(["train"] * len(labels))
    order = np.random.default_rng(1).permutation(len(labels))
    here, there = (divide(content[o], labels[o], free, SHARES, 0) for o in (np.arange(len(labels)), order))
    for name in here:
        assert set(content[here[name]]) == set(content[order][there[name]])


def test_copies_of_a_given_test_example_are_left_out_of_training():
    content = np.array([1, 2, 3, 4, 5, 2, 6], np.uint64)
    labels = np.zeros(7, np.int64)
    splits = divide(content, labels, np.array(["train"] * 5 + ["test"] * 2), {"val": 0.25}, 0)
    assert splits["test"].tolist() == [5, 6]
    assert sorted([*splits["train"], *splits["val"]]) == [0, 2, 3, 4]
    assert len(splits["val"]) == 1


def test_copies_with_contradicting_labels_stay_together():
    content = np.array([*range(1, 21), *range(1, 21)], np.uint64)
    labels = np.repeat([0, 1], 20)
    splits = divide(content, labels, np.array(["train"] * 40), SHARES, 0)
    held = [set(content[indices]) for indices in splits.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == 20


def test_too_small_a_class_is_refused():
    with pytest.raises(DataError) as caught:
        divide(np.array([1, 2], np.uint64), np.zeros(2, np.int64), np.array(["train"] * 2), SHARES, 0)
    assert str(caught.value) == (
        "class 0 has 2 different images at most, too few to divide into train, test and val; give it at least 3"
    )


def test_few_takes_so_many_of_each_class_and_more_contains_less():
    content, labels = pool(3, 5, 30, 0)
    two, ten = few(content, labels, 2, 7), few(content, labels, 10, 7)
    assert np.bincount(labels[two]).tolist() == [2] * 5
    assert set(two) < set(ten)
    assert set(subset(content, 5)) < set(subset(content, 9))


def test_uniform_is_a_function_of_seed_epoch_and_index_alone():
    indices = np.arange(4000)
    draws = uniform(EpochKey(3, 2), indices, 4)
    chosen = np.array([17, 5, 3999])
    assert np.array_equal(uniform(EpochKey(3, 2), chosen, 4), draws[chosen])
    for other in (EpochKey(3, 3), EpochKey(4, 2), EpochKey(2, 3)):
        assert not np.isin(uniform(other, indices, 4), draws).any()
    assert draws.min() >= 0
    assert draws.max() < 1
    # 16,000 draws: deviation of the mean 0.0023, of a tenth's count 38; of a correlation of 4,000, 0.016.
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(np.histogram(draws, 10, (0, 1))[0] - 1600).max() < 190
    assert abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.08


def test_digests_tell_contents_apart():
    images = np.array([[[0, 1]], [[1, 0]], [[0, 1]]], np.uint8)
    first, second, third = digests(images)
    assert first == third != second
