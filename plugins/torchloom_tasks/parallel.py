"""Texts and what is to be made of them: translations, summaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split, SplitName
from torchloom.contracts.spec import Seq2SeqSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import ParallelTextConfig
from torchloom_tasks.division import digest, divide
from torchloom_tasks.ragged import Ragged
from torchloom_tasks.tables import SUFFIXES, TABLES, Column, Row, located, read_table, text_of
from torchloom_tasks.texts import TaskText


class PairSplit(Split):
    """Sources and targets, as `torchloom.contracts.spec.Seq2SeqSpec` has them."""

    def __init__(self, source: Ragged, target: Ragged | None, spec: Seq2SeqSpec) -> None:
        self._source, self._target, self._spec = source, target, spec

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return sources and targets, each as long as the longest needs; no targets of inputs that have none."""
        pad = self._spec.pad_id or 0
        batch = {
            "source": self._source.rows(indices, pad, most=self._spec.source_length).long(),
            "source_length": self._source.lengths[indices],
        }
        if self._target is not None:
            batch["target"] = self._target.rows(indices, pad, most=self._spec.target_length + 1).long()
            batch["target_length"] = self._target.lengths[indices]
        return batch


class ParallelText(TaskText[Row]):
    """Pairs of source and target, one vocabulary for both. Copies of a source stay in one split."""

    config: ParallelTextConfig

    def __init__(self, config: ParallelTextConfig, tokenizer: Tokenizer | None = None) -> None:
        """Keep the settings; nothing is read yet.

        Raises:
            ConfigError: The shares leave nothing for training, there is no tokenizer, or aligned files are not given in
                pairs.
        """
        super().__init__(config, tokenizer)
        aligned = config.target_path is not None
        for name in ("val", "test"):
            has, wants = getattr(config, f"{name}_target_path") is not None, getattr(config, f"{name}_path") is not None
            if has != (wants and aligned):
                message = "given for some files only" if aligned else "given without dataset.target_path"
                mend = "give the targets of every text file, or of none"
                raise ConfigError([Problem(f"dataset.{name}_target_path", message, mend)])

    def divide(self) -> dict[SplitName, list[Row]]:
        """Read the files, and take shares of the training file where there are no others.

        Raises:
            DataError: A file is missing, empty or broken, aligned files differ in length, or a text is empty.
        """
        config = self.config
        files = located(config.path, {"val": config.val_path, "test": config.test_path}, SUFFIXES, TABLES)
        targets: dict[SplitName, str | None] = {
            "train": config.target_path,
            "val": config.val_target_path,
            "test": config.test_target_path,
        }
        given = {split: self._read(path, targets[split]) for split, path in files.items()}
        return divide(given, lambda row: digest(row.cells[0]), config, str(config.path))

    def texts(self, example: Row) -> Sequence[str]:
        """Return source and target."""
        return example.cells

    def make_spec(self, vocabulary: dict[str, Any]) -> Seq2SeqSpec:
        """Return the spec.

        Raises:
            ConfigError: The tokenizer has no token to begin a target with, or none to end it.
        """
        del vocabulary["mask_id"]
        config = self.config
        if vocabulary["eos_id"] is None or (vocabulary["bos_id"] is None and vocabulary["pad_id"] is None):
            message = "targets begin with bos, or pad, and end with eos; one of them is missing"
            raise ConfigError([Problem("tokenizer.special_tokens", message, "set it to [pad,unk,bos,eos]")])
        return Seq2SeqSpec(source_length=config.source_length, target_length=config.target_length, **vocabulary)

    def rows(self, examples: Sequence[Row]) -> tuple[Split, int]:
        """Encode sources and targets.

        Raises:
            DataError: A source has no tokens.
        """
        spec = self.spec
        assert isinstance(spec, Seq2SeqSpec)
        begin = spec.pad_id if spec.bos_id is None else spec.bos_id
        sources, cut = self._encode(examples, 0, spec.source_length)
        targets, cut_too = self._encode(examples, 1, spec.target_length - 1)
        whole = [np.concatenate([[begin], ids, [spec.eos_id]]).astype(np.int64) for ids in targets]
        return PairSplit(Ragged(sources), Ragged(whole), spec), len(cut | cut_too)

    def read(self, inputs: Sequence[str]) -> Split:
        """Read sources.

        Raises:
            DataError: One is empty.
        """
        spec = self.spec
        assert isinstance(spec, Seq2SeqSpec)
        rows = [Row(f"input {number}", (text.strip(),)) for number, text in enumerate(inputs, 1)]
        return PairSplit(Ragged(self._encode(rows, 0, spec.source_length)[0]), None, spec)

    def _encode(self, rows: Sequence[Row], column: int, most: int) -> tuple[list[np.ndarray[Any, Any]], set[int]]:
        """Return ids, and the numbers of the rows that were cut."""
        encoded = self._tokenizer.encode_batch([row.cells[column] for row in rows])
        for row, ids in zip(rows, encoded, strict=True):
            if not len(ids):
                raise DataError(f"{row.place}: the tokenizer finds no tokens in {row.cells[column]!r}; remove it")
        return [np.asarray(ids)[:most] for ids in encoded], {n for n, ids in enumerate(encoded) if len(ids) > most}

    def _read(self, path: Path, target: str | None) -> list[Row]:
        config = self.config
        if target is None:
            columns = [
                Column(
                    "source_column",
                    config.source_column,
                    ("source", "src", "document", "article", "text"),
                    otherwise="a file of sources alone needs dataset.target_path too",
                ),
                Column("target_column", config.target_column, ("target", "tgt", "summary", "highlights")),
            ]
            rows: Iterable[Row] = read_table(path, columns)
        else:
            rows = read_aligned(path, Path(target).expanduser())
        rows = list(rows)
        for row in rows:
            for name, text in zip(("source", "target"), row.cells, strict=True):
                if not text:
                    raise DataError(f"{row.place}: the {name} is empty; give it text or remove the line")
        return rows


def read_aligned(source: Path, target: Path) -> list[Row]:
    """Read two files line by line; lines empty in both are passed over.

    Raises:
        DataError: One cannot be read, both are empty, or they differ in length.
    """
    left, right = (text_of(path, "check the path").splitlines() for path in (source, target))
    if len(left) != len(right):
        raise DataError(f"{source} has {len(left)} lines, {target} {len(right)}; aligned files have as many")
    pairs = [(one.strip(), other.strip()) for one, other in zip(left, right, strict=True)]
    rows = [Row(f"{source}, line {number}", pair) for number, pair in enumerate(pairs, 1) if any(pair)]
    if not rows:
        raise DataError(f"{source}: holds no text; give a file that does")
    return rows
