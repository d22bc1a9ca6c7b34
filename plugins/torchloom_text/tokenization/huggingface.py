"""What all tokenizers of Hugging Face share, and how their files are read."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError
from torchloom_text.configs import LoadableConfig
from torchloom_text.tokenization.plain import plain, utf8
from torchloom_text.tokenization.special import SPECIAL_FORMS, checked_special

FILE = "a tokenizer.json of Hugging Face tokenizers"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""Tokens that stand for the bytes of characters outside the vocabulary, as SentencePiece writes them."""
BYTE_FALLBACK = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
WORDS = r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Words, numbers and other marks, each with the space before it, and white space.

No match holds both letters or digits and the signs that special tokens are written with, so that no text gives one.
"""


class HFModel(Tokenizer):
    """A tokenizer of Hugging Face; its JSON is the state.

    Attributes:
        model: What the library calls this kind of model; a file of another kind is refused.
        choice: The tokenizer to choose for a file of each kind.
    """

    model: ClassVar[str]
    choice: ClassVar[dict[str, str]] = {
        "WordLevel": "word",
        "BPE": "bpe",
        "WordPiece": "wordpiece",
        "Unigram": "unigram",
    }
    config: LoadableConfig

    def __init__(self, config: LoadableConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token.
        """
        super().__init__(config)
        self._special = checked_special(config)
        self._loaded: HFTokenizer | None = None
        self._special_ids: dict[str, int] = {}
        self._size = 0
        self._exact = False

    @property
    def trained(self) -> bool:
        """Whether it has a vocabulary."""
        return self._loaded is not None

    def train(self, texts: Iterable[str]) -> None:
        """Learn a vocabulary, or load `path`.

        Raises:
            DataError: The texts are empty or hold too little for the vocabulary asked for, or the file cannot be used.
        """
        if self.config.path is None:
            self._use(self.learn(_nonempty(texts)))
        else:
            self._use(self.load(Path(self.config.path).expanduser()))

    @abstractmethod
    def learn(self, texts: Iterator[str]) -> HFTokenizer:
        """Train a tokenizer on texts, none of them empty.

        Raises:
            DataError: They hold too little for the vocabulary asked for.
        """

    def load(self, path: Path) -> HFTokenizer:
        """Read a tokenizer.json, or the one in a folder.

        Raises:
            DataError: The file is missing, broken, or of another kind of tokenizer.
        """
        if path.is_dir():
            path /= "tokenizer.json"
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read; set tokenizer.path to {FILE}") from error
        try:
            tokenizer = HFTokenizer.from_str(content)
        except Exception as error:  # the library raises a bare Exception
            raise DataError(f"{path}: not {FILE} ({error})") from error
        model = type(tokenizer.model).__name__
        if model != self.model:
            raise DataError(
                f"{path}: holds a tokenizer of the kind {model}, not {self.model}; choose tokenizer={self.choice[model]}"
            )
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._size

    @property
    def exact(self) -> bool:
        """Whether nothing in it can change a text: so it is where it was trained here without normalisation."""
        return self._exact

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return next((self._special_ids[form] for form in SPECIAL_FORMS[name] if form in self._special_ids), None)

    def add(self, forms: Sequence[str]) -> list[int]:
        """Give further special tokens; see `Tokenizer.add`."""
        tokenizer = self._hf
        tokenizer.add_special_tokens(list(forms))
        self._use(tokenizer)
        known: dict[str, int] = tokenizer.get_vocab()
        return [known[form] for form in forms]

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``; what looks like a special token in it is ordinary text.

        Raises:
            DataError: The text has a part without a token, and there is no unknown token.
        """
        # Not as a batch of one: that starts threads, and processes forked afterwards are warned of them.
        return torch.from_numpy(_ids(_run(self._hf.encode, text)))

    def encode_batch(self, texts: Sequence[str]) -> Sequence[NDArray[np.int64]]:
        """Return the ids of each of many texts, int64 ``(length,)``, in parallel.

        Raises:
            DataError: As `encode`.
        """
        return [_ids(one) for one in _run(self._hf.encode_batch_fast, texts)]

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``; a special token appears by its name, as ``<eos>``."""
        text: str = self._hf.decode(plain(ids), skip_special_tokens=False)
        return text

    def state(self) -> str:
        """Return the whole tokenizer as JSON, as ``tokenizer.json`` has it."""
        state: str = self._hf.to_str()
        return state

    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
        self._use(HFTokenizer.from_str(state))

    @property
    def _hf(self) -> HFTokenizer:
        assert self._loaded is not None, "train() or load_state() comes first"
        return self._loaded

    def _use(self, tokenizer: HFTokenizer) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._loaded = tokenizer
        self._special_ids = {
            token.content: index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        self._size = max(tokenizer.get_vocab().values()) + 1  # published vocabularies may leave out ids
        self._exact = _exact(json.loads(tokenizer.to_str()))

    def forms(self) -> list[str]:
        """Return how the special tokens asked for are written."""
        return [SPECIAL_FORMS[name][0] for name in self._special]


def too_few(what: str, size: int, asked: int, min_frequency: int | None = None) -> DataError:
    """Return the error of a text that does not fill the vocabulary asked for."""
    lower = "" if min_frequency is None else f" lower tokenizer.min_frequency={min_frequency},"
    return DataError(
        f"the training text holds {what} for {size} tokens only, not for the {asked} asked for; set "
        f"tokenizer.vocab_size={size} or lower,{lower} or give more text"
    )


def _run(encode: Callable[..., Any], text: str | Sequence[str]) -> Any:
    try:
        try:
            return encode(text, add_special_tokens=False)
        except TypeError:  # half a surrogate pair, which the library cannot take
            clean = _clean(text) if isinstance(text, str) else [_clean(one) for one in text]
            return encode(clean, add_special_tokens=False)
    except Exception as error:  # the library raises a bare Exception
        raise DataError(f"a part of the text has no token, and there is no unknown token ({error})") from error


def _ids(encoding: Encoding) -> NDArray[np.int64]:
    ids = encoding.ids
    return np.fromiter(ids, dtype=np.int64, count=len(ids))


def _clean(text: str) -> str:
    return utf8(text).decode()


def _nonempty(texts: Iterable[str]) -> Iterator[str]:
    iterator = (_clean(text) for text in texts if text)
    first = next(iterator, None)
    if first is None:
        raise DataError("the training text is empty; the tokenizer finds no words in it")
    return chain([first], iterator)


def _exact(state: dict[str, Any]) -> bool:
    """Whether decoding undoes encoding: no step loses anything, and no character is without a token."""
    model, decoder = state["model"], state["decoder"] or {}
    marks = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if state["normalizer"] or any(model.get(mark) for mark in marks):
        return False
    if any(not token["special"] for token in state["added_tokens"]):
        return False
    first = state["pre_tokenizer"] or {}
    steps = first.get("pretokenizers", [first])
    whole = [step for step in steps if not (step.get("type") == "Split" and step["behavior"] == "Isolated")]
    if decoder.get("type") == "ByteLevel":
        known = set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"])
        return known and [step.get("type") for step in whole] == ["ByteLevel"] and not whole[0]["add_prefix_space"]
    # Pieces such as "<0x41>" or "</s>" are matched in text that is not divided as here.
    words = first.get("type") == "Split" and first["pattern"] == {"Regex": WORDS} and not whole
    tokens = dict(model["vocab"])
    return words and decoder == BYTE_FALLBACK and model.get("byte_fallback", False) and tokens.keys() >= set(BYTES)
