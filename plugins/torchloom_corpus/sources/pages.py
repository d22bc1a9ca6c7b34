"""Folders of HTML and of plain-text files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO
from urllib.parse import quote, urljoin

from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.sources.configs import HtmlFolderConfig, TextFilesSourceConfig
from torchloom_corpus.sources.decoding import decode_text, looks_binary
from torchloom_corpus.sources.files import FileSource
from torchloom_corpus.sources.html import count_encoding, html_document


class HtmlFolder(FileSource):
    """HTML files, one document each.

    Args:
        config: Settings.
    """

    config: HtmlFolderConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read the page that a file is.

        Args:
            unit: Its name.
            file: Its bytes.
            tally: Counts a page that is too large, empty or binary.
        """
        data = self.whole(unit, file, tally)
        if data is None:
            return
        if not data.strip():
            tally.drop("empty", example=unit)
        elif looks_binary(data):
            tally.drop("not HTML", example=unit, size=len(data))
        else:
            base = self.config.base_url
            url = urljoin(base if base.endswith("/") else f"{base}/", quote(unit)) if base else None
            yield html_document(unit, data, tally, url=url, path=unit)


class TextFiles(FileSource):
    """Plain-text files, one document each.

    Args:
        config: Settings.
    """

    config: TextFilesSourceConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read the text that a file is; its line ends are kept.

        Args:
            unit: Its name.
            file: Its bytes.
            tally: Counts a file that is too large, empty or no text, and what encodings there were.
        """
        data = self.whole(unit, file, tally)
        if data is None:
            return
        if not data.strip():
            tally.drop("empty", example=unit)
        elif looks_binary(data):
            tally.drop("not text", example=unit, size=len(data))
        else:
            decoded = decode_text(data, self.config.encoding)
            count_encoding(decoded, tally)
            yield Document(decoded.text, unit, metadata={"path": unit, "bytes": len(data)})
