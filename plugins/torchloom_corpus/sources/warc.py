"""WARC archives, read as far as they are whole.

A compressed archive is a row of gzip members, one a record, so that damage to one need not cost the others: reading goes
on at the next member that can be read. The check sum of a member is verified before its record is used. In an archive
that is not compressed, records are found again by their first line, and verified by their digest where they have one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import brotli
from warcio.bufferedreaders import ChunkedDataException, ChunkedDataReader
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser, StatusAndHeadersParserException

from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.sources.configs import WarcConfig
from torchloom_corpus.sources.files import FileSource
from torchloom_corpus.sources.html import html_document, is_html

PIECE = 1 << 16
"""Bytes that are read, and at most decompressed, at a time."""
HEADER = 1 << 16
"""Bytes that the header of a record may have."""
MAGIC = b"\x1f\x8b\x08"
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
TYPES = {"warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation"}


class Damaged(Exception):  # noqa: N818 - expected of archives
    """What cannot be read here."""


class TooLarge(Exception):  # noqa: N818 - expected of archives
    """A body is larger than allowed."""


@dataclass(frozen=True)
class Record:
    """A record of an archive.

    Attributes:
        headers: Its WARC header.
        block: What follows the header; None where it is larger than allowed.
        size: Bytes of the block.
    """

    headers: StatusAndHeaders
    block: bytes | None
    size: int


class Warc(FileSource):
    """HTML pages in the response records of WARC archives, compressed by gzip or not.

    Args:
        config: Settings.
    """

    config: WarcConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read a document of each record that is an HTML page.

        Args:
            unit: Name of the file.
            file: Its bytes.
            tally: Counts records that are damaged, too large, no HTML, or no page but a server's error.
        """
        return read_warc(unit, file, self.config.max_page_bytes, tally)


def read_warc(name: str, file: IO[bytes], limit: int, tally: StepTally) -> Iterator[Document]:
    """Read the HTML pages of an archive.

    Args:
        name: Begins the documents' ids, ``"<name>/<record number>"``.
        file: The archive.
        limit: Bytes that a page may have, before and after decompression.
        tally: Counts what is not read, and why.
    """
    number = -1
    # A record's block is a page and its HTTP header.
    for number, record in enumerate(records(file, limit + HEADER, name.endswith(".gz"))):
        example = f"{name}, record {number}"
        if isinstance(record, Damaged):
            tally.drop("damaged record", example=f"{example}: {record}", size=0)
        elif record.headers.get_header("WARC-Type") != "response":
            tally.count("records that are no response")
        elif record.block is None:
            tally.drop("too large", example=example, size=record.size)
        else:
            yield from _page(f"{name}/{number}", example, record.headers, record.block, limit, tally)
    if number < 0:
        tally.drop("empty", example=name)


def _page(
    identity: str, example: str, headers: StatusAndHeaders, block: bytes, limit: int, tally: StepTally
) -> Iterator[Document]:
    url = (headers.get_header("WARC-Target-URI") or "").strip("<>")
    place, example = example, f"{example}: {url}"
    if not url.startswith(("http:", "https:")):
        tally.count("records that are no response")  # of DNS and such
        return
    try:
        http, payload = _http(block)
        content_type = headers.get_header("WARC-Identified-Payload-Type") or http.get_header("Content-Type")
        version_and_status = re.match(r"\S* +(\d{3})\b", http.statusline)
        if version_and_status is None:
            raise Damaged("no HTTP status")
        status = version_and_status[1]
        if status != "200":
            tally.drop(f"HTTP {status}", example=example, size=len(payload))
            return
        data = _body(http, payload, limit)
    except TooLarge:
        tally.drop("too large", example=example, size=len(block))
        return
    except Damaged as damage:
        tally.drop("damaged record", example=f"{example}: {damage}", size=len(block))
        return
    if not is_html(content_type, data):
        tally.drop("not HTML", example=example, size=len(data))
    elif not data.strip():
        tally.drop("empty", example=example)
    else:
        if headers.get_header("WARC-Truncated"):
            tally.count("pages cut short when they were archived")
        # The record's date is when the page was fetched, not when it was written.
        yield html_document(identity, data, tally, http.get_header("Content-Type"), url=url, path=place)


def _http(block: bytes) -> tuple[StatusAndHeaders, bytes]:
    end = BLANK_LINE.search(block, 0, HEADER)
    head = block[: end.end()] if end else block
    try:
        return StatusAndHeadersParser(["HTTP/"]).parse(io.BytesIO(head)), block[len(head) :]
    except (StatusAndHeadersParserException, EOFError) as error:
        raise Damaged("no HTTP header") from error


def _body(http: StatusAndHeaders, payload: bytes, limit: int) -> bytes:
    """Undo the transfer and content encodings, but for those that are declared and not there: many crawlers undo them."""
    if "chunked" in (http.get_header("Transfer-Encoding") or "").lower() and re.match(
        rb"[0-9a-fA-F]+[ \t]*(;[^\r\n]*)?\r\n", payload
    ):
        try:
            payload = ChunkedDataReader(io.BytesIO(payload), raise_exceptions=True).read()
        except ChunkedDataException as error:
            raise Damaged("broken chunks") from error
    encodings = (http.get_header("Content-Encoding") or "").lower().split(",")
    for encoding in reversed([encoding.strip() for encoding in encodings]):
        if encoding not in ("", "identity"):
            payload = _decompressed(encoding, payload, limit)
    if len(payload) > limit:
        raise TooLarge
    return payload


def _decompressed(encoding: str, data: bytes, limit: int) -> bytes:
    ways: dict[str, list[Callable[[], bytes]]] = {
        "gzip": [lambda: _inflated(data, 16 + zlib.MAX_WBITS, limit)],
        "deflate": [lambda: _inflated(data, zlib.MAX_WBITS, limit), lambda: _inflated(data, -zlib.MAX_WBITS, limit)],
        "br": [lambda: _unbrotlied(data, limit)],
    }
    for way in ways.get(encoding.removeprefix("x-"), []):
        try:
            return way()
        except Damaged:
            continue
    if data.lstrip()[:1] == b"<":
        return data  # declared but not there: many crawlers decompress pages and keep the header
    raise Damaged(f"broken or unknown compression {encoding!r}")


def _inflated(data: bytes, window: int, limit: int) -> bytes:
    decompressor = zlib.decompressobj(window)
    try:
        out = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise Damaged(str(error)) from error
    return _bounded(out, decompressor.eof, limit)


def _unbrotlied(data: bytes, limit: int) -> bytes:
    decompressor = brotli.Decompressor()
    try:
        out = decompressor.process(data, output_buffer_limit=limit + 1)
    except brotli.error as error:
        raise Damaged(str(error)) from error
    return _bounded(out, decompressor.is_finished(), limit)


def _bounded(out: bytes, complete: bool, limit: int) -> bytes:
    if len(out) > limit:
        raise TooLarge
    if not complete:
        raise Damaged("cut short")
    return out


class _Torn(Exception):  # noqa: N818 - expected of archives
    """Compressed data that cannot be decompressed any further."""


class _Window:
    """The bytes of a stream from some place on, read as they are needed."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.data = bytearray()

    def fill(self, size: int) -> bool:
        """Have so many bytes at hand; False where the stream ends before."""
        while len(self.data) < size:
            piece = self._read(PIECE)
            if not piece:
                return False
            self.data += piece
        return True

    def drop(self, size: int) -> None:
        """Go on by so many bytes, all of which are at hand."""
        del self.data[:size]

    def skip(self, size: int) -> bool:
        """Go on by so many bytes; False where the stream ends before."""
        while size > len(self.data):
            size -= len(self.data)
            self.data.clear()
            if not self.fill(1):
                return False
        self.drop(size)
        return True

    def seek(self, mark: bytes) -> None:
        """Go on by a byte at least, to the next mark or to the end."""
        self.drop(1)
        while (place := self.data.find(mark)) < 0:
            self.drop(max(0, len(self.data) - len(mark) + 1))
            if not self.fill(len(self.data) + 1):
                place = len(self.data)
                break
        self.drop(place)


class _Member:
    """A gzip member at the beginning of a window, which stays there until it is closed or `limit` bytes are read."""

    def __init__(self, window: _Window, limit: int) -> None:
        self._window = window
        self._limit = limit
        self._decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._used = 0

    def read(self, size: int) -> bytes:
        """Return some more bytes, at most `size`; none at the end, once the check sum is found to be right.

        Raises:
            _Torn: The member is damaged or cut short.
        """
        while not self._decompressor.eof:
            piece = self._decompressor.unconsumed_tail
            if not piece:
                if self._used > self._limit:
                    self._window.drop(self._used)
                    self._used = 0
                if not self._window.fill(self._used + 1):
                    raise _Torn("cut short")
                piece = bytes(self._window.data[self._used : self._used + PIECE])
                self._used += len(piece)
            try:
                data = self._decompressor.decompress(piece, size)
            except zlib.error as error:
                raise _Torn(str(error)) from error
            if data:
                return data
        return b""

    def close(self) -> None:
        """Go on behind the member, which was read to its end."""
        self._window.drop(self._used - len(self._decompressor.unused_data))


def records(file: IO[bytes], limit: int, compressed: bool) -> Iterator[Record | Damaged]:
    """Read the records of an archive, and a `Damaged` in place of each stretch that cannot be read.

    Args:
        file: The archive.
        limit: Bytes of a block beyond which it is passed over unread; memory needed is a few times that.
        compressed: Whether the archive is compressed by gzip; its first bytes decide where they are whole.
    """
    window = _Window(file.read)
    window.fill(len(b"WARC/"))
    if window.data.startswith(b"WARC/") or (not compressed and not window.data.startswith(MAGIC)):
        yield from _records(window, limit)
        return
    lost = False  # a damaged stretch is told once, though it may hold many a mark that leads nowhere
    while window.fill(1):
        if window.data[0] == 0:  # padding, which gzip allows
            window.drop(1)
            continue
        try:
            member = _Member(window, limit)
            for record in _records(_Window(member.read), limit):
                lost = False
                yield record
            lost = False
            member.close()
        except _Torn as damage:
            if not lost:
                yield Damaged(str(damage))
            lost = True
            window.seek(MAGIC)


def _records(window: _Window, limit: int) -> Iterator[Record | Damaged]:
    lost = False
    while True:
        while window.fill(1) and window.data[0] in b"\r\n":
            window.drop(1)
        if not window.data:
            return
        try:
            record = _record(window, limit)
        except Damaged as damage:
            if not lost:
                yield damage
            lost = True
            window.seek(b"\nWARC/")
        else:
            lost = False
            yield record


def _record(window: _Window, limit: int) -> Record:
    """Take the record at the beginning of a window, or leave it there.

    Raises:
        Damaged: There is none, it is not whole, or its digest is another.
    """
    window.fill(len(b"WARC/"))
    if not window.data.startswith(b"WARC/"):
        raise Damaged("no WARC header")
    while (blank := BLANK_LINE.search(window.data, 0, HEADER)) is None:
        if len(window.data) >= HEADER or not window.fill(len(window.data) + 1):
            raise Damaged("no WARC header")
    head = bytes(window.data[: blank.end()])
    try:
        headers = StatusAndHeadersParser(["WARC/"]).parse(io.BytesIO(head))
        size = int(headers.get_header("Content-Length"))
    except (StatusAndHeadersParserException, EOFError, TypeError, ValueError) as error:
        raise Damaged("broken WARC header") from error
    if size < 0 or headers.get_header("WARC-Type") not in TYPES or CONTROL.search(head):
        raise Damaged("broken WARC header")
    end = blank.end() + size
    if size > limit:
        if not window.skip(end):
            raise Damaged("cut short")
        return Record(headers, None, size)
    if not window.fill(end):
        raise Damaged("cut short")
    block = bytes(window.data[blank.end() : end])
    while window.fill(end + 1) and window.data[end] in b"\r\n":
        end += 1
    window.fill(end + len(b"WARC/"))
    if not b"WARC/".startswith(window.data[end : end + len(b"WARC/")]):
        raise Damaged("its length is not as stated")
    _check(headers.get_header("WARC-Block-Digest"), block)
    window.drop(end)
    return Record(headers, block, size)


def _check(digest: str | None, block: bytes) -> None:
    name, _, value = (digest or "").partition(":")
    if name.lower() not in ("sha1", "sha256", "md5"):
        return
    computed = hashlib.new(name, block, usedforsecurity=False)
    if value.upper() not in (base64.b32encode(computed.digest()).decode(), computed.hexdigest().upper()):
        raise Damaged("its digest is another")
