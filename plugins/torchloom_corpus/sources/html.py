"""An HTML document made of bytes: decoded, and told apart from other content."""

from __future__ import annotations

import re
from typing import Any

from torchloom_corpus.contracts import HTML, Document, StepTally
from torchloom_corpus.sources.decoding import Decoded, decode_html

_MARKUP = re.compile(rb"<(!doctype\s+html|html|head|body|title|meta|div|p|h1|table)\b", re.IGNORECASE)
_HTML_TYPES = ("text/html", "application/xhtml+xml")


def is_html(content_type: str | None, head: bytes) -> bool:
    """Tell whether content is HTML: by its declared type, or where none is declared, by how it begins.

    Args:
        content_type: Header ``Content-Type``, if there was one.
        head: Its first bytes, a few thousand.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    return declared in _HTML_TYPES if declared else _MARKUP.search(head[:4096].replace(b"\0", b"")) is not None


def html_document(
    identity: str, data: bytes, tally: StepTally, content_type: str | None = None, **metadata: Any
) -> Document:
    """Make a document of a page's bytes, counting what was wrong with its encoding.

    Args:
        identity: `Document.id`.
        data: The page, decompressed.
        tally: Counts wrong and broken encodings.
        content_type: Header ``Content-Type``, if there was one.
        metadata: Further metadata; empty values are left out.
    """
    decoded = decode_html(data, content_type)
    count_encoding(decoded, tally)
    known = {key: value for key, value in metadata.items() if value}
    return Document(decoded.text, identity, metadata={"content_type": HTML, "bytes": len(data), **known})


def count_encoding(decoded: Decoded, tally: StepTally) -> None:
    """Count what was wrong with a document's encoding.

    Args:
        decoded: The document.
        tally: Counts.
    """
    if decoded.declared_wrong:
        tally.count("wrong encoding declared")
    if decoded.encoding != "utf-8":
        tally.count(f"decoded from {decoded.encoding}")
    if decoded.replaced:
        tally.count("documents with undecodable bytes")
