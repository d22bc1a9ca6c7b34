"""Reading the pages of the documentation: their files, their commands, their links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])

_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


@dataclass(frozen=True)
class Line:
    """A command as a page has it.

    Attributes:
        words: The command, split as a shell does.
        failure: What its error says, where the page says that it fails: ``# fails: text``.
    """

    words: tuple[str, ...]
    failure: str = ""


def commands(page: Path) -> list[Line]:
    """Return the lines of a page's shell blocks in order."""
    found = []
    for block in _SHELL.findall(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            words = tuple(shlex.split(line, comments=True))
            if words:
                found.append(Line(words, line.partition("# fails: ")[2]))
    return found


def files(page: Path) -> dict[str, str]:
    """Return the files that a page shows, each a fenced block under its path."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """Return the places in this repository that a page refers to."""
    return [place for place, _ in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in place]
