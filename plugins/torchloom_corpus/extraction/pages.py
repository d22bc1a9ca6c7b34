"""Text and metadata of one HTML page: plain functions of a string."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from lxml.etree import LxmlError, iterwalk
from lxml.html import Element, HtmlElement, HTMLParser, document_fromstring

from torchloom_corpus.extraction.configs import ExtractionConfig, TrafilaturaConfig

# fmt: off
BLOCKS = frozenset([
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog", "dir",
    "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hgroup", "hr", "legend", "li", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre",
    "section", "select", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul",
])
# fmt: on
HIDDEN = frozenset(["head", "noscript", "script", "style", "svg", "template"])
NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # what XML forbids
SPACE = re.compile(r"[ \t\r\n\f]+")
TITLES = "//title | //meta[@property='og:title' or @name='twitter:title']/@content"


class BrokenPageError(ValueError):
    """A page that no parser can make anything of."""


@dataclass(frozen=True)
class Page:
    """What was found in a page; empty where nothing was.

    Attributes:
        text: Its text.
        title: Its title.
        date: Day of its publication, ISO 8601.
        url: Its address by its own account.
        language: ISO 639-1 code that it declares.
    """

    text: str
    title: str = ""
    date: str = ""
    url: str = ""
    language: str = ""


def parse(html: str) -> HtmlElement:
    """Parse a page, however broken.

    Args:
        html: The page; an encoding that it declares is ignored, since it is decoded already.

    Raises:
        BrokenPageError: There is no element in it.
    """
    # Bytes, since lxml refuses a string that declares an encoding. Without huge_tree libxml2 stops at a depth of 256,
    # which pages reach by leaving tags open.
    source = NOT_TEXT.sub("", html).encode("utf-8", "replace")
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        return document_fromstring(source, parser=parser)
    except LxmlError as error:
        raise BrokenPageError(str(error)) from error


def tree_text(root: HtmlElement) -> str:
    """Return the text below an element: a line for each block, white space kept in ``pre`` alone."""
    parts: list[str] = ["\n"]
    walk = iterwalk(root, events=("start", "end"))
    depth_of_pre = 0
    for event, element in walk:
        begins = event == "start"
        if element.tag in BLOCKS and not parts[-1].endswith("\n"):
            parts.append("\n")
        if begins and element.tag in HIDDEN:
            walk.skip_subtree()
            text = None
        else:
            text = element.text if begins else element.tail if element is not root else None
            if element.tag == "pre":
                depth_of_pre += 1 if begins else -1
        if text and not depth_of_pre:
            text = SPACE.sub(" ", text)
            if parts[-1].endswith((" ", "\n")):
                text = text.lstrip(" ")
        if text:
            parts.append(text)
    return "\n".join(line.rstrip() for line in "".join(parts).split("\n")).strip("\n")


def plain_html(html: str, url: str, config: ExtractionConfig) -> Page:
    """Take all text of a page, tags stripped.

    Args:
        html: The page.
        url: Ignored.
        config: Ignored.

    Raises:
        BrokenPageError: There is no element in it.
    """
    tree = parse(html)
    title = tree.find(".//title")
    return Page(
        tree_text(tree),
        title="" if title is None else " ".join(title.text_content().split()),
        language=declared_language(tree),
    )


def trafilatura(html: str, url: str, config: TrafilaturaConfig) -> Page:
    """Take the main text of a page.

    Args:
        html: The page.
        url: Its address, where known.
        config: Options.

    Raises:
        BrokenPageError: There is no element in it.
    """
    from trafilatura import bare_extraction
    from trafilatura.deduplication import LRUCache
    from trafilatura.settings import Document

    tree = parse(html)
    language = declared_language(tree)
    titles = [_words(found if isinstance(found, str) else found.text_content()) for found in tree.xpath(TITLES)]
    if config.include_captions:
        _captions_to_paragraphs(tree)
    found = bare_extraction(
        tree,
        url=url or None,
        fast=config.fast,
        favor_precision=config.focus == "precision",
        favor_recall=config.focus == "recall",
        include_tables=config.include_tables,
        include_comments=config.include_comments,
        # A cache of its own for each page: trafilatura's is shared, and what is kept would depend on the pages before.
        deduplicate=LRUCache(maxsize=4096) if config.deduplicate else False,
        with_metadata=True,
        # Only dates that the page declares, and none judged by today's, so that every build finds the same.
        date_extraction_params={"original_date": True, "extensive_search": False, "max_date": "2100-01-01"},
    )
    if not isinstance(found, Document):
        return Page("")
    text = "\n".join(part.strip() for part in (found.text, found.comments) if part)
    return Page(
        text if config.headline else _without_headline(text, titles),
        title=found.title or "",
        date=found.date or "",
        url=found.url or "",
        language=language,
    )


def declared_language(tree: HtmlElement) -> str:
    """Return the ISO 639-1 code of the language that a page declares, or nothing."""
    declared = (tree.get("lang"), tree.get("{http://www.w3.org/XML/1998/namespace}lang"), tree.get("xml:lang"))
    for value in (*declared, *tree.xpath("//meta[@property='og:locale' or @name='language']/@content")):
        if value and (match := re.match(r"([A-Za-z]{2})(?![A-Za-z])", value.strip())):
            return match[1].lower()
    return ""


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _without_headline(text: str, titles: list[str]) -> str:
    """Leave out the line among the first three that is the title, or most of it: sites put their name beside it."""
    lines = text.split("\n")
    for number, line in enumerate(lines[:3]):
        words = _words(line)
        if words and any(
            title == words
            or ((title.startswith(f"{words} ") or title.endswith(f" {words}")) and 2 * len(words) >= len(title))
            for title in titles
        ):
            return "\n".join(lines[:number] + lines[number + 1 :])
    return text


def _captions_to_paragraphs(tree: HtmlElement) -> None:
    for figure, caption in list(_figures(tree)):
        text = " ".join(caption.text_content().split())
        linked = sum(len(" ".join(link.text_content().split())) for link in caption.iter("a"))
        if text and 2 * linked <= len(text):
            paragraph = Element("p")
            paragraph.text, paragraph.tail = text, figure.tail
            figure.getparent().replace(figure, paragraph)


def _figures(tree: HtmlElement) -> Iterator[tuple[HtmlElement, HtmlElement]]:
    """Yield figures and their captions, other than pictures that lead to another page and tables shown as figures."""
    for figure in tree.iter("figure"):
        caption = figure.find(".//figcaption")
        outside = {ancestor.tag for ancestor in figure.iterancestors()}
        if (
            caption is not None
            and figure.find(".//table") is None
            and outside.isdisjoint({"a", "aside", "figure", "footer", "nav"})
        ):
            yield figure, caption
