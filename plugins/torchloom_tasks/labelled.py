"""Texts, or pairs of texts, with one class each."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from torchloom.contracts.dataset import Split, SplitName
from torchloom.contracts.spec import LabelledTextSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError
from torchloom_tasks.configs import EntailmentConfig, LabelledConfig, SentimentConfig, TaskTextConfig
from torchloom_tasks.division import digest, divide
from torchloom_tasks.ragged import Ragged
from torchloom_tasks.tables import SUFFIXES, TABLES, Column, located, read_table
from torchloom_tasks.texts import Layout, TaskText, TextSplit, halves

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One example: its texts, the name of its class (empty if it has none), and its place for messages."""

    place: str
    texts: tuple[str, ...]
    label: str = ""

    @property
    def digest(self) -> bytes:
        """Hash of the texts alone."""
        return digest(*self.texts)


class LabelledText(TaskText[Labelled]):
    """Base of the datasets whose examples have one class each."""

    config: TaskTextConfig

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @property
    @abstractmethod
    def pairs(self) -> bool:
        """Whether an example has two texts."""

    def label_of(self, example: Labelled) -> int:
        """Return the number of an example's class.

        Raises:
            DataError: It is none of the classes.
        """
        if example.label not in self.classes:
            raise DataError(
                f"{example.place}: label {example.label!r} is none of the classes {', '.join(self.classes)}; correct it, "
                "or set dataset.classes, or dataset.label_column if its labels are in another column"
            )
        return self.classes.index(example.label)

    def make_spec(self, vocabulary: dict[str, Any]) -> LabelledTextSpec:
        """Return the spec."""
        return labelled_spec(self.config, self.classes, self.pairs, vocabulary)

    def texts(self, example: Labelled) -> Sequence[str]:
        """Return one text or two."""
        return example.texts

    def rows(self, examples: Sequence[Labelled]) -> tuple[Split, int]:
        """Encode texts and number labels.

        Raises:
            DataError: A text is too long, where that is refused, or has no tokens.
        """
        labels = [self.label_of(one) for one in examples]
        return labelled_rows(examples, labels, self.trained(), self.config, pairs=self.pairs)

    def read(self, inputs: Sequence[str]) -> Split:
        """Read texts; pairs are written ``first text ||| second text``.

        Raises:
            DataError: A text is empty, or not a pair where one is needed.
        """
        return read_labelled(inputs, self.trained(), self.config, pairs=self.pairs)


def labelled_spec(
    config: TaskTextConfig, classes: tuple[str, ...], pairs: bool, vocabulary: dict[str, Any]
) -> LabelledTextSpec:
    """Return the spec of labelled texts."""
    return LabelledTextSpec(
        context_length=config.context_length, num_classes=len(classes), classes=classes, pairs=pairs, **vocabulary
    )


def labelled_rows(
    examples: Sequence[Labelled],
    labels: Sequence[int] | None,
    tokenizer: Tokenizer,
    config: TaskTextConfig,
    *,
    pairs: bool,
    keep: Literal["begin", "end"] = "begin",
) -> tuple[TextSplit, int]:
    """Encode texts.

    Args:
        examples: Texts.
        labels: Number of the class of each; None where there are none.
        tokenizer: Trained.
        config: Greatest length, and what becomes of longer examples.
        pairs: Whether each has two texts.
        keep: Which part of a first text stays that is too long.

    Returns:
        The split, and how many examples were cut.

    Raises:
        DataError: An example is too long, where that is refused, or has no tokens.
    """
    layout = Layout(tokenizer, config.context_length, pairs=pairs)
    width = 1 + pairs
    encoded = [
        np.asarray(ids, np.int64) for ids in tokenizer.encode_batch([text for one in examples for text in one.texts])
    ]
    tokens, first, cut = [], [], 0
    for number, one in enumerate(examples):
        texts = encoded[number * width : (number + 1) * width]
        if not all(map(len, texts)):
            raise DataError(
                f"{one.place}: the tokenizer finds no tokens in {' or '.join(map(repr, one.texts))}; remove it"
            )
        row, size, shorter = layout.row(*texts, keep=keep)
        if shorter and config.too_long == "refuse":
            total = sum(map(len, texts)) + config.context_length - layout.room
            raise DataError(
                f"{one.place}: has {total} tokens with the special ones, more than "
                f"dataset.context_length={config.context_length}; raise that, or set dataset.too_long=cut"
            )
        tokens.append(row)
        first.append(size)
        cut += shorter
    rows = Ragged(tokens)
    pad = tokenizer.special_id("pad")
    split = TextSplit(
        rows,
        first if pairs else None,
        labels,
        pad_id=pad,
        context_length=config.context_length,
        group_lengths=config.group_lengths,
    )
    return split, cut


def read_labelled(
    inputs: Sequence[str],
    tokenizer: Tokenizer,
    config: TaskTextConfig,
    *,
    pairs: bool,
    keep: Literal["begin", "end"] = "begin",
) -> TextSplit:
    """Read a person's own texts, or pairs written ``first text ||| second text``.

    Raises:
        DataError: A text is empty, or not a pair where one is needed.
    """
    examples = []
    for number, text in enumerate(inputs, 1):
        if not text.strip():
            raise DataError(f"input {number}: the text is empty; give it text")
        examples.append(Labelled(f"input {number}", halves(text) if pairs else (text.strip(),)))
    return labelled_rows(examples, None, tokenizer, config, pairs=pairs, keep=keep)[0]


class LabelledFiles(LabelledText):
    """Base of the datasets that read labelled texts from a person's files."""

    config: LabelledConfig
    orders: ClassVar[tuple[tuple[str, ...], ...]]
    """Usual classes in their usual order: labels that are numbers, or these names, mean them."""
    dropped: ClassVar[frozenset[str]] = frozenset()
    """Labels that say there is none."""

    @abstractmethod
    def columns(self) -> list[Column]:
        """Return the columns of the texts."""

    @property
    def pairs(self) -> bool:
        """Whether an example has two texts."""
        return len(self.columns()) == 2

    def divide(self) -> dict[SplitName, list[Labelled]]:
        """Read the files, and take shares of the training file where there are no others.

        Raises:
            DataError: A file is missing, empty or broken; a text is empty; a label is none of the classes.
        """
        splits = divide(self._files, lambda one: one.digest, self.config, str(self.config.path))
        for examples in splits.values():
            for one in examples:
                self.label_of(one)
        return splits

    @cached_property
    def _files(self) -> dict[SplitName, list[Labelled]]:
        config = self.config
        files = located(config.path, {"val": config.val_path, "test": config.test_path}, SUFFIXES, TABLES)
        return {split: self._read(path) for split, path in files.items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Those of the config, else the usual ones, else the training file's own numbers or names, sorted.

        Where some labels are usual ones, or numbers, all must be.
        """
        if self.config.classes:
            return tuple(name.lower() for name in self.config.classes)
        found = {one.label for one in self._files["train"]}
        for order in self.orders:
            if found <= set(order) or found <= _numbers(len(order)):
                return order
        if found == _numbers(len(found)):
            return tuple(sorted(found, key=int))
        numbered = any(label.isascii() and label.lstrip("-").isdigit() for label in found)
        if numbered or any(len(found & set(order)) > 1 for order in self.orders):
            # What is none of the usual classes then is a mistake rather than a class; `label_of` refuses it.
            return max(self.orders, key=lambda order: len(found & (set(order) | _numbers(len(order)))))
        return tuple(sorted(found))

    def label_of(self, example: Labelled) -> int:
        """Return the number of an example's class, which may be written as its name or its number.

        Raises:
            DataError: It is none of the classes.
        """
        label = example.label
        if label not in self.classes and label.isascii() and label.isdigit() and int(label) < len(self.classes):
            return int(label)
        return super().label_of(example)

    def _read(self, path: Path) -> list[Labelled]:
        label = Column("label_column", self.config.label_column, _LABELS, last=True)
        columns = self.columns()
        examples: list[Labelled] = []
        dropped: Counter[str] = Counter()
        for row in read_table(path, [*columns, label]):
            *texts, name = row.cells
            if name in self.dropped:
                dropped[name] += 1
                continue
            for text, column in zip(texts, columns, strict=True):
                if not text:
                    raise DataError(f"{row.place}: the {column.usual[0]} is empty; give it text or remove the line")
            if not name:
                raise DataError(f"{row.place}: the label is empty; give one or remove the line")
            examples.append(Labelled(row.place, tuple(texts), name.lower()))
        for name, count in dropped.items():
            _log.warning("%s: left out %d examples with the label %r", path, count, name)
        if not examples:
            raise DataError(f"{path}: no example has a label; give a file of examples that do")
        return examples


def _numbers(count: int) -> set[str]:
    return set(map(str, range(count)))


_LABELS = ("label", "gold_label", "entailment_judgment", "sentiment", "class", "polarity")


class Sentiment(LabelledFiles):
    """Texts with one class each. Two numbered classes are negative and positive; three have neutral between them."""

    config: SentimentConfig
    orders = (("negative", "positive"), ("negative", "neutral", "positive"))

    def columns(self) -> list[Column]:
        """Return the column of the text."""
        return [Column("text_column", self.config.text_column, ("text", "sentence", "review", "phrase"))]


class Entailment(LabelledFiles):
    """Pairs of sentences: what the first says of the second. Pairs without a label that annotators agree on are left out.

    Numbered classes are entailment, neutral and contradiction, as SNLI's are.
    """

    config: EntailmentConfig
    orders = (("entailment", "neutral", "contradiction"),)
    dropped = frozenset({"-", "-1"})

    def columns(self) -> list[Column]:
        """Return the columns of both sentences."""
        return [
            Column("text_column", self.config.text_column, ("sentence1", "sentence_a", "premise")),
            Column("pair_column", self.config.pair_column, ("sentence2", "sentence_b", "hypothesis")),
        ]
