"""Randomness and splits that are functions of content, seed and index, on every machine and version alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchloom.contracts.dataset import EpochKey
from torchloom.errors import DataError

UInts = NDArray[np.uint64]
Ints = NDArray[np.int64]


def digests(contents: Iterable[Any]) -> UInts:
    """Return a 64-bit hash of each byte string or contiguous array; copies have equal ones."""
    return np.array(
        [int.from_bytes(blake2b(content, digest_size=8).digest(), "little") for content in contents], np.uint64
    )


def uniform(key: EpochKey, indices: Ints, count: int) -> NDArray[np.float64]:
    """Return numbers in ``[0, 1)`` that depend on seed, epoch and index only, ``(len(indices), count)``."""
    start = _mix(_mix(np.array([key.seed], np.uint64)) + np.uint64(key.epoch))
    example = _mix(start + indices.astype(np.uint64))
    draws = _mix(example[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return np.ldexp((draws >> np.uint64(11)).astype(np.float64), -53)


def divide(
    content: UInts, labels: Ints, given: NDArray[np.str_], shares: Mapping[str, float], seed: int
) -> dict[str, Ints]:
    """Divide examples into splits so that no two splits hold copies of one example.

    Args:
        content: `digests` of the examples.
        labels: Class of each.
        given: Split of each where it is laid down; ``"train"`` examples are those to be divided further.
        shares: Share of the ``"train"`` examples of each class that becomes the split of that name.
        seed: Which of them.

    Returns:
        Ascending indices of each split. An example whose copy stands in a later split that was laid down (test after
        val after train) is left out.

    Raises:
        DataError: A class has too few examples to divide.
    """
    splits = {str(name): np.flatnonzero(given == name) for name in np.unique(given)}
    for later, earlier in (("test", "val"), ("test", "train"), ("val", "train")):
        if later in splits and earlier in splits:
            copied = np.isin(content[splits[earlier]], content[splits[later]])
            splits[earlier] = splits[earlier][~copied]
    pool = splits["train"]
    # Copies count as of one class, that of the first, lest they part where the labels contradict each other.
    _, first, group = np.unique(content[pool], return_index=True, return_inverse=True)
    stratum = labels[pool][first][group]
    order = _shuffled(content[pool], seed)
    taken: dict[str, list[Ints]] = {name: [] for name in ("train", *shares)}
    for label in np.unique(stratum):
        members = order[stratum[order] == label]
        hashes = content[pool][members]
        start = 0
        for name, share in shares.items():
            stop = start + max(1, round(share * len(members)))
            while 0 < stop < len(members) and hashes[stop] == hashes[stop - 1]:
                stop += 1
            taken[name].append(members[start:stop])
            start = stop
        taken["train"].append(members[start:])
        if start >= len(members):
            raise DataError(
                f"class {label} has {len(members)} different images at most, too few to divide into "
                f"train, {' and '.join(shares)}; give it at least {len(shares) + 1}"
            )
    splits.update({name: np.sort(pool[np.concatenate(parts)]) for name, parts in taken.items()})
    return splits


def few(content: UInts, labels: Ints, per_class: int, seed: int) -> Ints:
    """Return ascending indices of ``per_class`` examples of each class, or of all where there are fewer."""
    order = _shuffled(content, seed)
    return np.sort(np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)]))


def subset(content: UInts, limit: int) -> Ints:
    """Return ascending indices of ``limit`` examples that depend on nothing but the examples."""
    return np.sort(_shuffled(content, 0)[:limit])


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _shuffled(content: UInts, seed: int) -> Ints:
    """Return indices in an order that looks random and is a function of content and seed; copies are neighbours."""
    return np.argsort(_mix(content + _mix(np.array([seed], np.uint64))), kind="stable")


def _mix(values: UInts) -> UInts:
    """Scramble 64-bit integers one to one.

    Source: Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators" (SplitMix64).
    """
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
