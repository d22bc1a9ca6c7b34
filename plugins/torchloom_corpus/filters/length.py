"""Keeps documents of a length within bounds."""

from __future__ import annotations

from torchloom.errors import ConfigError, Problem
from torchloom_corpus.contracts import CorpusStep, Document
from torchloom_corpus.filters.configs import LengthConfig

__all__ = ["Length"]


class Length(CorpusStep):
    """Keeps documents of a length within bounds.

    Args:
        config: Bounds, themselves included.

    Raises:
        ConfigError: A lower bound is above its upper one.
    """

    config: LengthConfig

    def __init__(self, config: LengthConfig) -> None:
        super().__init__(config)
        problems = [
            Problem(f"steps.length.min_{what}", f"{least} is more than max_{what}={most}", "No document could be kept.")
            for what, least, most in (
                ("words", config.min_words, config.max_words),
                ("characters", config.min_characters, config.max_characters),
            )
            if most is not None and least > most
        ]
        if problems:
            raise ConfigError(problems)

    def process(self, document: Document) -> str | None:
        """Count characters, then words."""
        config = self.config
        if (characters := len(document.text)) < config.min_characters:
            return "too few characters"
        if config.max_characters is not None and characters > config.max_characters:
            return "too many characters"
        words = len(document.text.split())
        if words < config.min_words:
            return "too few words"
        if config.max_words is not None and words > config.max_words:
            return "too many words"
        return None
