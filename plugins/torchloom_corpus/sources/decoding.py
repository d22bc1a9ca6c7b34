"""Bytes to text: one way for every source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from charset_normalizer import from_bytes
from w3lib.encoding import (
    html_body_declared_encoding,
    http_content_type_encoding,
    read_bom,
    resolve_encoding,
    to_unicode,
)

# The encodings that browsers know; detection over all of Python's finds a page to be in the code page of an old printer.
WEB_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp866"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "koi8_r", "koi8_u"),
    *("cp932", "euc_jp", "iso2022_jp", "gb18030", "big5hkscs", "cp949"),
)
STATEFUL = ("iso2022", "hz")  # their bytes are ASCII, hence valid UTF-8, and yet mean something else
CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
SAMPLE = 20_000
"""Bytes that an encoding is detected from."""


@dataclass(frozen=True)
class Decoded:
    """Text, and how sure it is.

    Attributes:
        text: Without byte-order mark and null characters.
        encoding: Python's name of the encoding that was used.
        declared_wrong: Whether another encoding was declared than the bytes are in.
        replaced: Number of places whose bytes mean nothing and became U+FFFD.
    """

    text: str
    encoding: str
    declared_wrong: bool = False
    replaced: int = 0


def decode_html(data: bytes, content_type: str | None = None) -> Decoded:
    """Decode a page, whatever is declared about it.

    A byte-order mark decides; else valid UTF-8 is taken for UTF-8 even where something else is declared, since text in
    another encoding is hardly ever valid UTF-8; else the header's, then the page's own declaration that fits all bytes;
    else what the bytes look like.

    Args:
        data: The page.
        content_type: Its HTTP header ``Content-Type``, if there was one.
    """
    declared = (http_content_type_encoding(content_type), html_body_declared_encoding(data))
    return _decode(data, [name for name in declared if name])


def decode_text(data: bytes, declared: str | None = None) -> Decoded:
    """Decode plain text by its byte-order mark, as UTF-8, as declared, or by what it looks like.

    Args:
        data: The text.
        declared: The encoding it is said to be in.
    """
    name = resolve_encoding(declared) if declared else None
    return _decode(data, [name] if name else [])


def looks_binary(data: bytes) -> bool:
    """Whether data is no text in any encoding: control characters, but neither in UTF-16's pattern nor just a stray few."""
    head = data[:SAMPLE]
    return (
        not read_bom(data)[0] and not _wide(data) and len(head) - len(head.translate(None, CONTROLS)) > 0.02 * len(head)
    )


def _decode(data: bytes, declared: list[str]) -> Decoded:
    encoding, mark = read_bom(data)
    if encoding and mark:
        return _made(data[len(mark) :], encoding, declared)
    if wide := _wide(data):
        return _made(data, wide, declared)
    if declared and declared[0].startswith(STATEFUL) and (b"\x1b" in data or b"~{" in data):
        return _made(data, declared[0], declared)
    for name in ("utf-8", *declared):
        if _fits(data, name):
            return _made(data, name, declared)
    broken = data.decode("utf-8", "replace")
    foreign = sum(len(run) for run in re.findall(r"[^\x00-\x7f\ufffd]+", broken))
    if broken.count("\ufffd") <= 0.5 * foreign:  # UTF-8 with a few bytes lost, such as by cutting it somewhere
        return _made(data, "utf-8", declared)
    return _made(data, _detected(data) or (declared or ["cp1252"])[0], declared)


def _made(data: bytes, encoding: str, declared: list[str]) -> Decoded:
    text = to_unicode(data, encoding)
    replaced = text.count("\ufffd") - (data.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0)
    wrong = any(name != encoding and to_unicode(data, name) != text for name in declared)
    return Decoded(text.replace("\0", ""), encoding, wrong, replaced)


def _fits(data: bytes, encoding: str) -> bool:
    if encoding.startswith(("utf-16", "utf-32")) and b"</" in data:
        return False  # a tag of single bytes; and yet nearly any bytes are valid UTF-16
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def _wide(data: bytes) -> str | None:
    """Tell UTF-16 without a byte-order mark by the null bytes that Latin letters and markup have in it."""
    head = data[:SAMPLE]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.3 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _detected(data: bytes) -> str | None:
    # Markup is ASCII, which tells nothing; and between "<" and ">" no encoding of several bytes a character is torn.
    sample = bytearray()
    for piece in re.finditer(rb"[^<>]*[\x80-\xff][^<>]*", data):
        sample += piece[0] + b"\n"
        if len(sample) > SAMPLE:
            break
    matches = from_bytes(bytes(sample), cp_isolation=list(WEB_ENCODINGS))
    best = matches.best()
    if best is None:
        return None
    equals = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    names = {name for match in equals for name in (match.encoding, *(same.encoding for same in match.submatch))}
    name = "cp1252" if "cp1252" in names else best.encoding  # what a browser takes where nothing speaks against it
    return name if _fits(data, name) else None
