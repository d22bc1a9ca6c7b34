"""Tokenizers: characters, words, and byte-level byte-pair encoding.

The last two are thin covers over Hugging Face tokenizers.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_text.configs import BPEConfig, CharConfig, TokenizerConfig, WordConfig

SPECIAL_FORMS = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "unk": ("<unk>", "[UNK]"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
    "mask": ("<mask>", "[MASK]"),
}
"""How special tokens are written: ours first, then as published tokenizers have them."""


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
        self._special = _checked_special(config)
        self._characters = ""

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
        self._set(self._special, characters)

    @property
    def vocab_size(self) -> int:
        """Number of special tokens and characters."""
        return len(self._special) + len(self._characters)

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return self._special.index(name) if name in self._special else None

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``, one a character.

        Raises:
            DataError: A character is not in the vocabulary and there is no unknown token; names it.
        """
        assert self.trained, "train() or load_state() comes first"
        codes = _codes(text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if self.special_id("unk") is None and (ids < 0).any():
            place = int((ids < 0).argmax())
            raise DataError(
                f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} is not in the vocabulary; "
                "add unk to tokenizer.special_tokens, or train on text that has it"
            )
        return torch.from_numpy(ids)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``; a special token but unk appears by its name, as ``<eos>``."""
        return "".join(self._symbols[index] for index in _plain(ids))

    def state(self) -> str:
        """Return special tokens and characters as JSON."""
        return json.dumps({"special_tokens": self._special, "characters": self._characters})

    def load_state(self, state: str) -> None:
        """Take back what `state` returned."""
        values = json.loads(state)
        self._set(values["special_tokens"], values["characters"])

    def _set(self, special: Sequence[str], characters: str) -> None:
        self._special = list(special)
        self._characters = characters
        self._symbols = ["\ufffd" if name == "unk" else SPECIAL_FORMS[name][0] for name in special] + list(characters)
        unknown = self.special_id("unk")
        codes = _codes(characters)
        # From code point to id; the entry after the largest known code point stands for all beyond it.
        self._ids = np.full(int(codes[-1]) + 2, -1 if unknown is None else unknown, dtype=np.int64)
        self._ids[codes] = np.arange(len(special), self.vocab_size)


class _HFTokenizer(Tokenizer):
    """What `word` and `bpe` share: a tokenizer of Hugging Face, its JSON being the state."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token.
        """
        super().__init__(config)
        self._special = _checked_special(config)
        self._loaded: HFTokenizer | None = None
        self._special_ids: dict[str, int] = {}

    @property
    def trained(self) -> bool:
        """Whether it has a vocabulary."""
        return self._loaded is not None

    @abstractmethod
    def train(self, texts: Iterable[str]) -> None:
        """Learn a vocabulary."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        size: int = self._hf.get_vocab_size()
        return size

    def special_id(self, name: str) -> int | None:
        """Return the id of a special token, if it has one."""
        return next((self._special_ids[form] for form in SPECIAL_FORMS[name] if form in self._special_ids), None)

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``; what looks like a special token in it is ordinary text."""
        return torch.tensor(self._hf.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """Return the text of ids ``(length,)``; a special token appears by its name, as ``<eos>``."""
        text: str = self._hf.decode(_plain(ids), skip_special_tokens=False)
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

    def _forms(self) -> list[str]:
        return [SPECIAL_FORMS[name][0] for name in self._special]


class WordTokenizer(_HFTokenizer):
    r"""One token a word or a run of punctuation (``\w+|[^\w\s]+``).

    Not exact: `decode` puts one space between tokens, whatever stood there. With the default ``min_frequency`` of 2,
    words met once become ``unk`` in training too, so that a model learns what an unknown word is like.
    """

    config: WordConfig

    def train(self, texts: Iterable[str]) -> None:
        """Take the most frequent words.

        Raises:
            DataError: The texts are empty, or hold fewer words than asked for.
        """
        config = self.config
        tokenizer = HFTokenizer(models.WordLevel(vocab={}, unk_token=SPECIAL_FORMS["unk"][0]))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        if config.lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        trainer = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size if config.vocab_size is not None else 2**31,
            min_frequency=config.min_frequency,
            special_tokens=self._forms(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_nonempty(texts), trainer)
        size = tokenizer.get_vocab_size()
        if size <= len(self._special):
            raise DataError(
                f"no word of the training text occurs {config.min_frequency} times; give more text or lower "
                "tokenizer.min_frequency"
            )
        if config.vocab_size is not None and size < config.vocab_size:
            raise DataError(_too_few("words", size, config.vocab_size, config.min_frequency))
        self._use(tokenizer)

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``.

        Raises:
            DataError: A word is not in the vocabulary and there is no unknown token; names it.
        """
        if self.special_id("unk") is None:
            normal = self._hf.normalizer.normalize_str(text) if self._hf.normalizer is not None else text
            for word, (place, _) in self._hf.pre_tokenizer.pre_tokenize_str(normal):
                if self._hf.token_to_id(word) is None:
                    raise DataError(
                        f"word {word!r} at position {place} is not in the vocabulary; add unk to "
                        "tokenizer.special_tokens, or train on text that has it"
                    )
        return super().encode(text)


class BPETokenizer(_HFTokenizer):
    """Byte-level byte-pair encoding with GPT-2's division into words: any text comes back exactly.

    A ``tokenizer.json`` given by `path` is used as it is, and then promises no more than its own design does.
    """

    config: BPEConfig

    def __init__(self, config: BPEConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token, or a vocabulary too small for the bytes and the special tokens.
        """
        super().__init__(config)
        least = 256 + len(self._special)
        if config.path is None and config.vocab_size < least:
            message = f"{config.vocab_size} is too small for 256 bytes and {len(self._special)} special tokens"
            raise ConfigError([Problem("tokenizer.vocab_size", message, f"set it to {least} or more")])

    def train(self, texts: Iterable[str]) -> None:
        """Learn merges, or load `path`.

        Raises:
            DataError: The texts are empty or hold too little for the vocabulary asked for, or the file cannot be used.
        """
        config = self.config
        if config.path is not None:
            self._use(_load_file(Path(config.path).expanduser()))
            return
        tokenizer = HFTokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=self._forms(),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_nonempty(texts), trainer)
        size = tokenizer.get_vocab_size()
        if size < config.vocab_size:
            raise DataError(_too_few("byte pairs", size, config.vocab_size, config.min_frequency))
        self._use(tokenizer)


def _checked_special(config: TokenizerConfig) -> list[str]:
    names = list(config.special_tokens)
    wrong = [name for name in names if name not in SPECIAL_FORMS]
    if wrong or len(set(names)) < len(names):
        message = f"{wrong[0]!r} is not a special token" if wrong else f"{names} names one twice"
        raise ConfigError([Problem("tokenizer.special_tokens", message, f"choose among {', '.join(SPECIAL_FORMS)}")])
    return names


def _codes(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _plain(ids: Tensor | Iterable[int]) -> list[int]:
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def _nonempty(texts: Iterable[str]) -> Iterable[str]:
    iterator = (text for text in texts if text)
    first = next(iterator, None)
    if first is None:
        raise DataError("the training text is empty; the tokenizer finds no words in it")
    return chain([first], iterator)


def _too_few(what: str, size: int, asked: int, min_frequency: int) -> str:
    return (
        f"the training text holds {what} for {size} tokens only, not for the {asked} asked for; set "
        f"tokenizer.vocab_size={size} or lower, lower tokenizer.min_frequency={min_frequency}, or give more text"
    )


def _load_file(path: Path) -> HFTokenizer:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read; set tokenizer.path to a tokenizer.json of Hugging Face tokenizers"
        ) from error
    try:
        return HFTokenizer.from_str(content)
    except Exception as error:  # the library raises a bare Exception
        raise DataError(f"{path}: not a tokenizer.json of Hugging Face tokenizers ({error})") from error
