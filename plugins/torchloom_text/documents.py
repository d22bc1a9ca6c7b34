"""Documents, how they are read, and how they are divided into splits that share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torchloom.contracts.dataset import SplitName
from torchloom.errors import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the name by which messages call it."""

    name: str
    text: str

    @property
    def digest(self) -> bytes:
        """Hash of the text alone: copies under other names have the same."""
        return sha256(self.text.encode("utf-8")).digest()


Documents = dict[SplitName, list[Document]]


def read_document(path: Path) -> Document:
    """Read a UTF-8 file exactly as it is: line ends are kept, a byte-order mark is dropped.

    Raises:
        DataError: The file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start} (0x{error.object[error.start]:02x}); "
            "convert it, for example with iconv -f LATIN1 -t UTF-8"
        ) from error
    return Document(str(path), text.removeprefix("\ufeff"))


def read_documents(path: Path, glob: str, field: str) -> list[Document]:
    """Read one file, or those files of a folder that match, in the order of their names; empty files are passed over.

    Args:
        path: File or folder.
        glob: Pattern within a folder.
        field: Config field that gave the path, for messages.

    Raises:
        DataError: Nothing is there, nothing matches, all of it is empty, or a file is not UTF-8.
    """
    if path.is_dir():
        files = sorted((file for file in path.glob(glob) if file.is_file()), key=lambda file: file.as_posix())
        if not files:
            raise DataError(
                f"{path}: no file of this folder matches {glob!r}; set dataset.glob, such as dataset.glob='**/*.md'"
            )
    elif path.exists():
        files = [path]
    else:
        raise DataError(f"{path}: no such file or folder; set dataset.{field} to a UTF-8 text file or a folder of them")
    documents = [document for document in map(read_document, files) if document.text]
    if not documents:
        raise DataError(f"{path}: holds no text; set dataset.{field} to a file or folder that does")
    return documents


def split_documents(documents: Sequence[Document], val_fraction: float, test_fraction: float) -> Documents:
    """Divide documents into splits.

    One text is cut in order: training first, then validation, then test. Several are divided whole, copies of a text
    staying together: in the order of their hashes, which depends on neither names nor places, a document goes to
    validation while it fits into that share of the characters, likewise to the test, and else to training. A share too
    small for any document gets the smallest; no split is left without one.

    Args:
        documents: All documents, none empty.
        val_fraction: Share of the characters for validation, in ``[0, 1)``.
        test_fraction: Share of the characters for the test, in ``[0, 1)``; together less than 1.

    Returns:
        The documents of each split in the order given; an empty list where the share is 0.

    Raises:
        DataError: There are fewer different documents than splits.
    """
    copies: dict[bytes, list[Document]] = {}
    for document in documents:
        copies.setdefault(document.digest, []).append(document)
    if len(copies) == 1:
        return _cut(documents[0], val_fraction, test_fraction)

    size = {digest: sum(len(copy.text) for copy in group) for digest, group in copies.items()}
    shares: list[tuple[SplitName, float]] = [("val", val_fraction), ("test", test_fraction)]
    shares = [(name, share) for name, share in shares if share > 0]
    wanted = 1 + len(shares)
    if len(copies) < wanted:
        raise DataError(
            f"{documents[0].name} and {len(documents) - 1} more: {len(copies)} different documents cannot make "
            f"{wanted} splits; set dataset.test_fraction=0, or join them into one file, which is cut in order"
        )
    place: dict[bytes, SplitName] = {}
    for number, (name, share) in enumerate(shares):
        room = share * sum(size.values())
        free = [digest for digest in sorted(copies) if digest not in place]
        spare = len(free) - (len(shares) - number)  # the splits to come, training last, need a document each
        for digest in free:
            if size[digest] <= room and spare > 0:
                place[digest] = name
                room -= size[digest]
                spare -= 1
        if name not in place.values():
            place[min(free, key=lambda digest: size[digest])] = name
    splits: Documents = {"train": [], "val": [], "test": []}
    for document in documents:
        splits[place.get(document.digest, "train")].append(document)
    return splits


def _cut(document: Document, val_fraction: float, test_fraction: float) -> Documents:
    text = document.text
    val_start = int((1 - val_fraction - test_fraction) * len(text))
    test_start = int((1 - test_fraction) * len(text))
    parts: dict[SplitName, str] = {
        "train": text[:val_start],
        "val": text[val_start:test_start],
        "test": text[test_start:],
    }
    return {name: [Document(document.name, part)] if part else [] for name, part in parts.items()}
