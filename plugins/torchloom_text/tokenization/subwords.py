"""Tokenizers of parts of words that keep the spaces, so that the text can come back exactly."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer

from torchloom.errors import ConfigError, DataError, Problem
from torchloom_text.configs import BPEConfig, CharBPEConfig, SubwordConfig, UnigramConfig
from torchloom_text.tokenization.huggingface import BYTES, WORDS, HFModel, too_few
from torchloom_text.tokenization.special import SPECIAL_FORMS

_UNKNOWN = SPECIAL_FORMS["unk"][0]
_SCORE_DIGITS = 3


class BPETokenizer(HFModel):
    """Byte-level byte-pair encoding with GPT-2's division into words: any text comes back exactly.

    A ``tokenizer.json`` given by `path` is used as it is, and then promises no more than its own design does.
    """

    model = "BPE"
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

    def learn(self, texts: Iterator[str]) -> HFTokenizer:
        """Learn merges of bytes.

        Raises:
            DataError: The texts hold too little for the vocabulary asked for.
        """
        config = self.config
        tokenizer = HFTokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=self.forms(),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        size = tokenizer.get_vocab_size()
        if size < config.vocab_size:
            raise too_few("byte pairs", size, config.vocab_size, config.min_frequency)
        return tokenizer


class _CharacterModel(HFModel):
    """What `char_bpe` and `unigram` share: tokens of characters, a word's first one with the space before it.

    The space stays a space where SentencePiece puts a mark, since a text may hold the mark itself. A character that the
    training text did not have is spelt in bytes, or without ``byte_fallback`` is ``unk``.
    """

    config: SubwordConfig

    def __init__(self, config: SubwordConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: An unknown special token, no ``unk`` where it is needed, or a vocabulary too small for bytes and
                special tokens.
        """
        super().__init__(config)
        if config.path is not None:
            return
        if not config.byte_fallback and "unk" not in self._special:
            message = f"{self._special} has no unk, which stands for unknown characters without tokenizer.byte_fallback"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "add unk, or set tokenizer.byte_fallback")])
        if config.vocab_size <= len(self._reserved):
            message = f"{config.vocab_size} leaves nothing beside {len(self._reserved)} special tokens and bytes"
            raise ConfigError(
                [Problem("tokenizer.vocab_size", message, f"set it to {len(self._reserved) + 1} or more")]
            )

    @property
    def _reserved(self) -> list[str]:
        return self.forms() + (BYTES if self.config.byte_fallback else [])

    def learn(self, texts: Iterator[str]) -> HFTokenizer:
        """Learn tokens.

        Raises:
            DataError: The texts hold too little for the vocabulary asked for, or more characters than fit into it.
        """
        config = self.config
        tokenizer = HFTokenizer(models.BPE() if self.model == "BPE" else models.Unigram())
        if config.normalization != "none":
            tokenizer.normalizer = normalizers.NFC() if config.normalization == "nfc" else normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        tokenizer.model = self.fit(tokenizer, texts, config.vocab_size - len(self._reserved))
        tokenizer.add_special_tokens(self.forms())
        return tokenizer

    @abstractmethod
    def fit(self, tokenizer: HFTokenizer, texts: Iterator[str], room: int) -> models.Model:
        """Train the model of a tokenizer.

        Args:
            tokenizer: Divides the texts.
            texts: None empty.
            room: Tokens beside special ones and bytes.

        Returns:
            The model, with the special tokens and bytes first.

        Raises:
            DataError: The texts hold too little, or more characters than fit.
        """


class CharBPETokenizer(_CharacterModel):
    """Byte-pair encoding of characters, as it was first proposed."""

    model = "BPE"
    config: CharBPEConfig

    def fit(self, tokenizer: HFTokenizer, texts: Iterator[str], room: int) -> models.Model:
        """Learn merges of characters.

        Raises:
            DataError: The texts hold too little, or more characters than fit.
        """
        config = self.config
        trainer = trainers.BpeTrainer(vocab_size=room, min_frequency=config.min_frequency, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        learnt = json.loads(tokenizer.to_str())["model"]
        size = len(learnt["vocab"])
        if size > room:
            least = config.vocab_size + size - room
            raise DataError(
                f"the training text has {size} different characters for the {room} tokens that are left for them; set "
                f"tokenizer.vocab_size={least} or higher, or choose tokenizer=bpe"
            )
        if size < room:
            raise too_few("pairs", config.vocab_size + size - room, config.vocab_size, config.min_frequency)
        tokens = [*self._reserved, *sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)]
        return models.BPE(
            {token: index for index, token in enumerate(tokens)},
            [(left, right) for left, right in learnt["merges"]],
            unk_token=_UNKNOWN if "unk" in self._special else None,
            fuse_unk=False,
            byte_fallback=config.byte_fallback,
        )


class UnigramTokenizer(_CharacterModel):
    """The most probable division under a unigram language model, pruned from all substrings of the words."""

    model = "Unigram"
    config: UnigramConfig

    def __init__(self, config: UnigramConfig) -> None:
        """Make an untrained tokenizer.

        Raises:
            ConfigError: As for `char_bpe`, or ``unk`` is not among the special tokens.
        """
        super().__init__(config)
        if (
            config.path is None and "unk" not in self._special
        ):  # the library's search needs the token even where bytes stand in for it
            message = f"{self._special} has no unk, which unigram cannot do without"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "add unk, or choose tokenizer=bpe")])

    def fit(self, tokenizer: HFTokenizer, texts: Iterator[str], room: int) -> models.Model:
        """Learn pieces and their probabilities.

        Raises:
            DataError: The texts hold too little, or more characters than fit.
        """
        config = self.config
        trainer = trainers.UnigramTrainer(vocab_size=room, show_progress=False)
        try:
            tokenizer.train_from_iterator(texts, trainer)
        except Exception as error:  # the library raises a bare Exception
            if "not large enough" not in str(error):
                raise
            raise DataError(
                f"the training text has more different characters than the {room} tokens that are left for them; raise "
                f"tokenizer.vocab_size={config.vocab_size}, or choose tokenizer=bpe"
            ) from error
        learnt = json.loads(tokenizer.to_str())["model"]["vocab"]
        if len(learnt) < room:
            raise too_few("pieces", config.vocab_size + len(learnt) - room, config.vocab_size)
        vocabulary = [*((token, 0.0) for token in self._reserved), *_settled(learnt)]
        return models.Unigram(vocabulary, self._special.index("unk"), byte_fallback=config.byte_fallback)


def _settled(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return pieces and scores as they are in every process.

    The library sums probabilities in the order of a hash table, so that last digits differ. In that order too it gives
    characters that won no place of their own the scores ``lowest + 0.0001 * n``; here all of these have the lowest.
    """
    lowest = min(score for _, score in pieces)
    late = lowest + 0.0001 * sum(len(piece) == 1 for piece, _ in pieces)
    scores = {
        piece: round(lowest if len(piece) == 1 and score <= late else score, _SCORE_DIGITS) for piece, score in pieces
    }
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
