"""Filters by lists of words and phrases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from datatrove.utils._import_utils import ASSETS_PATH

from torchloom.errors import ConfigError, DataError, Problem
from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import ToxicityConfig, WordListConfig

__all__ = ["Lexicon", "Toxicity", "WordList", "read_list", "require_file"]

_WORD = re.compile(r"\w+")


def require_file(path: str, place: str) -> Path:
    """Return a path that is a file.

    Args:
        path: The file.
        place: Option that names it.

    Raises:
        DataError: There is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{place}: there is no file {file.absolute()}. Give a UTF-8 text file with one entry a line.")
    return file


def read_list(path: str, place: str) -> list[str]:
    """Read a file of entries, one a line; blank lines and those that begin with # are passed over.

    Args:
        path: The file.
        place: Option that names it.

    Raises:
        DataError: It is missing, cannot be read, is not UTF-8, or lists nothing.
    """
    file = require_file(path, place)
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: {file} is not UTF-8: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{place}: {file} cannot be read: {error}.") from error
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"{place}: {file} lists nothing. Give one entry a line.")
    return entries


class Lexicon:
    """Finds words and phrases in text: whole words, case-folded, whatever stands between the words of a phrase.

    Args:
        entries: Words and phrases; their weights where they have other than 1.
    """

    def __init__(self, entries: dict[str, float] | Iterable[str]) -> None:
        weights = entries if isinstance(entries, dict) else dict.fromkeys(entries, 1.0)
        # by first word, since nearly all words of a text begin no entry
        self._by_first: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        for entry, weight in weights.items():
            if words := tuple(_words(entry)):
                self._by_first[words[0]][words] = weight

    def __len__(self) -> int:
        return sum(map(len, self._by_first.values()))

    def find(self, text: str) -> tuple[list[float], int]:
        """Return the weight of each match, and the number of words in the text."""
        words = _words(text)
        found = [
            weight
            for at, word in enumerate(words)
            if word in self._by_first
            for entry, weight in self._by_first[word].items()
            if len(entry) == 1 or tuple(words[at : at + len(entry)]) == entry
        ]
        return found, len(words)


class WordList(CorpusStep):
    """Drops documents with listed words or phrases.

    Args:
        config: The list and thresholds.

    Raises:
        ConfigError: Nothing is listed.
        DataError: The file of the list is missing.
    """

    config: WordListConfig

    def __init__(self, config: WordListConfig) -> None:
        super().__init__(config)
        if not config.words and config.path is None:
            mend = "Give steps.word_list.words=[...] or steps.word_list.path=FILE."
            raise ConfigError([Problem("steps.word_list", "nothing is listed", mend)])
        if config.path is not None:
            require_file(config.path, "steps.word_list.path")

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read the list.

        Raises:
            DataError: Its file is missing or unusable.
        """
        super().start(tally, rank, world)
        more = read_list(self.config.path, "steps.word_list.path") if self.config.path is not None else []
        self._lexicon = Lexicon([*self.config.words, *more])
        if not len(self._lexicon):
            raise DataError("steps.word_list: no entry has a letter or digit in it. List words or phrases.")

    def process(self, document: Document) -> str | None:
        """Count matches."""
        found, words = self._lexicon.find(document.text)
        self.tally.count("matches", len(found))
        if self.config.max_matches is not None and len(found) > self.config.max_matches:
            return "listed words"
        return "share of listed words" if len(found) > self.config.max_share * words else None


class Toxicity(CorpusStep):
    """Drops documents by the share of their words that are obscene, noted in the metadata as ``toxicity``.

    It is a list, not a judge of meaning: it passes polite hatred, and drops a short text that quotes or explains such
    words. The list is the one that FineWeb filters addresses by, and is English; the words of which an address must have
    two to be dropped, such as "sex", weigh half.

    Args:
        config: Another list, and the threshold.

    Raises:
        DataError: The file of the list is missing.
    """

    config: ToxicityConfig

    def __init__(self, config: ToxicityConfig) -> None:
        super().__init__(config)
        if config.path is not None:
            require_file(config.path, "steps.toxicity.path")

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read the list.

        Raises:
            DataError: Its file is missing or unusable.
        """
        super().start(tally, rank, world)
        place = "steps.toxicity.path"
        if self.config.path is not None:
            weights = dict.fromkeys(read_list(self.config.path, place), 1.0)
        else:
            weights = dict.fromkeys(read_list(f"{ASSETS_PATH}/soft_banned_words.txt", place), 0.5)
            weights |= dict.fromkeys(read_list(f"{ASSETS_PATH}/banned_words.txt", place), 1.0)
        self._lexicon = Lexicon(weights)
        if not len(self._lexicon):
            raise DataError(f"{place}: no entry has a letter or digit in it. List words or phrases.")

    def process(self, document: Document) -> str | None:
        """Add up the weights of listed words."""
        found, words = self._lexicon.find(document.text)
        score = sum(found) / words if words else 0.0
        document.metadata["toxicity"] = score
        return "obscene words" if score > self.config.max_score else None


def _words(text: str) -> Sequence[str]:
    return _WORD.findall(text.casefold())
