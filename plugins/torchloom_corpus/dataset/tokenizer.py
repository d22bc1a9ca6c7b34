"""The tokenizer of a corpus, which travels with it and into checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, Problem
from torchloom.registry import current
from torchloom.schema import to_config
from torchloom_corpus.dataset.configs import CorpusTokenizerConfig
from torchloom_corpus.shards import Corpus, TokenizerRecord


class CorpusTokenizer(Tokenizer):
    """Whichever tokenizer a corpus was built with, its component and settings being part of the state.

    Attributes:
        record: What it is; None before it is trained.
    """

    config: CorpusTokenizerConfig

    def __init__(self, config: CorpusTokenizerConfig) -> None:
        super().__init__(config)
        self.record: TokenizerRecord | None = None
        self._inner: Tokenizer | None = None

    @property
    def trained(self) -> bool:
        """Whether it has been taken from a corpus."""
        return self.record is not None

    @property
    def exact(self) -> bool:
        """Whether any text comes back exactly from its tokens."""
        return self._inner is not None and self._inner.exact

    def train(self, texts: Iterable[str]) -> None:
        """Take the tokenizer of the corpus at `path`; the texts are not looked at.

        Raises:
            ConfigError: No path is given.
            DataError: There is no corpus.
        """
        if self.config.path is None:
            raise ConfigError([Problem("tokenizer.path", "not given", "set it to the folder of a built corpus")])
        self.take(Corpus(Path(self.config.path).expanduser()).tokenizer)

    def take(self, record: TokenizerRecord) -> None:
        """Become the tokenizer that a corpus carries."""
        component = current().get("tokenizer", record.name)
        inner: Tokenizer = current().load(component)(to_config(component, record.config))
        inner.load_state(record.state)
        self.record, self._inner = record, inner

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._trained.vocab_size

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return self._trained.special_id(name)

    def add(self, forms: Sequence[str]) -> list[int]:
        """Give further special tokens; see `Tokenizer.add`."""
        assert self.record is not None, "train() or load_state() comes first"
        ids = self._trained.add(forms)
        self.record = replace(self.record, state=self._trained.state())
        return ids

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``."""
        return self._trained.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> Sequence[NDArray[np.integer[Any]]]:
        """Return the ids of each of many texts."""
        return self._trained.encode_batch(texts)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``."""
        return self._trained.decode(ids)

    def state(self) -> str:
        """Return component, settings and state of the tokenizer as JSON."""
        assert self.record is not None, "train() or load_state() comes first"
        return json.dumps(asdict(self.record))

    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
        self.take(TokenizerRecord(**json.loads(state)))

    @property
    def _trained(self) -> Tokenizer:
        assert self._inner is not None, "train() or load_state() comes first"
        return self._inner
