"""Text datasets: documents divided into splits, tokens laid out in windows."""

from __future__ import annotations

import re
import sysconfig
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from torchloom.contracts.dataset import Dataset, Split, SplitName
from torchloom.contracts.spec import SentencePairSpec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_text.configs import PythonDocsConfig, StdlibCodeConfig, TextDatasetConfig, TextFilesConfig
from torchloom_text.documents import Document, Documents, read_document, read_documents, split_documents
from torchloom_text.pairs import GivenPairs, PairTokens, SentencePairs
from torchloom_text.windows import FixedWindows, ShiftedWindows


class TextDataset(Dataset):
    """Base of the text datasets: a subclass says which documents there are.

    A split whose share is 0 is empty (``len(split) == 0``); training is never so.
    """

    takes_tokenizer = True
    config: TextDatasetConfig

    def __init__(self, config: TextDatasetConfig, tokenizer: Tokenizer | None = None) -> None:
        """Keep the settings; nothing is read yet.

        Raises:
            ConfigError: The shares leave nothing for training, or there is no tokenizer.
        """
        super().__init__(config, tokenizer)
        if config.val_fraction + config.test_fraction >= 1:
            message = (
                f"{config.val_fraction} and dataset.test_fraction={config.test_fraction} leave nothing for training"
            )
            raise ConfigError([Problem("dataset.val_fraction", message, "lower one of them: together below 1")])
        if tokenizer is None:
            raise ConfigError([Problem("tokenizer", "a text dataset needs one", "choose tokenizer=char, word or bpe")])
        self._tokenizer = tokenizer
        self._splits: dict[SplitName, Split] = {}

    @abstractmethod
    def documents(self) -> list[Document]:
        """Read all documents, in an order that depends on nothing but them.

        Raises:
            DataError: They are missing, empty or not UTF-8.
        """

    def divide(self) -> Documents:
        """Read the documents of each split."""
        return split_documents(self.documents(), self.config.val_fraction, self.config.test_fraction)

    @cached_property
    def _documents(self) -> Documents:
        return self.divide()

    def prepare(self) -> None:
        """Read and divide the documents."""
        _ = self._documents

    @property
    def spec(self) -> TokenSpec:
        """Vocabulary and window; trains the tokenizer on the training split if it is not trained yet."""
        tokenizer = self._tokenizer
        if not tokenizer.trained:
            tokenizer.train(document.text for document in self._documents["train"])
        kind = SentencePairSpec if self.config.examples == "pairs" else TokenSpec
        return kind(
            vocab_size=tokenizer.vocab_size,
            context_length=self.config.context_length,
            **{f"{name}_id": tokenizer.special_id(name) for name in ("pad", "unk", "bos", "eos", "mask")},
        )

    def split(self, name: SplitName) -> Split:
        """Load one split.

        Training: windows shifted from epoch to epoch (`ShiftedWindows`). Validation and test: windows that predict
        every token but the first exactly once, the last one padded (`FixedWindows`). With ``examples="pairs"``, pairs of
        pieces (`SentencePairs`), drawn anew every epoch in training.

        Raises:
            DataError: The data is missing or not UTF-8, or the split is too short for a window (training) or for one
                prediction (the others), or for pairs has fewer than two different documents.
            ConfigError: The tokenizer lacks the special tokens of pairs, or a window has no room for one.
        """
        if name not in self._splits:
            self._splits[name] = self._load(name)
        return self._splits[name]

    def read(self, inputs: Sequence[str]) -> Split:
        """Read texts, or the files they name, as evaluation windows that never cross from one input to the next.

        An input longer than a window gives several examples; ``input`` in the batch says which input each comes from.
        With ``examples="pairs"``, an input is a pair written ``first text ||| second text``.

        Raises:
            DataError: A file is missing or not UTF-8, an input has fewer than two tokens, or is no pair.
            ConfigError: The tokenizer lacks the special tokens of pairs.
        """
        spec = self.spec
        if self.config.examples == "pairs":
            return GivenPairs([self._encode_pair(text) for text in inputs], self._pair_tokens())
        streams = []
        for text in inputs:
            document = _own_input(text)
            stream = self._encode([document])
            if len(stream) < 2:
                raise DataError(f"{document.name}: has {len(stream)} tokens; a prediction needs at least 2")
            streams.append(stream)
        return FixedWindows(streams, spec.context_length, spec.pad_id)

    def _load(self, name: SplitName) -> Split:
        spec = self.spec
        if self.config.examples == "pairs":
            return self._load_pairs(name)
        tokens = self._encode(self._documents[name])
        if name == "train":
            if len(tokens) <= spec.context_length:
                raise DataError(
                    f"{self._source(name)}: the training split has {len(tokens)} tokens, but one window takes "
                    f"{spec.context_length + 1}; give more text or lower dataset.context_length"
                )
            return ShiftedWindows(tokens, spec.context_length)
        if not self._documents[name] and self._share(name) == 0:
            return FixedWindows([], spec.context_length, spec.pad_id)
        if len(tokens) < 2:
            raise DataError(
                f"{self._source(name)}: the {name} split has {len(tokens)} tokens, but a prediction needs at least 2; "
                f"give more text or raise dataset.{name}_fraction"
            )
        return FixedWindows([tokens], spec.context_length, spec.pad_id)

    def _load_pairs(self, name: SplitName) -> Split:
        special = self._pair_tokens()
        different = {document.digest: document for document in self._documents[name]}.values()
        if not different and self._share(name) == 0:
            return FixedWindows([], special.context_length, special.pad)
        pieces = [tokens for document in different if len(tokens := self._encode([document])) > 1]
        if len(pieces) < 2:
            raise DataError(
                f"{self._source(name)}: the {name} split has {len(pieces)} different documents of two tokens or more, but "
                "pairs need two, to take what does not follow from another; give more files, or set "
                "dataset.examples=windows"
            )
        return SentencePairs(pieces, special)

    def _pair_tokens(self) -> PairTokens:
        special = {name: self._tokenizer.special_id(name) for name in ("cls", "sep", "pad")}
        missing = [name for name in ("cls", "sep") if special[name] is None]
        if missing:
            message = f"has no {' and no '.join(missing)}, which dataset.examples=pairs needs"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "set it to [pad,unk,cls,sep,mask]")])
        found = PairTokens(special["cls"] or 0, special["sep"] or 0, special["pad"] or 0, self.config.context_length)
        if found.room < 2:
            message = f"{found.context_length} leaves no room for two pieces beside three special tokens"
            raise ConfigError([Problem("dataset.context_length", message, "set it to 5 or more")])
        return found

    def _encode_pair(self, text: str) -> tuple[Tensor, Tensor]:
        first, mark, second = text.partition("|||")
        pair = self._tokenizer.encode(first.strip()), self._tokenizer.encode(second.strip())
        if not mark or not all(map(len, pair)):
            raise DataError(f"{text[:60]!r}: not a pair of texts; write it as 'first text ||| second text'")
        return pair

    def _share(self, name: SplitName) -> float:
        return self.config.val_fraction if name == "val" else self.config.test_fraction

    def _source(self, name: SplitName) -> str:
        documents = self._documents[name] or self._documents["train"]
        return documents[0].name if len(documents) == 1 else f"{documents[0].name} and {len(documents) - 1} more"

    def _encode(self, documents: Sequence[Document]) -> Tensor:
        """Return the tokens of documents in a row, int32 ``(length,)``, an end-of-text between them if there is one."""
        end = self._tokenizer.special_id("eos")
        pieces: list[Tensor] = []
        for document in documents:
            if pieces and end is not None:
                pieces.append(torch.tensor([end], dtype=torch.int32))
            try:
                pieces.append(self._tokenizer.encode(document.text).to(torch.int32))
            except DataError as error:
                raise DataError(f"{document.name}: {error}") from error
        return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int32)


class PythonDocs(TextDataset):
    """The topics of Python's interactive help, in alphabetical order: the language reference of the running Python.

    Many topics are sections of longer ones, so that validation text would stand in training too. A topic that stands in
    longer ones for the most part is left out.
    """

    config: PythonDocsConfig

    def documents(self) -> list[Document]:
        """Return one document a topic.

        Raises:
            DataError: This Python was installed without its help texts.
        """
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(
                "pydoc_data.topics: this Python was installed without its help texts; install its full standard "
                "library, or choose dataset=text_files"
            ) from error
        documents = [Document(f"pydoc_data.topics[{name!r}]", text) for name, text in sorted(topics.items())]
        kept, seen = set(), set[str]()
        for document in sorted(documents, key=lambda document: len(document.text), reverse=True):
            paragraphs = _paragraphs(document.text)
            if sum(len(one) for one in paragraphs if one in seen) <= sum(map(len, paragraphs)) / 2:
                kept.add(document.name)
                seen.update(paragraphs)
        return [document for document in documents if document.name in kept]


class StdlibCode(TextDataset):
    """The modules of the running Python's standard library, in the order of their paths.

    Its tests are left out, and the tables of `encodings`, which repeat each other from file to file.
    """

    config: StdlibCodeConfig
    left_out = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"})

    def documents(self) -> list[Document]:
        """Return one document a module.

        Raises:
            DataError: The standard library is not there as source files.
        """
        root = Path(sysconfig.get_path("stdlib"))
        files = [file for file in root.rglob("*.py") if not self.left_out.intersection(file.relative_to(root).parts)]
        documents = [read_document(file) for file in sorted(files, key=lambda file: file.as_posix())]
        documents = [document for document in documents if document.text]
        if not documents:
            raise DataError(f"{root}: holds no source files of the standard library; choose dataset=text_files")
        return documents


class TextFiles(TextDataset):
    """A person's own text: one file, cut in order, or a folder of files, divided whole."""

    config: TextFilesConfig

    def documents(self) -> list[Document]:
        """Return one document a file.

        Raises:
            DataError: No path is given, nothing is there, nothing matches, all is empty, or a file is not UTF-8.
        """
        if self.config.path is None:
            raise DataError("dataset.path: not given; set dataset.path to a UTF-8 text file or a folder of them")
        return self._read(self.config.path, "path")

    def divide(self) -> Documents:
        """Divide `path`, with `val_path` and `test_path` in place of the shares where they are given.

        Raises:
            DataError: As `documents`, or a file of one path is a copy of another path's.
        """
        config = self.config
        given: Documents = {}
        if config.val_path is not None:
            given["val"] = self._read(config.val_path, "val_path")
        if config.test_path is not None:
            given["test"] = self._read(config.test_path, "test_path")
        val_fraction = 0.0 if "val" in given else config.val_fraction
        test_fraction = 0.0 if "test" in given else config.test_fraction
        splits = {**split_documents(self.documents(), val_fraction, test_fraction), **given}
        _refuse_copies(splits)
        return splits

    def _read(self, path: str, field: str) -> list[Document]:
        return read_documents(Path(path).expanduser(), self.config.glob, field)


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs, their line breaks and indentation evened out, without short ones, which recur anyway."""
    return [one for one in (" ".join(part.split()) for part in text.split("\n\n")) if len(one) >= 40]


def _refuse_copies(splits: Documents) -> None:
    seen: dict[bytes, tuple[SplitName, str]] = {}
    for split, documents in splits.items():
        for document in documents:
            other, name = seen.setdefault(document.digest, (split, document.name))
            if other != split:
                raise DataError(
                    f"{document.name}: the {split} split holds a copy of {name} from the {other} split; "
                    "remove one of them"
                )


def _own_input(text: str) -> Document:
    path = Path(text)
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # too long for a path, or holds a null character: it is text
        exists = False
    if exists:
        return read_document(path)
    if re.fullmatch(r"\S+\.[a-z0-9]{1,5}", text):
        raise DataError(f"{text}: no such file; give the path of a UTF-8 file, or text with a space in it")
    return Document(repr(text if len(text) <= 40 else text[:37] + "..."), text)
