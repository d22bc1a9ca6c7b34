"""The image datasets."""

from __future__ import annotations

import gzip
import logging
import os
import struct
import tempfile
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from torchloom.contracts.dataset import Dataset, Split, SplitName
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_vision import sampling
from torchloom_vision.configs import (
    CIFAR10Config,
    DigitsConfig,
    DownloadedConfig,
    ImageDatasetConfig,
    ImageFolderConfig,
)
from torchloom_vision.images import FileSplit, MemorySplit

_log = logging.getLogger(__name__)

DIGITS = tuple("0123456789")
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class Examples(NamedTuple):
    """Everything a dataset holds, before it is divided.

    Attributes:
        content: `sampling.digests` of the images.
        labels: int64 ``(num,)``.
        given: ``"train"``, ``"val"`` or ``"test"`` for each image; all ``"train"`` if nothing is laid down.
    """

    content: NDArray[np.uint64]
    labels: NDArray[np.int64]
    given: NDArray[np.str_]


class ImageDataset(Dataset):
    """Base of the image datasets: splits, subsets, and a person's own files."""

    config: ImageDatasetConfig

    def __init__(self, config: ImageDatasetConfig) -> None:
        super().__init__(config)
        test = getattr(config, "test", 0.0)
        problems = []
        if config.channels == 2:
            problems.append(Problem("dataset.channels", "2 is neither grey nor colour", "set it to 1 or 3"))
        if config.val + test >= 1:
            problems.append(
                Problem(
                    "dataset.val", f"val={config.val} and test={test} leave nothing to train on", "lower one of them"
                )
            )
        if problems:
            raise ConfigError(problems)

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""

    @property
    def spec(self) -> ImageSpec:
        """Size and classes."""
        size, classes = self.config.image_size, self.classes
        return ImageSpec(self.config.channels, size, size, num_classes=len(classes), classes=classes)

    def read(self, inputs: Sequence[str]) -> FileSplit:
        """Open image files, converted to this dataset's size and channels; nothing is inverted or cropped."""
        paths = [Path(name) for name in inputs]
        for path in paths:
            if not path.is_file():
                raise DataError(f"{path}: there is no such image file")
        return FileSplit(paths, None, self.config)

    @abstractmethod
    def examples(self) -> Examples:
        """Return what is to be divided."""

    @cached_property
    def indices(self) -> dict[str, NDArray[np.int64]]:
        """Ascending indices of the examples of each split."""
        content, labels, given = self.examples()
        shares = {"test": getattr(self.config, "test", 0.0), "val": self.config.val}
        shares = {name: share for name, share in shares.items() if name not in given}
        splits = sampling.divide(content, labels, given, shares, self.config.split_seed)
        left_out = len(labels) - sum(map(len, splits.values()))
        if left_out:
            _log.info("left out %d images whose copies stand in a later split", left_out)
        train, test = splits["train"], splits["test"]
        if self.config.train_per_class is not None:
            splits["train"] = train[self._few(content[train], labels[train], self.config.train_per_class)]
        if self.config.test_limit is not None:
            splits["test"] = test[sampling.subset(content[test], self.config.test_limit)]
        return splits

    def _few(self, content: NDArray[np.uint64], labels: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
        counts = np.bincount(labels, minlength=len(self.classes))
        if counts.min() < wanted:
            scarce = self.classes[int(counts.argmin())]
            message = f"class {scarce!r} has {counts.min()} training images, fewer than the {wanted} asked for"
            raise ConfigError([Problem("dataset.train_per_class", message, f"set it to {counts.min()} or less")])
        return sampling.few(content, labels, wanted, self.config.split_seed)


class MemoryDataset(ImageDataset):
    """Base of the datasets that fit into memory."""

    white: ClassVar[int] = 255

    @abstractmethod
    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        """Return images ``(num, channels, height, width)``, labels, and how many of the last are the given test set.

        Raises:
            DataError: A file is missing or corrupt.
        """

    @cached_property
    def _data(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        return self.load()

    def examples(self) -> Examples:
        """Hash the images."""
        images, labels, tests = self._data
        given = np.array(["train"] * (len(labels) - tests) + ["test"] * tests)
        return Examples(sampling.digests(images), labels, given)

    def split(self, name: SplitName) -> Split:
        """Load one split."""
        images, labels, _ = self._data
        chosen = self.indices[name]
        augmented = self.config.augment and name == "train"
        return MemorySplit(
            torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen]), self.white, self.config, augmented
        )


class Digits(MemoryDataset):
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 with values up to 16, bright on dark.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), its test set.
    """

    config: DigitsConfig
    classes = DIGITS
    white = 16

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        """Read scikit-learn's copy."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        return images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64), 0


class DownloadedDataset(MemoryDataset):
    """Base of the datasets that torchvision fetches."""

    config: DownloadedConfig
    title: ClassVar[str]
    folder: ClassVar[str]
    source: ClassVar[str]

    @property
    def root(self) -> Path:
        """Folder that holds the data of all downloaded datasets, or this one's own."""
        chosen = self.config.path or os.environ.get("TORCHLOOM_DATASETS") or "~/.cache/torchloom"
        return Path(chosen).expanduser()

    @abstractmethod
    def find(self) -> Path | None:
        """Return the folder in which the whole data lies, if there is one."""

    def prepare(self) -> None:
        """Fetch the data unless it is there."""
        if self.find() is not None:
            return
        if not self.config.download:
            raise DataError(f"{self.root}: holds no {self.title}, and dataset.download=false. {self.source}")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # Moved into place whole, so that a download that was cut short leaves nothing behind.
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as scratch:
                self.fetch(scratch)
                (Path(scratch) / self.folder).rename(self.root / self.folder)
        except (OSError, RuntimeError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self.root}: holds no {self.title}, and it could not be fetched. {self.source}"
            ) from error

    @abstractmethod
    def fetch(self, root: str) -> None:
        """Download below ``root``."""

    def located(self) -> Path:
        """Return what `find` found.

        Raises:
            DataError: It is not there; `prepare` was not called.
        """
        found = self.find()
        if found is None:
            raise DataError(f"{self.root}: holds no {self.title}. {self.source}")
        return found


class MNIST(DownloadedDataset):
    """MNIST: 60,000 handwritten digits to train on and 10,000 to test, grey, 28x28, bright on dark.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition".
    """

    title = "MNIST"
    folder = "MNIST"
    source = "Put its four files, train-images-idx3-ubyte.gz and so on, there."
    classes = DIGITS
    elsewhere: ClassVar[tuple[Path, ...]] = ()

    def find(self) -> Path | None:
        """Look for the four files, gzipped or not, in the folder itself and where torchvision puts them."""
        for folder in (self.root, self.root / self.folder / "raw", *self.elsewhere):
            if all(_idx_file(folder, part) for part in _IDX_PARTS):
                return folder
        return None

    def fetch(self, root: str) -> None:
        """Download by torchvision."""
        import torchvision

        getattr(torchvision.datasets, self.folder)(root, download=True)

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        """Read the four files.

        Raises:
            DataError: A file is missing or corrupt.
        """
        folder = self.located()
        images, labels, test_images, test_labels = (read_idx(_idx_file(folder, part) or folder) for part in _IDX_PARTS)
        for part, pair in zip(_IDX_PARTS[1::2], ((images, labels), (test_images, test_labels)), strict=True):
            if len(pair[0]) != len(pair[1]):
                raise DataError(
                    f"{folder / part}: {len(pair[1])} labels for {len(pair[0])} images; fetch the files anew"
                )
        everything = np.concatenate([images, test_images])[:, None]
        return everything, np.concatenate([labels, test_labels]).astype(np.int64), len(test_labels)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 pieces of clothing to train on and 10,000 to test, grey, 28x28, bright on dark.

    Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning".
    """

    title = "Fashion-MNIST"
    folder = "FashionMNIST"
    source = "On Debian, `apt-get install dataset-fashion-mnist`; else put train-images-idx3-ubyte.gz and so on there."
    classes = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
    elsewhere = (Path("/usr/share/datasets/fashion-mnist"),)


class CIFAR10(DownloadedDataset):
    """CIFAR-10: 50,000 photographs to train on and 10,000 to test, in colour, 32x32.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """

    config: CIFAR10Config
    title = "CIFAR-10"
    folder = "cifar-10-batches-py"
    source = "Unpack cifar-10-python.tar.gz there."
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def find(self) -> Path | None:
        """Look for the unpacked folder."""
        folder = self.root / self.folder
        return folder if folder.is_dir() else None

    def fetch(self, root: str) -> None:
        """Download by torchvision."""
        import torchvision

        torchvision.datasets.CIFAR10(root, download=True)

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        """Read by torchvision, which compares checksums before it unpickles.

        Raises:
            DataError: A file is missing or corrupt.
        """
        import torchvision

        folder = self.located()
        try:
            parts = [torchvision.datasets.CIFAR10(str(folder.parent), train=train) for train in (True, False)]
        except RuntimeError as error:
            raise DataError(f"{folder}: a file is missing or corrupt; remove the folder to fetch it anew") from error
        images = np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2)
        labels = np.concatenate([part.targets for part in parts]).astype(np.int64)
        return np.ascontiguousarray(images), labels, len(parts[1].targets)


class ImageFolder(ImageDataset):
    """Images in one folder a class, or in ``train``, ``val`` and ``test`` folders that each hold these.

    Splits that have no folder are taken from the training images by the hash of each file, so that copies of a file
    stay together. Files are decoded when a batch is read.
    """

    config: ImageFolderConfig

    def prepare(self) -> None:
        """Look at the folders."""
        _ = self._files

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self._files[0]

    def examples(self) -> Examples:
        """Hash the files."""
        _, paths, labels, given = self._files
        return Examples(sampling.digests(_contents(path) for path in paths), labels, given)

    def split(self, name: SplitName) -> Split:
        """List the files of one split."""
        _, paths, labels, _ = self._files
        chosen = self.indices[name]
        augmented = self.config.augment and name == "train"
        return FileSplit([paths[index] for index in chosen], torch.from_numpy(labels[chosen]), self.config, augmented)

    @cached_property
    def _files(self) -> tuple[tuple[str, ...], list[Path], NDArray[np.int64], NDArray[np.str_]]:
        if self.config.path is None:
            raise DataError("dataset.path: image_folder needs a folder of images; set dataset.path=FOLDER")
        root = Path(self.config.path).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: there is no such folder; set dataset.path to one that holds a folder a class")
        folders = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
        if "train" not in folders:
            folders = {"train": root}
        classes = _subfolders(folders["train"])
        if len(classes) < 2:
            found = f"only one class folder, {classes[0]!r}" if classes else "no class folders"
            raise DataError(f"{folders['train']}: holds {found}; put the images into one folder a class, two or more")
        paths: list[Path] = []
        labels: list[int] = []
        given: list[str] = []
        for split, folder in folders.items():
            for name in _subfolders(folder):
                if name not in classes:
                    raise DataError(f"{folder / name}: class {name!r} has no folder in {folders['train']}")
                images = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
                if not images:
                    raise DataError(f"{folder / name}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
                paths += images
                labels += [classes.index(name)] * len(images)
                given += [split] * len(images)
        return classes, paths, np.array(labels, np.int64), np.array(given)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, gzipped or not.

    Raises:
        DataError: It is cut short, corrupt, or of another kind; names it.

    Source: the format's description on the MNIST page of LeCun, Cortes and Burges.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cut short or corrupt; remove it and fetch it anew") from error
    dims = content[3] if len(content) > 3 else 0
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * dims:
        raise DataError(f"{path}: not an IDX file of bytes")
    shape = struct.unpack(f">{dims}I", content[4 : 4 + 4 * dims])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dims)
    if values.size != np.prod(shape):
        raise DataError(
            f"{path}: holds {values.size:,} bytes where its head promises {np.prod(shape):,}; fetch it anew"
        )
    return values.reshape(shape)


_IDX_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx_file(folder: Path, part: str) -> Path | None:
    return next((file for file in (folder / f"{part}.gz", folder / part) if file.is_file()), None)


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
