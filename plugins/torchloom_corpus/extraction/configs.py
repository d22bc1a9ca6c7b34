"""Settings of the extraction steps. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.options import option


@dataclass
class ExtractionConfig:
    """Fields that every extraction step has: what one page may cost."""

    timeout: float = option(
        30.0,
        "Time a page may take, of the processor rather than the clock, so that a busy machine drops no other pages.",
        gt=0,
        unit="seconds",
    )
    memory_mb: int = option(
        2048, "Memory that extraction may take; a page that needs more is dropped.", ge=512, unit="MiB"
    )
    max_characters: int = option(10_000_000, "Characters of the longest page that is tried.", ge=1, unit="characters")


@dataclass
class PlainHtmlConfig(ExtractionConfig):
    """Settings of `plain_html`."""


@dataclass
class TrafilaturaConfig(ExtractionConfig):
    """Settings of `trafilatura`."""

    focus: Literal["balanced", "precision", "recall"] = option(
        "balanced", "Where trafilatura is unsure: weigh both, leave text out, or take it in."
    )
    fast: bool = option(False, "Use trafilatura's own rules alone, without comparing readability's and justext's.")
    headline: bool = option(False, "Leave the page's title at the head of the text; it is kept as metadata anyway.")
    include_tables: bool = option(True, "Take the text of tables.")
    include_comments: bool = option(False, "Take readers' comments, after the text.")
    include_captions: bool = option(False, "Take the captions of figures, which trafilatura leaves out.")
    deduplicate: bool = option(False, "Leave out passages that a page repeats.")
