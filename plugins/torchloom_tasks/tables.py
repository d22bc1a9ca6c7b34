"""Tables of text: TSV, CSV and JSONL, read with the place of every row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchloom.contracts.dataset import SplitName
from torchloom.errors import DataError

_NAMES: dict[SplitName, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "val": frozenset({"val", "valid", "validation", "dev", "trial"}),
    "test": frozenset({"test"}),
}


@dataclass(frozen=True, slots=True)
class Row:
    """The cells asked for of one row.

    Attributes:
        place: File and line, for messages.
        cells: One a column, stripped.
    """

    place: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is wanted.

    Attributes:
        field: Config field that names it.
        given: The name given there, or None.
        usual: Names it goes by, lower case, tried in turn.
        last: Whether it is the last column of a file without names, rather than the next one.
        otherwise: What else may be done where there is no such column, to stand behind a semicolon.
    """

    field: str
    given: str | None
    usual: tuple[str, ...]
    last: bool = False
    otherwise: str = ""

    def find(self, names: Sequence[str], place: str) -> int | None:
        """Return its place among column names; capitals make no difference.

        Raises:
            DataError: There are two of its name.
        """
        lower = [name.strip().lower() for name in names]
        wanted = (self.given.lower(),) if self.given is not None else self.usual
        name = next((name for name in wanted if name in lower), None)
        if name is None:
            return None
        if lower.count(name) > 1:
            raise DataError(f"{place}: has {lower.count(name)} columns {name}; give all but one of them other names")
        return lower.index(name)


def text_of(path: Path, mend: str) -> str:
    """Read a UTF-8 file, without its byte-order mark.

    Args:
        path: The file.
        mend: What to do where it is missing.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 at byte {error.start} of the file; convert it with iconv"
        ) from error


def located(
    path: str | None, others: dict[SplitName, str | None], suffixes: Sequence[str], what: str
) -> dict[SplitName, Path]:
    """Find the file of each split.

    A folder is searched for one file a split, whose name has the word train, val (dev, valid, validation, trial) or test.

    Args:
        path: Training file, or folder; config field ``path``.
        others: Files given for the other splits; config fields ``val_path`` and ``test_path``.
        suffixes: What the names of files in a folder end in.
        what: What to set ``path`` to, for messages.

    Raises:
        DataError: None is given, there is none, or there are several for one split.
    """
    if path is None:
        raise DataError(f"dataset.path: not given; set dataset.path to {what}")
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{root}: no such file or folder; set dataset.path to {what}")
    found: dict[SplitName, Path] = {}
    if root.is_dir():
        files = sorted(file for file in root.iterdir() if file.suffix.lower() in suffixes)
        for split, words in _NAMES.items():
            fitting = [file for file in files if words.intersection(re.split("[^a-z]+", file.stem.lower()))]
            if len(fitting) > 1 and not others.get(split):
                raise DataError(
                    f"{fitting[0]} and {fitting[1].name}: both could be the {split} split; set dataset.path to the "
                    "training file, and dataset.val_path and dataset.test_path"
                )
            found.update({split: fitting[0]} if fitting else {})
    else:
        found["train"] = root
    found.update({split: Path(given).expanduser() for split, given in others.items() if given is not None})
    if "train" not in found:
        raise DataError(
            f"{root}: no file of this folder has the word train in its name and ends in {', '.join(suffixes)}; "
            f"set dataset.path to {what}"
        )
    return found


SUFFIXES = (".tsv", ".csv", ".jsonl", ".txt")
TABLES = "a TSV, CSV or JSONL file, or a folder with one for train, and for val and test if there are any"


def read_table(path: Path, columns: Sequence[Column]) -> list[Row]:
    """Read columns of a table: ``.jsonl`` and ``.csv`` by their names, all else as tab-separated without quotes.

    The first line is one of names where it holds those of all columns; otherwise columns are told by their order.

    Raises:
        DataError: The file is missing, empty or broken, or lacks a column; names file and line.
    """
    content = text_of(path, "check the path and its permissions")
    rows = list(_objects(path, content, columns) if path.suffix == ".jsonl" else _cells(path, content, columns))
    if not rows:
        raise DataError(f"{path}: holds no rows; give a file that does")
    return rows


def _objects(path: Path, content: str, columns: Sequence[Column]) -> Iterator[Row]:
    for place, record in objects(path, content):
        names = list(record)
        found = [_required(place, column, column.find(names, place), names) for column in columns]
        yield Row(place, tuple(_plain(place, names[index], record[names[index]]) for index in found))


def objects(path: Path, content: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSONL file's content, each with its place.

    Raises:
        DataError: A line is not an object; names it.
    """
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON ({error.msg}); a .jsonl file holds one object a line") from error
        if not isinstance(record, dict):
            raise DataError(f"{place}: not an object; a .jsonl file holds one object a line")
        yield place, record


def _plain(place: str, name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        kind = "a list" if isinstance(value, list) else "an object"
        raise DataError(f"{place}: {name} is {kind}; give a text or a number")
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _cells(path: Path, content: str, columns: Sequence[Column]) -> Iterator[Row]:
    comma = path.suffix.lower() == ".csv"
    stream = io.StringIO(content, newline="")
    reader = csv.reader(stream) if comma else csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    found: list[int] = []
    width, line = 0, 1
    try:
        for cells in reader:
            place, line = f"{path}, line {line}", reader.line_num + 1
            if not cells:
                continue
            if not found:
                width = len(cells)
                found, named = _header(place, columns, cells)
                if named:
                    continue
            if len(cells) != width:
                raise DataError(f"{place}: has {len(cells)} cells, but the first line has {width}; correct it")
            yield Row(place, tuple(cells[index].strip() for index in found))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; correct the line") from error


def _header(place: str, columns: Sequence[Column], cells: Sequence[str]) -> tuple[list[int], bool]:
    """Return where the columns are, and whether the first line holds their names."""
    places = [column.find(cells, place) for column in columns]
    named = all(index is not None for index in places)
    if named or any(column.given is not None for column in columns) or len(cells) < len(columns):
        return [_required(place, column, index, cells) for column, index in zip(columns, places, strict=True)], True
    return [len(cells) - 1 if column.last else number for number, column in enumerate(columns)], False


def _required(place: str, column: Column, found: int | None, names: Sequence[str]) -> int:
    if found is None:
        wanted = column.given or " or ".join(column.usual)
        raise DataError(
            f"{place}: has no column {wanted}; set dataset.{column.field} to one of "
            f"{', '.join(name.strip()[:30] for name in names)}{f'; {column.otherwise}' if column.otherwise else ''}"
        )
    return found
