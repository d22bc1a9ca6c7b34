"""Datasets: named splits of examples, and what the examples look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from torchloom.configs import DatasetConfig
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import UnsupportedError

Batch = dict[str, Tensor]
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class EpochKey:
    """What randomness in a training batch may depend on, beside the example's own index.

    An augmentation that draws from a generator seeded by ``(seed, epoch, index)`` gives the same example whatever the
    batch size, the number of workers or processes, and after a resume.
    """

    seed: int
    epoch: int


class Split(ABC):
    """A fixed, ordered collection of examples, read a batch at a time."""

    augmented: bool = False
    """Whether a training batch differs from epoch to epoch; frozen features are then not cached."""
    lengths: Tensor | None = None
    """How long each example is, int64 ``(len(self),)``, where batches are to be made of examples of like length."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    @abstractmethod
    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Read examples together, so that in-memory data costs one indexing operation a batch.

        Args:
            indices: int64 ``(batch,)``, each in ``[0, len(self))``.
            key: Seed and epoch in training; None in evaluation, where the result must not be random.

        Returns:
            Tensors as the dataset's spec describes them, first dimension ``batch``, on the CPU.

        Raises:
            DataError: An example cannot be read; names the file.
        """


class TensorSplit(Split):
    """Examples held in memory as equally long tensors."""

    def __init__(self, **tensors: Tensor) -> None:
        lengths = {len(tensor) for tensor in tensors.values()}
        assert len(lengths) == 1, f"tensors of one split differ in length: {lengths}"
        self.tensors = tensors
        self._length = lengths.pop()

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Index every tensor."""
        return {name: tensor.index_select(0, indices) for name, tensor in self.tensors.items()}


class Dataset(ABC):
    """Base of all datasets. Building one reads nothing; `prepare` checks or fetches, `split` loads.

    Splits are deterministic functions of the config, and no example, nor a copy of it, stands in two of them. What is
    learnt from data (a vocabulary, a mean) is learnt from the training split alone.
    """

    takes_tokenizer: ClassVar[bool] = False

    def __init__(self, config: DatasetConfig, tokenizer: Tokenizer | None = None) -> None:
        self.config = config
        self.tokenizer = tokenizer

    def prepare(self) -> None:  # noqa: B027 - optional
        """Check that the data is there or fetch it; called on one process a machine, before `spec` and `split`.

        Raises:
            DataError: The data is missing, empty or corrupt; names the path and how to get it.
        """

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """What a batch holds; available after `prepare`. Trains the tokenizer if it is not trained yet."""

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """Load one split.

        Raises:
            DataError: The data is missing, empty or corrupt.
        """

    def read(self, inputs: Sequence[str]) -> Split:
        """Read a person's own inputs (file paths, or text) as unlabelled examples, for ``predict``.

        Raises:
            UnsupportedError: This dataset cannot.
            DataError: An input cannot be read; names it.
        """
        raise UnsupportedError(
            f"dataset {type(self).__name__} reads no inputs of your own; predict on one of its splits"
        )
