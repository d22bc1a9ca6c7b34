"""FineWeb's filter of addresses as datatrove carries it out, without its downloads and its 750 MB of memory."""

from __future__ import annotations

import mmap
import tarfile
from bisect import bisect_right
from collections.abc import Container
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

from datatrove.io import safely_create_file
from datatrove.pipeline.filters import URLFilter
from datatrove.utils._import_utils import ASSETS_PATH
from huggingface_hub import cached_assets_path
from tldextract import TLDExtract

from torchloom.errors import ConfigError, Problem
from torchloom_corpus.contracts import CorpusStep, Document, StepTally
from torchloom_corpus.filters.configs import UrlFilterConfig
from torchloom_corpus.filters.lists import read_list, require_file

__all__ = ["UrlFilter"]

_ASSETS = Path(ASSETS_PATH)
_ARCHIVE = _ASSETS / "url_filterblacklistsv0_3_0.tar.gz"
_WORD_LISTS = tuple(_ASSETS / f"{name}.txt" for name in ("banned_words", "banned_subwords", "soft_banned_words"))
_BLOCK = 1 << 11
_SUFFIXES = TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list of public suffixes that is installed with it


class UrlFilter(CorpusStep):
    """Drops documents by their address.

    Args:
        config: Which lists.

    Raises:
        ConfigError: Nothing is listed.
        DataError: The file of a list is missing.

    Source: Penedo et al., "The FineWeb Datasets" (arXiv:2406.17557), section 3.3.
    """

    config: UrlFilterConfig
    reasons: ClassVar[dict[str, str]] = {
        "domain": "listed domain",
        "subdomain": "listed domain",
        "url": "listed address",
        "hard_blacklisted": "listed word in address",
        "soft_blacklisted": "milder listed words in address",
        "blacklisted_subword": "listed part of a word in address",
    }

    def __init__(self, config: UrlFilterConfig) -> None:
        super().__init__(config)
        if not (config.published or config.domains or config.domains_path or config.words or config.words_path):
            mend = "Set steps.url_filter.published=true, or give domains or words of your own."
            raise ConfigError([Problem("steps.url_filter", "nothing is listed", mend)])
        for what, path in (("domains_path", config.domains_path), ("words_path", config.words_path)):
            if path is not None:
                require_file(path, f"steps.url_filter.{what}")

    def start(self, tally: StepTally, rank: int, world: int) -> None:
        """Read the lists; the published one is unpacked once into datatrove's folder of Hugging Face's cache.

        Raises:
            DataError: The file of a list is missing or unusable.
        """
        super().start(tally, rank, world)
        config = self.config
        domains = [*config.domains, *_more(config.domains_path, "domains_path")]
        words = [*config.words, *_more(config.words_path, "words_path")]
        addresses, hard, parts, soft = _published() if config.published else ([], [], [], [])
        self._filter = URLFilter(
            soft_word_threshold=config.soft_words,
            extra_domains=[domain.lower() for domain in domains if domain],
            extra_urls=addresses,
            banned_words=[word for word in (*words, *hard) if word],
            banned_subwords=parts,
            soft_banned_words=soft,
            use_integrated_lists=False,
        )
        self._filter.tldextractor = _parse
        if config.published:
            more = SortedLines(_folder() / "domains")
            self._filter.block_listed_domains = _Either(self._filter.block_listed_domains, more)

    def process(self, document: Document) -> str | None:
        """Judge the address; a document without one is kept and counted."""
        if not document.metadata.get("url"):
            self.tally.count("documents without an address")
            return None
        verdict = self._filter.filter(document)
        return None if verdict is True else self.reasons[verdict[1]]


class SortedLines:
    """Membership in a file of lines sorted by their bytes, which stays on disk but for an index of its blocks.

    Args:
        path: The file; each line ends in a line feed.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = (self._bytes.find(b"\n", at) + 1 for at in range(_BLOCK, len(self._bytes), _BLOCK))
        self._bounds = sorted({0, *ends, len(self._bytes)})
        self._firsts = [self._bytes[begin : self._bytes.find(b"\n", begin)] for begin in self._bounds[:-1]]

    def __contains__(self, item: object) -> bool:
        line = str(item).encode("utf-8", "replace")
        if b"\n" in line:  # no line, though two lines in a row may read like it
            return False
        block = bisect_right(self._firsts, line) - 1
        if block < 0:
            return False
        begin, end = self._bounds[block : block + 2]
        return self._firsts[block] == line or b"\n%b\n" % line in self._bytes[begin:end]


class _Either:
    """Membership in one of two."""

    def __init__(self, first: Container[str], second: Container[str]) -> None:
        self._first, self._second = first, second

    def __contains__(self, item: object) -> bool:
        return item in self._first or item in self._second


def _more(path: str | None, what: str) -> list[str]:
    return [] if path is None else read_list(path, f"steps.url_filter.{what}")


def _folder() -> Path:
    return Path(cached_assets_path("datatrove", namespace="filters", subfolder="url_filter"))


def _published() -> tuple[list[str], ...]:
    folder = _folder()
    safely_create_file(str(folder / _ARCHIVE.name), lambda: _unpack(folder))
    return tuple(read_list(str(path), "steps.url_filter.published") for path in (folder / "urls", *_WORD_LISTS))


def _parse(url: str) -> SimpleNamespace:
    parts = _SUFFIXES(url.lower())
    return SimpleNamespace(registered_domain=parts.top_domain_under_public_suffix, fqdn=parts.fqdn)


def _unpack(folder: Path) -> None:
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
