"""A person's own samples of good or bad text, from which filters learn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchloom.errors import ConfigError, DataError, Problem

__all__ = ["Samples", "hold_out"]

EXCERPT = 5_000
"""Characters of a sample that are used, so that a few long ones do not outweigh the others."""
HELD_OUT = 5
"""One sample in so many is held out."""


@dataclass(frozen=True)
class Samples:
    """Where samples are; two are equal as long as none of the files changes.

    Attributes:
        place: Option that names them.
        alone: Whether one file was named, not a folder; a .txt file alone is not one sample but its paragraphs.
        files: Path, size in bytes and time of change of each file, in order.
    """

    place: str
    alone: bool
    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def at(cls, path: str | None, place: str) -> Samples:
        """Find the files.

        Args:
            path: A .txt file, a .jsonl file, or a folder of such files.
            place: Option that names it.

        Raises:
            ConfigError: No path is given.
            DataError: There is nothing there, or no such file in it.
        """
        if path is None:
            raise ConfigError(
                [Problem(place, "no samples are given to learn from", "Give a folder or a file of them.")]
            )
        root = Path(path).expanduser().absolute()
        if not root.exists():
            raise DataError(f"{place}: there is no file or folder {root}. Give samples as .txt or .jsonl.")
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        found = [file for file in files if file.suffix in (".txt", ".jsonl")]
        if not found:
            raise DataError(f"{place}: {root} is or has no .txt or .jsonl file. Give samples in such files.")
        states = [(file, file.stat()) for file in found]
        return cls(
            place, root.is_file(), tuple((str(file), state.st_size, state.st_mtime_ns) for file, state in states)
        )

    def read(self, least: int, most: int) -> list[str]:
        """Read the samples: different ones, a random choice if there are too many, in an order set by them alone.

        Args:
            least: Fewest samples that will do.
            most: Most samples to return.

        Raises:
            DataError: A file cannot be read, or there are too few samples.
        """
        chosen: dict[bytes, str] = {}
        for name, _, _ in self.files:
            for text in self._texts(Path(name)):
                if excerpt := text.strip()[:EXCERPT]:
                    chosen[hashlib.blake2b(excerpt.encode("utf-8", "replace"), digest_size=16).digest()] = excerpt
                if len(chosen) >= 2 * most:
                    chosen = dict(sorted(chosen.items())[:most])
        if len(chosen) < least:
            raise DataError(
                f"{self.place}: {len(chosen)} different samples are too few to learn from; give at least {least}. A "
                "sample is a .txt file of a folder, a paragraph of a .txt file given alone, or a line of a .jsonl file."
            )
        return [text for _, text in sorted(chosen.items())[:most]]

    def _texts(self, file: Path) -> Iterator[str]:
        try:
            with file.open(encoding="utf-8-sig") as lines:
                if file.suffix == ".jsonl":
                    for number, line in enumerate(lines, 1):
                        if line.strip():
                            yield self._record(line, f"{file}, line {number}")
                elif self.alone:
                    yield from _paragraphs(lines)
                else:
                    yield lines.read(2 * EXCERPT)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.place}: {file} is not UTF-8: {error}. Save it as UTF-8.") from error
        except OSError as error:
            raise DataError(f"{self.place}: {file} cannot be read: {error}.") from error

    def _record(self, line: str, where: str) -> str:
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f'{self.place}: {where} is no JSON object with a field "text": {error!r}.') from error
        if not isinstance(text, str):
            raise DataError(f'{self.place}: the field "text" of {where} is no text but {type(text).__name__}.')
        return text


def hold_out(samples: list[str]) -> tuple[list[str], list[str]]:
    """Return samples to learn from, and those held out."""
    return [text for number, text in enumerate(samples) if number % HELD_OUT], samples[::HELD_OUT]


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph)
            paragraph = []
    yield "".join(paragraph)
