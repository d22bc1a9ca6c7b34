"""From splits to batches: a resumable loader that costs one indexing operation a batch, and the Lightning data module."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from math import ceil, prod
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torchloom.configs import DatasetConfig, TrainerConfig
from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.errors import DataError

ENCODED = "encoded"
"""Key of a batch that holds a frozen stage's output in place of the image it was computed from."""

_IN_MEMORY_BYTES = 2 << 30
_POOL = 16
"""Batches that are filled by length from as many examples drawn at random."""


class Loader:
    """Batches of a split, in an order that depends on (seed, epoch) alone, resumable between any two batches.

    It is one of ``world`` equal readers: ``batch_size`` is that of all of them together, so that a run takes the same
    steps however many processes share it. Iterating never touches the global random state.

    With ``by_length``, a split that tells the lengths of its examples is read in batches of like length, in random order
    in training, the shortest first in evaluation.

    Attributes:
        epoch: Number of the epoch being read, from 0.
        done: Batches of that epoch already handed out.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
        by_length: bool = False,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.num_workers = num_workers
        self.rank = rank
        self.world = world
        batches = len(split) // batch_size if training else ceil(len(split) / batch_size)
        self._length = batches if limit is None else min(batches, limit)
        self._lengths = split.lengths if by_length else None
        self.epoch = 0
        self.done = 0
        self._started = False

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        if not self.training:
            self.done = 0
        elif self._started and self.done >= len(self):
            self.epoch += 1
            self.done = 0
        self._started = True
        indices = self._indices()[self.done :]
        key = EpochKey(self.seed, self.epoch) if self.training else None
        for batch in self._read(indices, key):
            # Counted before the batch is handed out, so that a checkpoint written while it is in use goes on behind it.
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data, which Lightning puts into checkpoints."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a place that `state_dict` returned."""
        self.epoch, self.done = state["epoch"], state["done"]
        self._started = True

    def _indices(self) -> list[Tensor]:
        """Return this reader's indices of every batch of the epoch."""
        size = len(self.split)
        if self.training:
            generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
            order = torch.randperm(size, generator=generator)[: len(self) * self.batch_size]
            if self._lengths is not None:
                pools = order.split(_POOL * self.batch_size)
                order = torch.cat([pool[self._lengths[pool].argsort(stable=True)] for pool in pools])
                order = order.view(len(self), -1)[torch.randperm(len(self), generator=generator)]
            share = self.batch_size // self.world
            return list(order.view(len(self), self.world, share)[:, self.rank])
        # In evaluation every reader gets as many batches, none of them empty, and together they read each example once.
        full = ceil(size / self.batch_size)
        order = torch.arange(size) if self._lengths is None else self._lengths.argsort(stable=True)
        pieces = order.tensor_split(full * self.world)
        return [pieces[batch * self.world + self.rank] for batch in range(len(self))]

    def _read(self, indices: list[Tensor], key: EpochKey | None) -> Iterator[Batch]:
        if self.num_workers == 0:
            return (self.split.batch(chosen, key) for chosen in indices)
        return iter(
            DataLoader(
                _Batches(self.split, indices, key),  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self.num_workers,
                generator=torch.Generator().manual_seed(0),
                pin_memory=torch.cuda.is_available(),
            )
        )


class _Batches:
    """Whole batches as items, for worker processes."""

    def __init__(self, split: Split, indices: list[Tensor], key: EpochKey | None) -> None:
        self.split, self.indices, self.key = split, indices, key

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Batch:
        return self.split.batch(self.indices[number], self.key)


def mix(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part and on their order (splitmix64's finaliser, Steele et al. 2014)."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def uniform(key: EpochKey | None, indices: Tensor, count: int, *, stream: int = 0) -> Tensor:
    """Return random numbers that hang on the examples alone, not on how they were put into batches.

    Args:
        key: Seed and epoch in training; None gives every example the same numbers always.
        indices: int64 ``(batch,)``, the examples' numbers.
        count: Numbers an example.
        stream: Tells draws for different purposes apart.

    Returns:
        float32 ``(batch, count)``, uniform in ``[0, 1)``.
    """
    base = mix(stream) if key is None else mix(stream, key.seed, key.epoch)
    golden = np.uint64(0x9E3779B97F4A7C15)
    examples = indices.numpy().astype(np.uint64)[:, None]
    # splitmix64, seeded anew for each example; unsigned arithmetic wraps around, as it is meant to.
    seeds = _finalise((examples + np.uint64(1)) * golden + np.uint64(base))
    bits = _finalise(seeds + np.arange(1, count + 1, dtype=np.uint64) * golden) >> np.uint64(40)
    return torch.from_numpy(bits.astype(np.float32) * np.float32(2.0**-24))


def _finalise(state: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


class FrozenSplit(Split):
    """A split whose images have been replaced by what a frozen stage makes of them, each computed once.

    Rows are computed in fixed groups of neighbours, so the bits do not depend on the order in which they are first asked
    for. Up to 2 GiB stay in memory; more goes to an unlinked temporary file.
    """

    _GROUP = 16

    def __init__(self, split: Split, stage: nn.Module) -> None:
        self.split = split
        self.stage = stage
        self._store: Tensor | None = None
        self._others: dict[str, Tensor] = {}
        self._known = torch.zeros(ceil(len(split) / self._GROUP), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return the batch with ``encoded`` in place of ``image``."""
        groups = (indices // self._GROUP).unique()
        for group in groups[~self._known[groups]].tolist():
            self._compute(group)
        assert self._store is not None
        rest = {name: tensor.index_select(0, indices) for name, tensor in self._others.items()}
        return {ENCODED: self._store.index_select(0, indices), **rest}

    @torch.no_grad()
    def _compute(self, group: int) -> None:
        rows = torch.arange(group * self._GROUP, min((group + 1) * self._GROUP, len(self)))
        batch = self.split.batch(rows)
        device = next(self.stage.parameters()).device
        encoded = self.stage(batch.pop("image").to(device)).float().cpu()
        if self._store is None:
            self._store = _allocate((len(self), *encoded.shape[1:]))
            self._others = {name: value.new_empty((len(self), *value.shape[1:])) for name, value in batch.items()}
        self._store[rows] = encoded
        for name, value in batch.items():
            self._others[name][rows] = value
        self._known[group] = True


def _allocate(shape: tuple[int, ...]) -> Tensor:
    size = prod(shape)
    if size * 4 <= _IN_MEMORY_BYTES:
        return torch.empty(shape)
    with tempfile.NamedTemporaryFile(prefix="torchloom-features-") as file:
        return torch.from_file(file.name, shared=True, size=size).view(shape)


class DataModule(pl.LightningDataModule):
    """Loaders over a dataset's splits, shared among the processes of a run."""

    def __init__(
        self,
        dataset: Dataset,
        trainer: TrainerConfig,
        *,
        seed: int,
        world: int = 1,
        rank: int = 0,
        frozen_stage: nn.Module | None = None,
        examples: Callable[[Split], Split] = lambda split: split,
    ) -> None:
        """Wrap a dataset.

        Args:
            dataset: Prepared already.
            trainer: Limits on the number of batches.
            seed: Seed of the data order and of augmentation.
            world: Processes that divide each batch among them.
            rank: This process's place among them, in ``[0, world)``.
            frozen_stage: Part of the network whose output is kept instead of the images.
            examples: What an objective makes of a split (`torchloom.contracts.objective.Objective.examples`).

        Raises:
            DataError: A split holds less than one batch.
        """
        super().__init__()
        self.dataset = dataset
        self.limits = {
            "train": trainer.limit_train_batches,
            "val": trainer.limit_val_batches,
            "test": trainer.limit_test_batches,
        }
        self.seed, self.world, self.rank = seed, world, rank
        self.frozen_stage = frozen_stage
        self.examples = examples
        self._loaders: dict[SplitName, Loader] = {}

    def loader(self, name: SplitName) -> Loader:
        """Return the loader of a split, made on first use."""
        if name not in self._loaders:
            self._loaders[name] = self._make(name)
        return self._loaders[name]

    def _make(self, name: SplitName) -> Loader:
        config: DatasetConfig = self.dataset.config
        training = name == "train"
        split = self.examples(self.dataset.split(name))
        batch_size = config.batch_size if training else config.eval_batch_size or config.batch_size
        if training and len(split) < batch_size:
            raise DataError(
                f"the training split holds {len(split)} examples, less than one batch of {batch_size}; "
                f"set dataset.batch_size to {max(1, len(split))} or less"
            )
        workers = config.num_workers
        if self.frozen_stage is not None and not split.augmented:
            split, workers = FrozenSplit(split, self.frozen_stage), 0
        return Loader(
            split,
            batch_size,
            training=training,
            seed=self.seed,
            num_workers=workers,
            rank=self.rank,
            world=self.world,
            limit=self.limits[name],
            by_length=True,
        )

    def train_dataloader(self) -> Any:
        """Return the training loader."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """Return the validation loader."""
        return self.loader("val")

    def test_dataloader(self) -> Any:
        """Return the test loader."""
        return self.loader("test")
