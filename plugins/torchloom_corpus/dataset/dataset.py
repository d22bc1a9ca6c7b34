"""The dataset that trains from built corpora."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from torchloom.contracts.dataset import Dataset, Split, SplitName, TensorSplit
from torchloom.contracts.spec import TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.data import mix
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_corpus.dataset.configs import CorpusDatasetConfig
from torchloom_corpus.dataset.tokenizer import CorpusTokenizer
from torchloom_corpus.dataset.windows import FixedWindows, MixedWindows, Stream
from torchloom_corpus.shards import Corpus


class CorpusDataset(Dataset):
    """One corpus or a weighted mixture, read from memory-mapped shards.

    A document's split is drawn from its content hash and `split_seed` alone: it does not change when the corpus grows or
    is built with other tasks, and copies of a text, in one corpus or in several, share a split. Validation and test cover
    all corpora wholly, whatever their weights.
    """

    takes_tokenizer = True
    config: CorpusDatasetConfig

    def __init__(self, config: CorpusDatasetConfig, tokenizer: Tokenizer | None = None) -> None:
        """Keep the settings; nothing is read yet.

        Raises:
            ConfigError: No path or two ways of giving it, weights that do not match, shares that leave nothing for
                training, or a tokenizer that is not the corpus's own.
        """
        super().__init__(config, tokenizer)
        problems = _contradictions(config)
        if not isinstance(tokenizer, CorpusTokenizer) or tokenizer.config.path is not None:
            message = "dataset=corpus takes the tokenizer that the corpus was built with"
            problems.append(Problem("tokenizer", message, "leave tokenizer and its keys out"))
        if problems:
            raise ConfigError(problems)
        assert isinstance(tokenizer, CorpusTokenizer)
        self._tokenizer = tokenizer
        self._splits: dict[SplitName, Split] = {}

    def prepare(self) -> None:
        """Open the corpora: see that all files are there and whole, and that all have the same tokenizer.

        Raises:
            DataError: A corpus is missing, unfinished, damaged or of another tokenizer.
        """
        _ = self._corpora

    @property
    def spec(self) -> TokenSpec:
        """Vocabulary and window; no corpus is opened where a checkpoint has brought the tokenizer."""
        tokenizer = self._tokenizer
        if not tokenizer.trained:
            self.prepare()
        return TokenSpec(
            vocab_size=tokenizer.vocab_size,
            context_length=self.config.context_length,
            **{f"{name}_id": tokenizer.special_id(name) for name in ("pad", "unk", "bos", "eos", "mask")},
        )

    def split(self, name: SplitName) -> Split:
        """Load one split: `MixedWindows` for training, `FixedWindows` for the others, empty where the share is 0.

        Raises:
            DataError: A corpus is unusable, or has too little text for a window (training) or for one prediction (the
                others).
        """
        if name not in self._splits:
            self._splits[name] = self._load(name)
        return self._splits[name]

    def read(self, inputs: Sequence[str]) -> Split:
        """Read texts, or the files they name, as evaluation windows that never cross from one input to the next.

        Raises:
            DataError: A file is not UTF-8, or an input has fewer than two tokens.
        """
        spec = self.spec
        size = spec.context_length + 1
        rows, lengths, numbers = [], [], []
        for number, given in enumerate(inputs):
            ids = self._tokenizer.encode(_text(given))
            if len(ids) < 2:
                raise DataError(f"{given!r}: has {len(ids)} tokens; a prediction needs at least 2")
            for piece in (ids[start : start + size] for start in range(0, len(ids) - 1, spec.context_length)):
                rows.append(torch.cat([piece, torch.full((size - len(piece),), spec.pad_id or 0)]))
                lengths.append(len(piece))
                numbers.append(number)
        return TensorSplit(tokens=torch.stack(rows), length=torch.tensor(lengths), input=torch.tensor(numbers))

    @cached_property
    def _corpora(self) -> list[Corpus]:
        paths = [Path(path).expanduser() for path in self.config.paths or [self.config.path or ""]]
        corpora = [Corpus(path, verify=self.config.verify) for path in paths]
        records = [corpus.tokenizer for corpus in corpora]
        for corpus, record in zip(corpora, records, strict=True):
            if record.hash != records[0].hash:
                raise DataError(
                    f"{corpus.folder}: was built with another tokenizer, {record}, than {paths[0]}, {records[0]}; build "
                    f"it with tokenizer=corpus tokenizer.path={paths[0]}"
                )
        known = self._tokenizer.record
        if known is None:
            self._tokenizer.take(records[0])
        elif known.hash != records[0].hash:
            raise DataError(
                f"{paths[0]}: was built with another tokenizer, {records[0]}, than the model was trained with, {known}; "
                "give a corpus that was built with that one"
            )
        return corpora

    def _load(self, name: SplitName) -> Split:
        config, window = self.config, self.config.context_length + 1
        packed = config.packing == "documents"
        share = {"val": config.val_fraction, "test": config.test_fraction}.get(name)
        if share == 0:
            return FixedWindows([], config.context_length, None, packed)
        streams = [self._stream(corpus, name) for corpus in self._corpora]
        if name == "train":
            for stream in streams:
                if len(stream) < window:
                    raise DataError(
                        f"{stream.corpus.folder}: the training split has {len(stream):,} tokens, but one window takes "
                        f"{window:,}; give a larger corpus or lower dataset.context_length"
                    )
            weights = config.weights or [float(len(stream)) for stream in streams]
            return MixedWindows(streams, weights, config.context_length, packed)
        split = FixedWindows(streams, config.context_length, self.spec.pad_id, packed)
        if not len(split):
            raise DataError(
                f"{', '.join(str(stream.corpus.folder) for stream in streams)}: the {name} split holds "
                f"{sum(stream.documents for stream in streams)} documents, which is too little for one prediction; raise "
                f"dataset.{name}_fraction={share:g}, or set it to 0 to do without"
            )
        return split

    def _stream(self, corpus: Corpus, name: SplitName) -> Stream:
        val, test = self.config.val_fraction, self.config.test_fraction
        if val == test == 0:
            return Stream(corpus)
        low, high = {"val": (0.0, val), "test": (val, val + test), "train": (val + test, 1.0)}[name]

        def choose(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
            place = uniform(hashes, self.config.split_seed)
            chosen: NDArray[np.bool_] = (low <= place) & (place < high)
            return chosen

        return Stream(corpus, choose)


def uniform(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Turn 64-bit hashes into numbers in ``[0, 1)`` that differ from seed to seed (splitmix64's finaliser)."""
    state = hashes + np.uint64(mix(seed))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _contradictions(config: CorpusDatasetConfig) -> list[Problem]:
    problems = []
    if config.path is None and not config.paths:
        message = "not given"
        problems.append(Problem("dataset.path", message, "set it to a folder that `torchloom corpus build` wrote"))
    if config.path is not None and config.paths:
        problems.append(Problem("dataset.paths", "is given beside dataset.path", "give one of them"))
    if config.weights and len(config.weights) != len(config.paths):
        message = f"{len(config.weights)} weights for {len(config.paths)} paths"
        problems.append(Problem("dataset.weights", message, "give a weight for each of dataset.paths"))
    if config.val_fraction + config.test_fraction >= 1:
        message = f"{config.val_fraction} and dataset.test_fraction={config.test_fraction} leave nothing for training"
        problems.append(Problem("dataset.val_fraction", message, "lower one of them: together below 1"))
    return problems


def _text(given: str) -> str:
    path = Path(given)
    try:
        return path.read_bytes().decode("utf-8") if path.is_file() else given
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it") from error
    except (OSError, ValueError):  # too long for a path, or holds a null character: it is text
        return given
