"""The cleaning steps: each maps a text to a text, twice is the same as once, and no string makes one fail."""

from __future__ import annotations

import html
import ipaddress
import re
import unicodedata
from abc import abstractmethod
from collections import Counter
from html.entities import html5

import ftfy
import phonenumbers
import regex

from torchloom.errors import ConfigError, Problem
from torchloom_corpus.cleaning.configs import (
    BoilerplateLinesConfig,
    ControlCharactersConfig,
    FixUnicodeConfig,
    HtmlRemnantsConfig,
    MaskPersonalDataConfig,
    NormalizeUnicodeConfig,
    WhitespaceConfig,
)
from torchloom_corpus.contracts import CorpusStep, Document

MOST_ROUNDS = 100
"""Times a step is applied to its own result; texts from outside need one or two, only made-up ones more."""


class CleaningStep(CorpusStep):
    """Base of the cleaning steps. A document that has no text left is dropped as ``empty``."""

    def process(self, document: Document) -> str | None:
        """Clean a document."""
        before = document.text
        document.text, counts = self.clean(before)
        for what, number in counts.items():
            self.tally.count(what, number)
        self.tally.count("documents changed", int(document.text != before))
        return None if document.text.strip() else "empty"

    @abstractmethod
    def clean(self, text: str) -> tuple[str, Counter[str]]:
        """Return the clean text, and what was changed in it how many times."""


class RepeatedStep(CleaningStep):
    """Base of the steps whose result can hold more of what they change: ``&amp;lt;`` becomes ``&lt;``."""

    def clean(self, text: str) -> tuple[str, Counter[str]]:
        """Apply `once` until nothing changes."""
        counts: Counter[str] = Counter()
        for _ in range(MOST_ROUNDS):
            after, found = self.once(text)
            if after == text:
                break
            text = after
            counts += found
        return text, counts

    @abstractmethod
    def once(self, text: str) -> tuple[str, Counter[str]]:
        """Change what there is to change in a text."""


BLOCK_TAGS = "address|article|aside|blockquote|br|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|header|hr|"
BLOCK_TAGS += "li|main|nav|ol|p|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul"
INLINE_TAGS = (
    "a|abbr|b|bdi|bdo|big|body|button|center|cite|code|del|em|font|head|html|i|iframe|img|input|ins|kbd|label|"
)
INLINE_TAGS += "link|mark|meta|noscript|option|q|s|samp|script|select|small|span|strike|strong|style|sub|sup|svg|tt|u|"
INLINE_TAGS += "var|video|wbr"
ATTRIBUTE = r"""\s+[A-Za-z_:@][\w:.@-]*(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'=<>`]+))?"""
TAG = re.compile(rf"<(/?)({BLOCK_TAGS}|{INLINE_TAGS})((?:{ATTRIBUTE}){{0,50}})\s*/?>", re.IGNORECASE)
CLOSING = re.compile(rf"</({BLOCK_TAGS}|{INLINE_TAGS})\s*>", re.IGNORECASE)
BLOCK = re.compile(BLOCK_TAGS, re.IGNORECASE)
NEVER_CLOSED = frozenset(["br", "hr", "img", "input", "link", "meta", "wbr"])
SELDOM_CLOSED = frozenset(["dd", "dt", "li", "option", "p", "td", "th", "tr"])
COMMENT_BEGIN, COMMENT_END = "<!--", "-->"
CODE_BEGIN = re.compile(r"<(script|style)\b[^<>]*>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")


class HtmlRemnants(RepeatedStep):
    """Takes out what is left of HTML in plain text.

    A tag is ``<``, the name of an HTML element, well-formed attributes, and ``>``. With attributes, closing, or of an
    element that has no end (``<br>``) it counts always; without, only if the text closes it somewhere, or if it is one
    that is seldom closed (``<p>``, ``<li>``) and no word stands right before it. So ``a < b``, ``List<int>``, ``Box<p>`` and
    ``#include <map>`` stay as they are.

    An entity ends in a semicolon: ``&copy=1`` in an address stays.
    """

    config: HtmlRemnantsConfig

    def once(self, text: str) -> tuple[str, Counter[str]]:
        """Take out tags, then entities."""
        counts: Counter[str] = Counter()
        if self.config.tags and "<" in text:
            text = _without_comments_and_code(text, counts)
            closed = {match[1].lower() for match in CLOSING.finditer(text)}

            def without(match: re.Match[str]) -> str:
                name = match[2].lower()
                bare = not match[1] and not match[3]
                if bare and name not in closed and name not in NEVER_CLOSED:
                    before = text[match.start() - 1 : match.start()]
                    if name not in SELDOM_CLOSED or before.isalnum() or before == "_":
                        return match[0]
                counts["tags"] += 1
                return "\n" if BLOCK.fullmatch(name) else ""

            text = TAG.sub(without, text)
        if self.config.entities and "&" in text:

            def meant(match: re.Match[str]) -> str:
                if match[1] and f"{match[1]};" not in html5:
                    return match[0]
                counts["entities"] += 1
                return html.unescape(match[0])

            text = ENTITY.sub(meant, text)
        return text, counts


def _without_comments_and_code(text: str, counts: Counter[str]) -> str:
    """Take out what is closed; what is left open could be anything, and its tag alone is for the others."""
    parts: list[str] = []
    position = 0
    while (start := text.find(COMMENT_BEGIN, position)) >= 0:
        end = text.find(COMMENT_END, start + len(COMMENT_BEGIN))
        if end < 0:
            break
        parts.append(text[position:start])
        position = end + len(COMMENT_END)
        counts["comments"] += 1
    text = "".join([*parts, text[position:]])
    parts, position = [], 0
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered, and positions would not fit
        lowered = text
    for match in CODE_BEGIN.finditer(text):
        end = lowered.find(f"</{match[1].lower()}>", match.end()) if match.start() >= position else -1
        if end >= 0:
            parts.append(text[position : match.start()])
            position = end + len(f"</{match[1]}>")
            counts["scripts and styles"] += 1
    return "".join([*parts, text[position:]])


class FixUnicode(RepeatedStep):
    """Repairs wrongly decoded text by ftfy; entities, control characters and normal forms are other steps' work."""

    config: FixUnicodeConfig

    def once(self, text: str) -> tuple[str, Counter[str]]:
        """Repair a text."""
        config = ftfy.TextFixerConfig(
            unescape_html=False,
            remove_terminal_escapes=self.config.remove_terminal_escapes,
            fix_encoding=self.config.fix_encoding,
            fix_latin_ligatures=self.config.fix_latin_ligatures,
            fix_character_width=self.config.fix_character_width,
            uncurl_quotes=self.config.uncurl_quotes,
            remove_control_chars=False,
            normalization=None,
            explain=False,
        )
        return ftfy.fix_text(text, config), Counter()


class NormalizeUnicode(CleaningStep):
    """Writes each character in one way."""

    config: NormalizeUnicodeConfig

    def clean(self, text: str) -> tuple[str, Counter[str]]:
        """Normalise a text."""
        return unicodedata.normalize(self.config.form, text), Counter()


LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
INVISIBLE = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb"
)
INVISIBLE += "\ufffe\uffff"
SURROGATES = "\ud800-\udfff"  # halves of characters, which cannot be written as UTF-8
# A joiner has a meaning between pictures and after a letter of a script that joins its letters; elsewhere it hides.
JOINERS = regex.compile(
    r"(?<![\p{Arabic}\p{Syriac}\p{Nko}\p{Mongolian}\p{Mandaic}\p{Manichaean}\p{Adlam}\p{Devanagari}\p{Bengali}\p{Gurmukhi}"
    r"\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    r"\p{Balinese}\p{Javanese}\p{Mn}])[\u200c\u200d](?<!(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\ufe0f)\u200d"
    r"(?=\p{Extended_Pictographic}))"
)
STRAY_TAGS = regex.compile("(?<!\U0001f3f4[\U000e0020-\U000e007f]*)[\U000e0000-\U000e007f]")  # spell flags of regions


class ControlCharacters(CleaningStep):
    """Takes out characters that are not seen, and halves of surrogate pairs; all line ends become line feeds.

    Tabs and line feeds stay, and so do joiners where they mean something: in emoji, and after letters of Persian, Indic
    and other joining scripts.
    """

    config: ControlCharactersConfig

    def clean(self, text: str) -> tuple[str, Counter[str]]:
        """Take them out of a text."""
        text, ends = LINE_ENDS.subn("\n", text)
        invisible = f"[{INVISIBLE}{SURROGATES}{'' if self.config.keep_bidi else BIDI}]"
        text, removed = re.subn(invisible, "", text)
        for pattern in (JOINERS, STRAY_TAGS):
            text, found = pattern.subn("", text)
            removed += found
        return text, Counter({"line ends": ends, "characters removed": removed})


ODD_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
TRAILING = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
LEADING = re.compile(r"^[ \t]+", re.MULTILINE)
INNER = re.compile(r"(?<=[^ \t\n])(?:  |[ ]?\t)[ \t]*")


class Whitespace(CleaningStep):
    """Tidies white space: none at the end of lines, no odd spaces, few blank lines, none at either end."""

    config: WhitespaceConfig

    def clean(self, text: str) -> tuple[str, Counter[str]]:
        """Tidy a text."""
        text, ends = re.subn("\r\n?", "\n", text)
        text, odd = ODD_SPACES.subn(" ", text)
        text, trailing = TRAILING.subn("", text)
        counts = Counter({"line ends": ends, "odd spaces": odd, "trailing spaces": trailing})
        if not self.config.indentation:
            text, counts["indentations"] = LEADING.subn("", text)
        if self.config.collapse:
            text, counts["runs of spaces"] = INNER.subn(" ", text)
        most = self.config.max_blank_lines + 1
        text, counts["runs of blank lines"] = re.subn(rf"\n{{{most + 1},}}", "\n" * most, text)
        return text.strip("\n"), counts


NOT_WORDS = re.compile(r"^[^\w(©]+|[^\w)]+$")


class BoilerplateLines(RepeatedStep):
    """Leaves out lines that belong to the site rather than to the text.

    Raises:
        ConfigError: A pattern is no regular expression.
    """

    config: BoilerplateLinesConfig

    def __init__(self, config: BoilerplateLinesConfig) -> None:
        super().__init__(config)
        problems = []
        self.patterns = []
        for number, pattern in enumerate(config.patterns):
            try:
                self.patterns.append(re.compile(pattern, re.IGNORECASE))
            except re.error as error:
                place = f"steps.boilerplate_lines.patterns[{number}]"
                problems.append(Problem(place, f"{pattern!r} is no regular expression: {error}", "Mend or remove it"))
        if problems:
            raise ConfigError(problems)
        self.lines = {_bare(line) for line in config.lines} - {""}

    def process(self, document: Document) -> str | None:
        """Clean a document, unless it is a placeholder's."""
        if self.config.drop_lorem_ipsum and "lorem ipsum" in document.text.lower():
            return "lorem ipsum"
        return super().process(document)

    def once(self, text: str) -> tuple[str, Counter[str]]:
        """Leave lines out."""
        lines = text.split("\n")
        kept = [line for line in lines if not self._is_boilerplate(line)]
        return "\n".join(kept), Counter({"lines": len(lines) - len(kept)})

    def _is_boilerplate(self, line: str) -> bool:
        # Longer than any twenty words, or so: splitting a line of megabytes would cost more than all patterns.
        if len(line) > 40 * self.config.max_words or len(line.split()) > self.config.max_words:
            return False
        bare = _bare(line)
        return bool(bare) and (bare in self.lines or any(pattern.fullmatch(bare) for pattern in self.patterns))


def _bare(line: str) -> str:
    return NOT_WORDS.sub("", line).casefold()


EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{0,63}[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,10}[A-Za-z]{2,63}(?![A-Za-z0-9])"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w)")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,35}(?![\w:])")  # 2000::/3, where public ones are
VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|versions?|releases?|build|rev|revision|firmware|section|chapter)\.?|§)\s*$", re.IGNORECASE
)
NORTH_AMERICAN = re.compile(r"(?<![\w.(+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}(?![\w-]|\.\d)")
ISBN_BEFORE = re.compile(r"ISBN(?:-1[03])?:?\s*$", re.IGNORECASE)
ISBN = re.compile(r"97[89]\d{10}")
DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./-])\d{1,2}\2\d{1,2}")


class MaskPersonalData(RepeatedStep):
    """Replaces e-mail addresses, public IP addresses and phone numbers.

    Numbers behind a word such as "version" are no IP addresses; private, loopback and reserved addresses are nobody's.
    Phone numbers are told by Google's phonenumbers: numbers with a plus sign that are long enough for their country, and
    for each of ``regions`` those that are valid there, with separators. ISBNs, dates and
    runs of digits are none.

    Raises:
        ConfigError: A region does not exist.
    """

    config: MaskPersonalDataConfig

    def __init__(self, config: MaskPersonalDataConfig) -> None:
        super().__init__(config)
        unknown = [region for region in config.regions if region not in phonenumbers.SUPPORTED_REGIONS]
        if unknown:
            raise ConfigError(
                [
                    Problem(
                        "steps.mask_personal_data.regions", f"there is no country {region!r}", "Use ISO codes: DE, US"
                    )
                    for region in unknown
                ]
            )

    def once(self, text: str) -> tuple[str, Counter[str]]:
        """Mask what is found."""
        counts: Counter[str] = Counter()
        if self.config.email and "@" in text:
            text, counts["e-mail addresses"] = EMAIL.subn(lambda _: self.config.email, text)
        if self.config.ip:
            text = self._mask_ip(text, counts)
        if self.config.phone:
            text = self._mask_phones(text, counts)
        return text, counts

    def _mask_ip(self, text: str, counts: Counter[str]) -> str:
        def mask(match: re.Match[str]) -> str:
            try:
                public = ipaddress.ip_address(match[0]).is_global
            except ValueError:
                public = False
            if not public or VERSION_BEFORE.search(match.string, max(0, match.start() - 20), match.start()):
                return match[0]
            counts["IP addresses"] += 1
            return self.config.ip

        return IPV6.sub(mask, IPV4.sub(mask, text))

    def _mask_phones(self, text: str, counts: Counter[str]) -> str:
        spans = [match.span() for match in NORTH_AMERICAN.finditer(text)]
        if "+" in text or "＋" in text:
            spans += _phones(text, None, phonenumbers.Leniency.POSSIBLE)
        for region in self.config.regions:
            spans += _phones(text, region, phonenumbers.Leniency.VALID)
        parts: list[str] = []
        position = 0
        for start, end in sorted(spans):
            if start >= position and not ISBN_BEFORE.search(text, max(0, start - 10), start):
                parts += [text[position:start], self.config.phone]
                position = end
                counts["phone numbers"] += 1
        return "".join([*parts, text[position:]])


def _phones(text: str, region: str | None, leniency: int) -> list[tuple[int, int]]:
    found = phonenumbers.PhoneNumberMatcher(text, region, leniency=leniency, max_tries=len(text) + 1)
    return [
        (match.start, match.end)
        for match in found
        if match.raw_string.startswith(("+", "＋", "(+"))
        or not (
            match.raw_string.isdigit()
            or DATE.fullmatch(match.raw_string)
            or ISBN.fullmatch(re.sub(r"\D", "", match.raw_string))
        )
    ]
