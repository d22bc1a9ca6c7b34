"""Texts and pairs of texts as rows of token ids."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchloom.configs import DatasetConfig
from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import DividedConfig
from torchloom_tasks.division import check_shares
from torchloom_tasks.ragged import Ragged

_log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Example = TypeVar("Example")
PAIR = "|||"
"""Stands between the two texts of a person's own input."""


class TaskText(Dataset, Generic[Example]):
    """Base of the datasets of texts that are examples by themselves: divided once, tokens made a split at a time.

    Attributes:
        cut: For each split that has been loaded, how many of its texts were cut to their greatest length.
    """

    takes_tokenizer = True
    config: DividedConfig

    def __init__(self, config: DatasetConfig, tokenizer: Tokenizer | None = None) -> None:
        """Keep the settings; nothing is read yet.

        Raises:
            ConfigError: The shares leave nothing for training, or there is no tokenizer.
        """
        super().__init__(config, tokenizer)
        check_shares(self.config)
        if tokenizer is None:
            raise ConfigError([Problem("tokenizer", "a text dataset needs one", "choose tokenizer=wordpiece or word")])
        self._tokenizer = tokenizer
        self._splits: dict[SplitName, Split] = {}
        self.cut: dict[SplitName, int] = {}

    @abstractmethod
    def divide(self) -> dict[SplitName, list[Example]]:
        """Read and divide all examples.

        Raises:
            DataError: They are missing, empty or wrong; names the file and the place in it.
        """

    @abstractmethod
    def texts(self, example: Example) -> Sequence[str]:
        """Return the texts of an example, for the tokenizer to learn from."""

    @abstractmethod
    def rows(self, examples: Sequence[Example]) -> tuple[Split, int]:
        """Return the split of examples, and how many of them were cut."""

    @abstractmethod
    def make_spec(self, vocabulary: dict[str, Any]) -> Spec:
        """Return the spec, given the fields ``vocab_size`` and ``pad_id`` to ``mask_id``."""

    @cached_property
    def divided(self) -> dict[SplitName, list[Example]]:
        """The examples of each split."""
        return self.divide()

    def prepare(self) -> None:
        """Read and divide the examples."""
        _ = self.divided

    @property
    def spec(self) -> Spec:
        """Vocabulary, lengths and classes; trains the tokenizer on the training split if it is not trained yet."""
        tokenizer = self.trained()
        names = ("pad", "unk", "bos", "eos", "mask")
        return self.make_spec(
            {"vocab_size": tokenizer.vocab_size, **{f"{name}_id": tokenizer.special_id(name) for name in names}}
        )

    def trained(self) -> Tokenizer:
        """Return the tokenizer, trained on the training split."""
        if not self._tokenizer.trained:
            # Contexts and stories recur from question to question; each text counts once.
            self._tokenizer.train(dict.fromkeys(text for one in self.divided["train"] for text in self.texts(one)))
        return self._tokenizer

    def split(self, name: SplitName) -> Split:
        """Load one split.

        Raises:
            DataError: The data is missing or wrong, or an example too long where that is refused.
        """
        if name not in self._splits:
            self.trained()
            self._splits[name], self.cut[name] = self.rows(self.divided[name])
            if self.cut[name]:
                total = len(self.divided[name])
                _log.warning("%d of %d examples of %s are too long and were cut", self.cut[name], total, name)
        return self._splits[name]


class TextSplit(Split):
    """Rows of token ids, as `torchloom.contracts.spec.LabelledTextSpec` has them."""

    def __init__(
        self,
        tokens: Ragged,
        first: Sequence[int] | None,
        labels: Sequence[int] | None,
        *,
        pad_id: int | None,
        context_length: int,
        group_lengths: bool = False,
    ) -> None:
        """Keep the rows.

        Args:
            tokens: Special tokens included.
            first: For pairs, how many tokens of each row belong to the first text.
            labels: Class of each; None for inputs without any.
            pad_id: What fills up rows; 0 if there is no such token.
            context_length: Longest row.
            group_lengths: Whether batches are to be made of rows of like length.
        """
        self.tokens = tokens
        self.lengths = tokens.lengths if group_lengths else None
        self._first = None if first is None else torch.tensor(first, dtype=torch.int64)
        self._labels = None if labels is None else torch.tensor(labels, dtype=torch.int64)
        self._pad_id = pad_id or 0
        self._context_length = context_length

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return rows as long as the longest of them needs."""
        tokens = self.tokens.rows(indices, self._pad_id, most=self._context_length).long()
        batch = {"tokens": tokens, "length": self.tokens.lengths[indices]}
        if self._first is not None:
            place = torch.arange(tokens.shape[1])
            behind = (place >= self._first[indices][:, None]) & (place < batch["length"][:, None])
            batch["segments"] = behind.long()
        if self._labels is not None:
            batch["label"] = self._labels[indices]
        return batch


class Layout:
    """How one or two texts become a row: ``[cls] a [sep]`` or ``[cls] a [sep] b [sep]``, where there are such tokens."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, *, pairs: bool) -> None:
        """Look up the special tokens.

        Raises:
            ConfigError: There is no room for a token of each text.
        """
        self.cls, self.sep = (self._one(tokenizer.special_id(name)) for name in ("cls", "sep"))
        self.pairs = pairs
        self.room = context_length - len(self.cls) - (1 + pairs) * len(self.sep)
        if self.room < 1 + pairs:
            least = context_length - self.room + 1 + pairs
            message = f"{context_length} leaves no room for text beside {context_length - self.room} special tokens"
            raise ConfigError([Problem("dataset.context_length", message, f"set it to {least} or more")])

    @staticmethod
    def _one(found: int | None) -> Ids:
        return np.array([] if found is None else [found], np.int64)

    def row(
        self, first: Ids, second: Ids | None = None, *, keep: Literal["begin", "end"] = "begin"
    ) -> tuple[Ids, int, bool]:
        """Put a row together, cutting texts that are too long: of two, the longer one first.

        Args:
            first: Ids of the first text.
            second: Ids of the second, for pairs.
            keep: Whether the beginning or the end of the first text stays.

        Returns:
            The row, how many of its tokens belong to the first text, and whether anything was cut.
        """
        if second is None:
            sizes = (min(len(first), self.room), 0)
        else:
            size = min(len(first), max(self.room - len(second), self.room - self.room // 2))
            sizes = (size, min(len(second), self.room - size))
        kept = first[: sizes[0]] if keep == "begin" else first[len(first) - sizes[0] :]
        begin = np.concatenate([self.cls, kept, self.sep])
        whole = begin if second is None else np.concatenate([begin, second[: sizes[1]], self.sep])
        return whole, len(begin), sum(sizes) < len(first) + (0 if second is None else len(second))


def halves(text: str) -> tuple[str, str]:
    """Divide a person's own input into its two texts.

    Raises:
        DataError: It is not two texts.
    """
    first, mark, second = (part.strip() for part in text.partition(PAIR))
    if not (mark and first and second):
        raise DataError(f"{text[:60]!r}: not a pair of texts; write it as 'first text {PAIR} second text'")
    return first, second
