"""Tokenizers that know words, or the pieces of words, and drop the spaces between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from torchloom.errors import ConfigError, DataError, Problem
from torchloom_text.configs import WordConfig, WordPieceConfig
from torchloom_text.tokenization.huggingface import HFModel, too_few
from torchloom_text.tokenization.special import SPECIAL_FORMS

_MARK = "\uf8ff"
"""Stands before each word in training; a private character, which BERT's cleaning has taken out of the text."""
_PREFIX = "##"


class WordTokenizer(HFModel):
    r"""One token a word or a run of punctuation (``\w+|[^\w\s]+``).

    Not exact: `decode` puts one space between tokens, whatever stood there. With the default ``min_frequency`` of 2,
    words met once become ``unk`` in training too, so that a model learns what an unknown word is like.
    """

    model = "WordLevel"
    config: WordConfig

    def learn(self, texts: Iterator[str]) -> HFTokenizer:
        """Take the most frequent words.

        Raises:
            DataError: The texts hold fewer words than asked for.
        """
        config = self.config
        tokenizer = HFTokenizer(models.WordLevel(vocab={}, unk_token=SPECIAL_FORMS["unk"][0]))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        if config.lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        trainer = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size if config.vocab_size is not None else 2**31,
            min_frequency=config.min_frequency,
            special_tokens=self.forms(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        size = tokenizer.get_vocab_size()
        if size <= len(self._special):
            raise DataError(
                f"no word of the training text occurs {config.min_frequency} times; give more text or lower "
                "tokenizer.min_frequency"
            )
        if config.vocab_size is not None and size < config.vocab_size:
            raise too_few("words", size, config.vocab_size, config.min_frequency)
        return tokenizer

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 ``(length,)``.

        Raises:
            DataError: A word is not in the vocabulary and there is no unknown token; names it.
        """
        self._refuse_unknown(text)
        return super().encode(text)

    def encode_batch(self, texts: Sequence[str]) -> Sequence[NDArray[np.int64]]:
        """Return the ids of each of many texts, int64 ``(length,)``.

        Raises:
            DataError: As `encode`.
        """
        for text in texts:
            self._refuse_unknown(text)
        return super().encode_batch(texts)

    def _refuse_unknown(self, text: str) -> None:
        if self.special_id("unk") is not None:
            return
        normal = self._hf.normalizer.normalize_str(text) if self._hf.normalizer is not None else text
        for word, (place, _) in self._hf.pre_tokenizer.pre_tokenize_str(normal):
            if self._hf.token_to_id(word) is None:
                raise DataError(
                    f"word {word!r} at position {place} is not in the vocabulary; add unk to "
                    "tokenizer.special_tokens, or train on text that has it"
                )


class WordPieceTokenizer(HFModel):
    """Pieces of words, found by longest match, with BERT's cleaning and division into words.

    Pieces inside a word begin with ``##``. Not exact: spaces are evened out, and lower case loses capitals and accents.
    A word of characters that the training text did not have, or of more than 100, is ``unk``.

    The pieces are the pairs that byte-pair encoding merges, as in the library's own trainer; but that one numbers the
    characters as they come out of a hash table, and so learns another vocabulary in every process.
    """

    model = "WordPiece"
    config: WordPieceConfig

    def __init__(self, config: WordPieceConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token, or ``unk`` is not among them.
        """
        super().__init__(config)
        if config.path is None and "unk" not in self._special:
            message = f"{self._special} has no unk, which wordpiece cannot do without"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "add unk, or choose tokenizer=bpe")])

    def learn(self, texts: Iterator[str]) -> HFTokenizer:
        """Learn pieces.

        Raises:
            DataError: The texts hold too little for the vocabulary asked for, or more characters than fit into it.
        """
        config = self.config
        words = self._covered(models.BPE())
        mark = pre_tokenizers.Metaspace(replacement=_MARK, prepend_scheme="always", split=False)
        words.pre_tokenizer = pre_tokenizers.Sequence([words.pre_tokenizer, mark])
        # Twice the size is enough even if every character is merged with the mark, which makes no new piece.
        trainer = trainers.BpeTrainer(
            vocab_size=2 * config.vocab_size, min_frequency=config.min_frequency, show_progress=False
        )
        words.train_from_iterator(texts, trainer)
        learnt = sorted(words.get_vocab().items(), key=lambda item: item[1])
        found = [token for token, _ in learnt if token != _MARK]
        characters = [token for token in found if len(token) == 1]
        tokenizer = self._covered(models.WordPiece(unk_token=SPECIAL_FORMS["unk"][0]))
        inside = [_PREFIX + one for one in characters if _joins(tokenizer, one)]
        merged = [token[1:] if token[0] == _MARK else _PREFIX + token for token in found if len(token) > 1]
        pieces = list(dict.fromkeys([*self.forms(), *characters, *inside, *merged]))
        least = len(self._special) + len(characters) + len(inside)
        if least > config.vocab_size:
            raise DataError(
                f"the training text has {len(characters)} different characters, which take {least} of the "
                f"{config.vocab_size} tokens asked for; set tokenizer.vocab_size={least} or higher"
            )
        if len(pieces) < config.vocab_size:
            raise too_few("pieces of words", len(pieces), config.vocab_size, config.min_frequency)
        return self._filled({piece: index for index, piece in enumerate(pieces[: config.vocab_size])})

    def load(self, path: Path) -> HFTokenizer:
        """Read a tokenizer.json or BERT's vocab.txt, or what a folder has of them.

        Raises:
            DataError: The file is missing, broken, or of another kind of tokenizer.
        """
        if path.is_dir() and not (path / "tokenizer.json").exists():
            path /= "vocab.txt"
        return self._read_vocabulary(path) if path.suffix == ".txt" else super().load(path)

    def _read_vocabulary(self, path: Path) -> HFTokenizer:
        try:
            pieces = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: cannot be read; set tokenizer.path to a vocab.txt of BERT or a folder that holds one"
            ) from error
        pieces = [piece.removesuffix("\r") for piece in (pieces if pieces[-1] else pieces[:-1])]
        vocabulary: dict[str, int] = {}
        for line, piece in enumerate(pieces):
            if vocabulary.setdefault(piece, line) != line:
                raise DataError(
                    f"{path}: line {line + 1} repeats {piece!r} of line {vocabulary[piece] + 1}; a vocab.txt of BERT "
                    "has one piece a line, each once"
                )
        if not vocabulary.keys() & SPECIAL_FORMS["unk"]:
            raise DataError(
                f"{path}: has no {' or '.join(SPECIAL_FORMS['unk'])}; a vocab.txt of BERT has one piece a line"
            )
        if self.config.lowercase and any(piece != piece.lower() for piece in vocabulary.keys() - _special(vocabulary)):
            raise DataError(f"{path}: holds pieces with capital letters; set tokenizer.lowercase=false")
        return self._filled(vocabulary)

    def _covered(self, model: models.Model) -> HFTokenizer:
        tokenizer = HFTokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=self.config.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix=_PREFIX)
        return tokenizer

    def _filled(self, vocabulary: dict[str, int]) -> HFTokenizer:
        unknown = next(form for form in SPECIAL_FORMS["unk"] if form in vocabulary)
        tokenizer = self._covered(models.WordPiece(vocabulary, unk_token=unknown))
        tokenizer.add_special_tokens(sorted(_special(vocabulary), key=vocabulary.__getitem__))
        return tokenizer


def _special(vocabulary: dict[str, int]) -> set[str]:
    return {form for forms in SPECIAL_FORMS.values() for form in forms if form in vocabulary}


def _joins(tokenizer: HFTokenizer, character: str) -> bool:
    """Whether a character can stand inside a word; punctuation and Chinese are words of their own."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(f"a{character}"))) == 1
