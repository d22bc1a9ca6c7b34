"""Folders of books and papers: EPUB and PDF."""

from __future__ import annotations

import io
import logging
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from html.entities import html5
from typing import IO, Any
from urllib.parse import unquote

from lxml import etree

from torchloom_corpus.contracts import HTML, Document, StepTally
from torchloom_corpus.sources.configs import EpubConfig, PdfConfig
from torchloom_corpus.sources.files import FileSource, said

_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_CHAPTERS = ("application/xhtml+xml", "text/html")
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)


class _Unusable(Exception):  # noqa: N818 - a reason, not an error
    """Why a book is none; the reason is its text."""


class Epub(FileSource):
    """EPUB books: a document of each, HTML whose body is its chapters in reading order.

    Args:
        config: Settings.
    """

    config: EpubConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read the book that a file is.

        Args:
            unit: Name of the file.
            file: Its bytes.
            tally: Counts a book that is broken, encrypted, too large or empty.
        """
        try:
            with zipfile.ZipFile(file) as archive:
                yield self._book(unit, archive, tally)
        except _Unusable as reason:
            tally.drop(str(reason), example=unit, size=0)
        except (*_BROKEN_ZIP, etree.XMLSyntaxError) as error:
            tally.drop("broken file", example=f"{unit}: {said(error)}", size=0)

    def _book(self, unit: str, archive: zipfile.ZipFile, tally: StepTally) -> Document:
        room = self.config.max_page_bytes
        container = _parsed(_member(archive, "META-INF/container.xml", room))
        places = container.xpath("//*[local-name()='rootfile']/@full-path")
        if not places:
            raise _Unusable("broken file")
        package = _parsed(_member(archive, places[0], room))
        folder = posixpath.dirname(places[0])
        chapters = [posixpath.normpath(posixpath.join(folder, unquote(href))) for href in _reading_order(package)]
        if set(chapters) & _encrypted(archive, room):
            raise _Unusable("encrypted")
        pieces: list[str] = []
        size = 0
        for chapter in chapters:
            try:
                data = _member(archive, chapter, room - size)
            except _BROKEN_ZIP:
                tally.count("chapters that could not be read")
                continue
            size += len(data)
            body = _parsed(_ENTITY.sub(_character, data)).xpath("//*[local-name()='body']")
            if body:
                pieces.append(_inside(body[0]))
        if not any(pieces):
            raise _Unusable("empty")
        title, date, language = (_dublin_core(package, name) for name in ("title", "date", "language"))
        page = etree.Element("html")
        etree.SubElement(etree.SubElement(page, "head"), "title").text = title
        head = etree.tostring(page[0], encoding="unicode", method="html")
        text = f"<!DOCTYPE html><html>{head}<body>{''.join(pieces)}</body></html>"
        metadata = {"content_type": HTML, "path": unit, "bytes": size, "title": title, "date": date}
        if language:
            metadata["language"] = language[:2].lower()
        return Document(text, unit, metadata={key: value for key, value in metadata.items() if value})


def _parsed(data: bytes) -> Any:
    # A book is a stranger's file: no entity of it is expanded, nothing it names is fetched.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    root = etree.fromstring(data, parser)
    if root is None:
        raise _Unusable("broken file")
    return root


def _character(entity: re.Match[bytes]) -> bytes:
    """XHTML knows HTML's names of characters, but from a DTD that is not fetched."""
    name = entity[1].decode()
    characters = "" if name in ("amp", "lt", "gt", "quot", "apos") else html5.get(f"{name};", "")
    return "".join(f"&#{ord(character)};" for character in characters).encode() or entity[0]


def _member(archive: zipfile.ZipFile, name: str, room: int) -> bytes:
    with archive.open(name) as member:
        data = member.read(room + 1)
    if len(data) > room:
        raise _Unusable("too large")
    return data


def _reading_order(package: Any) -> list[str]:
    items = {
        item.get("id"): item.get("href")
        for item in package.xpath("//*[local-name()='manifest']/*[local-name()='item']")
        if item.get("media-type") in _CHAPTERS and item.get("href") and item.get("properties") != "nav"
    }
    spine = package.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    return [items[name] for name in dict.fromkeys(spine) if name in items]


def _encrypted(archive: zipfile.ZipFile, room: int) -> set[str]:
    if "META-INF/encryption.xml" not in archive.namelist():
        return set()
    listed = _parsed(_member(archive, "META-INF/encryption.xml", room))
    return {unquote(place) for place in listed.xpath("//*[local-name()='CipherReference']/@URI")}


def _inside(body: Any) -> str:
    for element in body.iter():
        if isinstance(element.tag, str):
            element.tag = etree.QName(element).localname  # HTML knows no namespaces
    body.attrib.clear()
    text: str = etree.tostring(body, encoding="unicode", method="html", with_tail=False)
    return text[text.index(">") + 1 : text.rindex("<")]


def _dublin_core(package: Any, name: str) -> str | None:
    found = package.xpath(f"//*[local-name()='metadata']/*[local-name()='{name}']")
    return next((element.text.strip() for element in found if element.text and element.text.strip()), None)


class Pdf(FileSource):
    """PDF files that hold text: a document of each, its pages parted by an empty line.

    Args:
        config: Settings.
    """

    config: PdfConfig

    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read the text that a file holds.

        Args:
            unit: Name of the file.
            file: Its bytes.
            tally: Counts a file that is broken, encrypted, too large, or holds no text, such as a scan.
        """
        from pypdf import PdfReader

        logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of every oddity of every file
        data = self.whole(unit, file, tally)
        if data is None:
            return
        try:
            reader = PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                tally.drop("encrypted", example=unit, size=len(data))
                return
            text = "\n\n".join(filter(None, (self._page(page, tally) for page in reader.pages)))
            title = reader.metadata.title if reader.metadata else None
        except Exception as error:  # broken files make it raise nearly anything
            tally.drop("broken file", example=f"{unit}: {said(error)}", size=len(data))
            return
        if not text:
            tally.drop("no text", example=unit, size=len(data))
            return
        metadata = {"path": unit, "bytes": len(data), **({"title": str(title)} if title else {})}
        yield Document(text, unit, metadata=metadata)

    def _page(self, page: Any, tally: StepTally) -> str:
        try:
            text: str = page.extract_text()
        except Exception:  # the pages beside it are still good
            tally.count("pages that could not be read")
            return ""
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
