"""Settings of the cleaning steps. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.options import option


@dataclass
class HtmlRemnantsConfig:
    """Settings of `html_remnants`."""

    tags: bool = option(True, "Take out tags, comments, scripts and styles; a block's tag leaves a line break.")
    entities: bool = option(True, "Turn entities that end in a semicolon, such as &amp;, into what they stand for.")


@dataclass
class FixUnicodeConfig:
    """Settings of `fix_unicode`."""

    fix_encoding: bool = option(True, "Undo a wrong decoding, such as â€™ for an apostrophe.")
    fix_latin_ligatures: bool = option(True, "Write ligatures such as ﬁ as their letters.")
    fix_character_width: bool = option(True, "Write full-width Latin and half-width Katakana at their usual width.")
    uncurl_quotes: bool = option(False, "Make quotation marks straight.")
    remove_terminal_escapes: bool = option(True, "Take out escape sequences of terminals, such as those for colours.")


@dataclass
class NormalizeUnicodeConfig:
    """Settings of `normalize_unicode`."""

    form: Literal["NFC", "NFKC"] = option(
        "NFC",
        "NFC composes letters and accents and changes nothing that is seen; NFKC also replaces look-alikes, such as ² by 2.",
        source="Unicode Standard Annex 15",
    )


@dataclass
class ControlCharactersConfig:
    """Settings of `control_characters`."""

    keep_bidi: bool = option(False, "Keep the marks that steer the direction of writing.")


@dataclass
class WhitespaceConfig:
    """Settings of `whitespace`."""

    max_blank_lines: int = option(1, "Blank lines that may follow each other.", ge=0)
    indentation: bool = option(True, "Keep white space at the beginning of lines, as code needs it.")
    collapse: bool = option(False, "Make runs of white space inside a line one space.")


@dataclass
class BoilerplateLinesConfig:
    """Settings of `boilerplate_lines`."""

    patterns: list[str] = option(
        lambda: [
            r"(we use|this (web)?site uses|by (using|continuing)\b.*) cookies\b.*",
            r"(accept|manage|reject)( all| your)? cookies( settings| preferences)?",
            r"(cookie|privacy) (policy|notice|settings|preferences)",
            r"(terms|conditions)( and conditions)?( of (use|service))?",
            r"all rights reserved",
            r"(©|\(c\)|copyright\b).*\ball rights reserved",
            r"(share|follow|like|find|tweet)( (this|us|me|it))?( (on|via|to|with|by))? "
            r"(facebook|twitter|x|linkedin|whatsapp|pinterest|reddit|instagram|youtube|telegram|e-?mail)",
            r"share (this|on|via)( (article|page|post|story))?",
            r"(read|show|load|see|view|learn) (more|less|all)( comments| posts| articles| stories)?( here)?",
            r"(continue|keep) reading",
            r"(click|tap) here( to .*)?",
            r"(log|sign) ?(in|out|up|on)( (here|now))?",
            r"(sign up|subscribe|register)( now)?( (for|to) (our|the) .*(newsletter|mailing list|updates).*)?",
            r"(leave|post|add|write) a (comment|reply)( cancel reply)?",
            r"(skip|jump) to( (the|main))? (content|navigation|search|main)( content)?",
            r"back to (the )?top",
            r"(print|e-?mail)( this)?( (article|page|story))?",
            r"advertisement|sponsored( content)?|related (articles|posts|stories)",
            r"(please )?(enable|turn on|activate) java ?script\b.*",
            r".*\b(java ?script (is|must be|needs to be|has been) (\w+ ){0,2}(disabled|enabled|required|turned off)"
            r"|(requires|without|enable|supports?) java ?script)\b.*",
        ],
        "Regular expressions; a line that one matches whole, less its punctuation, without regard to case, is left out.",
    )
    lines: list[str] = option(
        list, "Your own lines to leave out, matched whole without regard to case and punctuation."
    )
    max_words: int = option(20, "Words of the longest line that may be left out.", ge=1, unit="words")
    drop_lorem_ipsum: bool = option(
        True, "Drop documents that hold the placeholder 'lorem ipsum'.", source="Raffel et al. 2020 (C4), section 2.2"
    )


@dataclass
class MaskPersonalDataConfig:
    """Settings of `mask_personal_data`; an empty replacement leaves that kind unmasked."""

    email: str = option("<EMAIL>", "What e-mail addresses become.")
    ip: str = option("<IP_ADDRESS>", "What public IP addresses become; private and reserved ones stay.")
    phone: str = option("<PHONE>", "What phone numbers become.")
    regions: list[str] = option(
        list,
        "Countries (ISO 3166-1, such as DE) whose numbers are masked in national form too; without any, those in "
        "international form (+49 ...) and in North America's 212-555-0123 and (212) 555-0123.",
    )
