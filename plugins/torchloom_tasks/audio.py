"""Sounds as spectrograms."""

from __future__ import annotations

import logging
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.contracts.spec import SeriesSpec
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import AudioFolderConfig
from torchloom_tasks.division import SPLITS, check_shares, digest, divide

_log = logging.getLogger(__name__)

_FLOOR = 1e-6
_UNKNOWN = 2**31 - 2**16
"""A file written to a pipe promises this many bytes or more, since nobody knew how many would come."""
_LISTS: dict[SplitName, str] = {"val": "validation_list.txt", "test": "testing_list.txt"}


class AudioFolder(Dataset):
    """WAV files in one folder a class, or in folders ``train``, ``val`` and ``test`` that hold these.

    Splits that have no folder are shares, by the hash of each file, so that copies stay together; recordings of one
    speaker too, where names tell speakers as those of Speech Commands do (``SPEAKER_nohash_0.wav``), and its lists of
    files for validation and test are followed.
    """

    config: AudioFolderConfig

    def __init__(self, config: AudioFolderConfig) -> None:
        """Keep the settings; nothing is read yet.

        Raises:
            ConfigError: The shares leave nothing for training, or the bands are finer than the window can tell apart.
        """
        super().__init__(config)
        check_shares(config)
        if not (mel_filters(config.sample_rate, _fft(config), config.mels).sum(0) > 0).all():
            message = f"{config.mels} bands are too fine for a window of {config.window} s"
            raise ConfigError([Problem("dataset.mels", message, "lower it, or raise dataset.window")])

    def prepare(self) -> None:
        """Look at the folders, and at the beginning of every file.

        Raises:
            DataError: There is none, or one cannot be used; names it.
        """
        _ = self._files

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self._files[0]

    @property
    def spec(self) -> SeriesSpec:
        """Bands, frames and classes."""
        classes = self.classes
        return SeriesSpec(self.config.mels, self.config.context_length, num_classes=len(classes), classes=classes)

    def split(self, name: SplitName) -> Split:
        """List the files of one split; they are decoded when a batch is read."""
        classes, files = self._files
        labels = [classes.index(path.parent.name) for path in files[name]]
        return AudioSplit(files[name], torch.tensor(labels, dtype=torch.int64), self.config)

    def read(self, inputs: Sequence[str]) -> Split:
        """Open WAV files."""
        paths = [Path(name).expanduser() for name in inputs]
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path}: there is no such WAV file")
        return AudioSplit(paths, None, self.config)

    @cached_property
    def _files(self) -> tuple[tuple[str, ...], dict[SplitName, list[Path]]]:
        if self.config.path is None:
            raise DataError("dataset.path: audio_folder needs a folder of WAV files; set dataset.path=FOLDER")
        root = Path(self.config.path).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: there is no such folder; set dataset.path to one that holds a folder a class")
        folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
        if "train" not in folders:
            folders = {"train": root}
        found = {
            name: sorted(path for path in folder.glob("[!._]*/*") if path.suffix.lower() == ".wav")
            for name, folder in folders.items()
        }
        beside = [path for folder in folders.values() for path in folder.glob("[!._]*/[!.]*")]
        others = sum(path.suffix.lower() != ".wav" and path.is_file() for path in beside)
        if others:
            _log.warning("%s: left out %d files in its folders whose names do not end in .wav", root, others)
        classes = tuple(sorted({path.parent.name for path in found["train"]}))
        if len(classes) < 2:
            raise DataError(
                f"{folders['train']}: holds {len(classes)} folders with WAV files; put them into one folder a class, two "
                "or more"
            )
        for paths in found.values():
            for path in paths:
                if path.parent.name not in classes:
                    raise DataError(f"{path.parent}: class {path.parent.name!r} has no folder in {folders['train']}")
                with _opened(path, self.config.sample_rate):
                    pass  # what cannot be used is told before training
        if len(found) == 1:
            found.update(self._listed(root, found["train"]))
        held = {path for name in SPLITS[1:] for path in found.get(name, ())}
        found["train"] = [path for path in found["train"] if path not in held]
        return classes, divide(found, _owner, self.config, str(root))

    @staticmethod
    def _listed(root: Path, paths: Sequence[Path]) -> dict[SplitName, list[Path]]:
        """Return the files that Speech Commands' lists name, if they are there."""
        lists = {name: root / file for name, file in _LISTS.items() if (root / file).is_file()}
        named = {name: {root / line for line in file.read_text().split()} for name, file in lists.items()}
        return {name: [path for path in paths if path in chosen] for name, chosen in named.items()}


class AudioSplit(Split):
    """Files, decoded when a batch is read."""

    def __init__(self, paths: Sequence[Path], labels: Tensor | None, config: AudioFolderConfig) -> None:
        self._paths, self._labels, self._config = paths, labels, config

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return ``series``, ``length`` and, of files in class folders, ``label``.

        Raises:
            DataError: A file is broken, empty, or of another sample rate.
        """
        config = self._config
        series = torch.zeros(len(indices), config.context_length, config.mels)
        length = torch.zeros(len(indices), dtype=torch.int64)
        for row, index in enumerate(indices.tolist()):
            path = self._paths[index]
            frames = log_mel(read_wav(path, config.sample_rate), config)[: config.context_length]
            series[row, : len(frames)] = (frames - frames.mean()) / frames.std(unbiased=False).clamp(min=_FLOOR)
            length[row] = len(frames)
        batch = {"series": series, "length": length}
        return batch if self._labels is None else {**batch, "label": self._labels[indices]}


def read_wav(path: Path, sample_rate: int) -> Tensor:
    """Read an uncompressed WAV file of 8, 16, 24 or 32 bits; the mean of its channels.

    Returns:
        float32 ``(samples,)``, in ``[-1, 1]``.

    Raises:
        DataError: It is broken, cut short, empty, or of another sample rate.
    """
    with _opened(path, sample_rate) as file:
        channels, width = file.getnchannels(), file.getsampwidth()
        content = file.readframes(file.getnframes())
    values = _samples(content[: len(content) // (channels * width) * channels * width], width)
    return torch.from_numpy(values.reshape(-1, channels).mean(1))


@contextmanager
def _opened(path: Path, sample_rate: int) -> Iterator[wave.Wave_read]:
    """Open a WAV file, whose beginning shows whether it can be used.

    Raises:
        DataError: It cannot.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate, frames = file.getframerate(), file.getnframes()
            if rate != sample_rate:
                raise DataError(
                    f"{path}: has {rate} samples a second, not {sample_rate}; set dataset.sample_rate={rate} if all have, "
                    "or convert it"
                )
            if not frames:
                raise DataError(f"{path}: holds no sound; remove it")
            promised, size = frames * file.getnchannels() * file.getsampwidth(), path.stat().st_size
            if size < promised < _UNKNOWN:
                raise DataError(
                    f"{path}: is cut short: {size} bytes, of {promised} that it promises; replace or remove it"
                )
            yield file
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"{path}: not an uncompressed WAV file ({str(error) or 'cut short'}); convert it") from error


def _samples(content: bytes, width: int) -> NDArray[np.float32]:
    if width == 1:  # the only width without a sign
        return (np.frombuffer(content, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    # A sample becomes the upper bytes of a 32-bit number.
    padded = np.zeros((len(content) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def log_mel(sound: Tensor, config: AudioFolderConfig) -> Tensor:
    """Return the natural logarithm of a sound's power in bands of the mel scale.

    Args:
        sound: float32 ``(samples,)``.
        config: Window and hop, in seconds, and number of bands.

    Returns:
        float32 ``(frames, mels)``, a frame for every hop from the first sample on.
    """
    size, fft = round(config.window * config.sample_rate), _fft(config)
    hop = max(1, round(config.hop * config.sample_rate))
    padded = torch.nn.functional.pad(sound, (0, fft))  # the last frame begins within the sound
    window = torch.nn.functional.pad(torch.hann_window(size), (0, fft - size))
    frames = padded.unfold(0, fft, hop)[: ceil(len(sound) / hop)]
    power = torch.fft.rfft(frames * window).abs().square()
    bands: Tensor = power @ mel_filters(config.sample_rate, fft, config.mels)
    return bands.clamp(min=_FLOOR).log()


def mel_filters(sample_rate: int, fft: int, mels: int) -> Tensor:
    """Return triangles on the mel scale, each rising from the peak of the one before to 1 and falling to that of the next.

    Source: Young et al., The HTK Book, section 5.6: ``mel = 2595 log10(1 + f / 700)``.

    Returns:
        float32 ``(fft // 2 + 1, mels)``.
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None).astype(np.float32))


def _fft(config: AudioFolderConfig) -> int:
    """Return the length of the Fourier transform: the window's samples, up to the next power of two."""
    return int(2 ** ceil(np.log2(max(2, round(config.window * config.sample_rate)))))


def _owner(path: Path) -> bytes:
    """Hash what keeps files in one split: their speaker's name, or their content."""
    speaker, mark, _ = path.name.partition("_nohash_")
    if mark:
        return digest(speaker)
    try:
        return digest(path.read_bytes().decode("latin-1"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
