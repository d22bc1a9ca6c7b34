"""Sources that read files: which ones there are, and how one is opened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec

from torchloom.errors import DataError
from torchloom_corpus.contracts import CorpusSource, Document, StepTally

MAGIC = "*?["


class FileSource(CorpusSource):
    """Base of sources that read files; a unit is a file, named by its path below the folder."""

    def units(self, folder: Path) -> list[str]:
        """Return the files in the order of their names.

        Args:
            folder: Not needed.

        Raises:
            DataError: There are none; names the place and the mend.
        """
        path = self.config.path
        if not path:
            raise DataError("source.path is not set; give a file, a folder, a pattern or an fsspec URL")
        try:
            names = self._names()
        except DataError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise DataError(f"{path}: cannot be listed ({said(error)}); check source.path and access to it") from error
        if not names:
            raise DataError(
                f"{path}: no file of this folder matches {self.config.glob!r}; "
                "set source.glob, such as source.glob='**/*'"
            )
        return sorted(names)

    def _names(self) -> list[str]:
        system, place = self._system
        if any(mark in place for mark in MAGIC):
            found = [name for name in system.glob(place) if system.isfile(name)]
        elif system.isdir(place):
            found = [name for name in system.find(place) if _matches(name[len(self._base) :], self.config.glob)]
        elif system.exists(place):
            found = [place]
        else:
            raise DataError(f"{self.config.path}: no such file or folder; set source.path to one")
        return [name[len(self._base) :].lstrip("/") for name in found]

    @cached_property
    def _system(self) -> tuple[Any, str]:
        system, place = fsspec.core.url_to_fs(self.config.path)
        return system, place.rstrip("/") or "/"

    @cached_property
    def _base(self) -> str:
        """The folder that units are named below."""
        system, place = self._system
        if not any(mark in place for mark in MAGIC):
            return place if system.isdir(place) else place.rpartition("/")[0]
        parts = place.split("/")
        first = next(number for number, part in enumerate(parts) if any(mark in part for mark in MAGIC))
        return "/".join(parts[:first])

    def open(self, unit: str) -> IO[bytes]:
        """Open a unit for reading.

        Args:
            unit: One of `units`.

        Raises:
            OSError: It cannot be opened.
        """
        system, _ = self._system
        opened: IO[bytes] = system.open(f"{self._base}/{unit}", "rb")
        return opened

    def read(self, unit: str, tally: StepTally) -> Iterator[Document]:
        """Read the documents of one file; a file that cannot be read (on) is counted by name.

        Args:
            unit: One of `units`.
            tally: Counts what could not be read, and why.
        """
        try:
            with self.open(unit) as file:
                yield from self.documents(unit, file, tally)
        except OSError as error:
            tally.drop("unreadable file", example=f"{unit}: {said(error)}")

    @abstractmethod
    def documents(self, unit: str, file: IO[bytes], tally: StepTally) -> Iterator[Document]:
        """Read the documents of one open file.

        Args:
            unit: Its name.
            file: Its bytes.
            tally: Counts what could not be read, and why.
        """

    def whole(self, unit: str, file: IO[bytes], tally: StepTally) -> bytes | None:
        """Read a file that is one document; counted, and None, where it is larger than allowed.

        Args:
            unit: Its name.
            file: Its bytes.
            tally: Counts it where it is too large.
        """
        limit = self.config.max_page_bytes
        data = file.read(limit + 1)
        if len(data) > limit:
            tally.drop("too large", example=unit, size=0)
            return None
        return data


def _matches(name: str, glob: str) -> bool:
    """Match a path below a folder; ``**/`` stands for any folders or none, ``*`` never for a slash."""
    return _parts_match(name.strip("/").split("/"), glob.strip("/").split("/"))


def _parts_match(names: list[str], globs: list[str]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        return any(_parts_match(names[skipped:], globs[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], globs[0]) and _parts_match(names[1:], globs[1:])


def said(error: BaseException) -> str:
    """Return what an error says, on one line."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
