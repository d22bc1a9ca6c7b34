"""Tokenizers: text to token ids and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchloom.errors import UnsupportedError


class Tokenizer(ABC):
    """Base of all tokenizers. A new one is untrained; `train` or `load_state` makes it usable."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether it has a vocabulary."""

    @abstractmethod
    def train(self, texts: Iterable[str]) -> None:
        """Learn a vocabulary from the training split's texts.

        Raises:
            DataError: The texts are empty, or hold too little for the vocabulary asked for.
        """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""

    @property
    def exact(self) -> bool:
        """Whether ``decode(encode(text)) == text`` is promised of every text that `encode` takes.

        Text is Unicode: half a surrogate pair, which UTF-8 cannot write, may come back as U+FFFD.
        """
        return False

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one.

        Args:
            name: ``"pad"``, ``"unk"``, ``"bos"``, ``"eos"``, ``"mask"``, ``"cls"`` or ``"sep"``. The last two may share
                the ids of ``"bos"`` and ``"eos"``, as BERT's do.
        """
        return None

    def add(self, forms: Sequence[str]) -> list[int]:
        """Give special tokens beyond the usual ones to a trained tokenizer, such as those around the turns of a chat.

        What has a token keeps it, others take the next free ids. No text gives them, and `decode` writes them out.

        Args:
            forms: How they are written.

        Returns:
            Their ids.

        Raises:
            UnsupportedError: It takes no further tokens.
        """
        raise UnsupportedError(f"tokenizer {type(self).__name__} takes no further special tokens")

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``, without adding special tokens.

        Raises:
            DataError: A part of the text is not in the vocabulary and there is no unknown token; names it.
        """

    def encode_batch(self, texts: Sequence[str]) -> Sequence[NDArray[np.integer[Any]]]:
        """Return the ids of each of many texts, as `encode` gives them; worth overriding where it can be faster.

        Returns:
            For each text an array ``(length,)`` of any integer type.

        Raises:
            DataError: As `encode`.
        """
        return [self.encode(text).numpy() for text in texts]

    @abstractmethod
    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``; for whether that undoes `encode`, see `exact`."""

    @abstractmethod
    def state(self) -> str:
        """Return everything learnt, as a string that a checkpoint carries."""

    @abstractmethod
    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
