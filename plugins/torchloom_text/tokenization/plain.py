"""Tokenizers without a library: one token a character, or one a byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError
from torchloom_text.configs import ByteConfig, CharConfig
from torchloom_text.tokenization.special import SPECIAL_FORMS, checked_special

Ids = NDArray[np.integer[Any]]


class CharTokenizer(Tokenizer):
    """One token a character: special tokens first, then the training text's characters by code point.

    Known characters come back exactly. An unknown one is ``unk``, which decodes to U+FFFD; since all unknown characters
    share that token, a loss over text that has them is a little too good. With ``special_tokens=[]`` the vocabulary is
    the characters alone and an unknown one is an error.
    """

    def __init__(self, config: CharConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token.
        """
        super().__init__(config)
        self._special = checked_special(config)
        self._characters = ""
        self._added: list[str] = []
        self._symbols: list[str] = []

    @property
    def trained(self) -> bool:
        """Whether it has a vocabulary."""
        return bool(self._characters)

    def train(self, texts: Iterable[str]) -> None:
        """Collect the characters of the texts.

        Raises:
            DataError: The texts are empty.
        """
        characters = "".join(sorted(set().union(*texts)))
        if not characters:
            raise DataError("the training text is empty; the tokenizer finds no characters in it")
        self._set(self._special, characters, [])

    @property
    def vocab_size(self) -> int:
        """Number of special tokens and characters."""
        return len(self._symbols)

    @property
    def exact(self) -> bool:
        """True without ``unk``: then a text of other characters is refused."""
        return "unk" not in self._special

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return self._special.index(name) if name in self._special else None

    def add(self, forms: Sequence[str]) -> list[int]:
        """Give further special tokens; see `Tokenizer.add`."""
        new = [form for form in dict.fromkeys(forms) if form not in self._symbols]
        self._set(self._special, self._characters, [*self._added, *new])
        return [self._symbols.index(form) for form in forms]

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``, one a character.

        Raises:
            DataError: A character is not in the vocabulary and there is no unknown token; names it.
        """
        return torch.from_numpy(self._encode(text))

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Ids]:
        """Return the ids of each of many texts, int64 ``(length,)``.

        Raises:
            DataError: As `encode`.
        """
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> NDArray[np.int64]:
        assert self.trained, "train() or load_state() comes first"
        codes = _codes(text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if self.special_id("unk") is None and (ids < 0).any():
            place = int((ids < 0).argmax())
            raise DataError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} is not in the vocabulary; "
                "add unk to tokenizer.special_tokens, or train on text that has it"
            )
        return ids

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``; a special token but unk appears by its name, as ``<eos>``."""
        return "".join(self._symbols[index] for index in plain(ids))

    def state(self) -> str:
        """Return special tokens and characters as JSON."""
        added = {"added": self._added} if self._added else {}
        return json.dumps({"special_tokens": self._special, "characters": self._characters, **added})

    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
        values = json.loads(state)
        self._set(values["special_tokens"], values["characters"], values.get("added", []))

    def _set(self, special: Sequence[str], characters: str, added: Sequence[str]) -> None:
        self._special = list(special)
        self._characters = characters
        self._added = list(added)
        first = ["\ufffd" if name == "unk" else SPECIAL_FORMS[name][0] for name in special]
        self._symbols = [*first, *characters, *added]
        unknown = self.special_id("unk")
        codes = _codes(characters)
        # From code point to id; the entry after the largest known code point stands for all beyond it.
        self._ids = np.full(int(codes[-1]) + 2, -1 if unknown is None else unknown, dtype=np.int64)
        self._ids[codes] = np.arange(len(special), len(special) + len(characters))


class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8: special tokens first, then the 256 bytes. Any text comes back exactly.

    It learns nothing, but like the others it refuses to be trained on no text.
    """

    exact = True

    def __init__(self, config: ByteConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token.
        """
        super().__init__(config)
        self._special = checked_special(config)
        self._added: list[str] = []
        self._trained = False

    @property
    def trained(self) -> bool:
        """Whether it has seen that there is text."""
        return self._trained

    def train(self, texts: Iterable[str]) -> None:
        """Look for text.

        Raises:
            DataError: The texts are empty.
        """
        if not any(texts):
            raise DataError("the training text is empty; the tokenizer finds no bytes in it")
        self._trained = True

    @property
    def vocab_size(self) -> int:
        """Number of special tokens and bytes."""
        return len(self._special) + 256 + len(self._added)

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return self._special.index(name) if name in self._special else None

    def add(self, forms: Sequence[str]) -> list[int]:
        """Give further special tokens; see `Tokenizer.add`."""
        known = self._forms()
        self._added += [form for form in dict.fromkeys(forms) if form not in known]
        known = self._forms()
        return [known[form] for form in forms]

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``, one a byte."""
        return torch.from_numpy(self._encode(text).astype(np.int64))

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Ids]:
        """Return the ids of each of many texts, uint16 ``(length,)``."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> NDArray[np.uint16]:
        assert self.trained, "train() or load_state() comes first"
        return np.add(np.frombuffer(utf8(text), dtype=np.uint8), len(self._special), dtype=np.uint16)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``.

        Bytes that are not UTF-8, which a model may make, become U+FFFD; a special token appears by its name, as
        ``<eos>``.
        """
        count = len(self._special)
        forms = {index: form.encode() for form, index in self._forms().items()}
        pieces = (forms[index] if index in forms else bytes((index - count,)) for index in plain(ids))
        return b"".join(pieces).decode("utf-8", "replace")

    def state(self) -> str:
        """Return the special tokens as JSON."""
        return json.dumps({"special_tokens": self._special, **({"added": self._added} if self._added else {})})

    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
        values = json.loads(state)
        self._special, self._added = values["special_tokens"], values.get("added", [])
        self._trained = True

    def _forms(self) -> dict[str, int]:
        """Return the ids of the special tokens, by how they are written."""
        before = {SPECIAL_FORMS[name][0]: index for index, name in enumerate(self._special)}
        return before | {form: len(self._special) + 256 + index for index, form in enumerate(self._added)}


def plain(ids: Tensor | Iterable[int]) -> list[int]:
    """Return ids as a list."""
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def utf8(text: str) -> bytes:
    """Return a text's UTF-8 bytes; half a surrogate pair, which has none, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
