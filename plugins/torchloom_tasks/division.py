"""How examples are divided into splits that share nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

from torchloom.contracts.dataset import SplitName
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import DividedConfig

_log = logging.getLogger(__name__)

T = TypeVar("T")
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def digest(*parts: str) -> bytes:
    """Return a hash of texts, in which it shows where one ends."""
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def check_shares(config: DividedConfig) -> None:
    """Refuse shares that leave nothing to train on.

    Raises:
        ConfigError: They do.
    """
    if config.val_fraction + config.test_fraction >= 1:
        message = f"{config.val_fraction} and dataset.test_fraction={config.test_fraction} leave nothing for training"
        raise ConfigError([Problem("dataset.val_fraction", message, "lower one of them: together below 1")])


def divide(
    given: Mapping[SplitName, Sequence[T]], key: Callable[[T], bytes], config: DividedConfig, source: str
) -> dict[SplitName, list[T]]:
    """Take a share of the training examples for each other split that is not given, and copies out of training.

    Which example goes where hangs on its content alone. Copies stay together; one of an example of a later split (the
    test behind validation behind training) is left out, and how many is logged.

    Args:
        given: Examples of the training split, and of others that have files of their own.
        key: Hash of what makes an example a copy of another.
        config: Shares.
        source: Where they are from, for messages.

    Returns:
        All three splits; empty where the share is 0.

    Raises:
        DataError: Too few different examples for the splits wanted, or none is left for training.
    """
    splits: dict[SplitName, list[T]] = {name: list(given.get(name, ())) for name in SPLITS}
    later: set[bytes] = set()
    for name in reversed(SPLITS):
        kept = [one for one in splits[name] if key(one) not in later]
        if len(kept) < len(splits[name]):
            count = len(splits[name]) - len(kept)
            _log.warning("%s: left out %d examples of %s whose copies stand in a later split", source, count, name)
        splits[name] = kept
        later.update(map(key, kept))
    order = sorted({key(one) for one in splits["train"]})
    shares: list[tuple[SplitName, float]] = [("val", config.val_fraction), ("test", config.test_fraction)]
    wanted = [(name, share) for name, share in shares if name not in given and share > 0]
    if len(order) <= len(wanted):
        raise DataError(
            f"{source}: {len(order)} different examples cannot make {1 + len(wanted)} splits; give more of them, or "
            "set dataset.val_fraction=0 and dataset.test_fraction=0"
        )
    start, place = 0, dict[bytes, SplitName]()
    for name, share in wanted:
        stop = start + max(1, round(share * len(order)))
        place.update(dict.fromkeys(order[start:stop], name))
        start = stop
    train, splits["train"] = splits["train"], []
    for one in train:
        splits[place.get(key(one), "train")].append(one)
    return splits
