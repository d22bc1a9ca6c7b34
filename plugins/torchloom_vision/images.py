"""Splits of images: in memory, or read from files as they are needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.errors import DataError
from torchloom_vision.configs import ImageDatasetConfig
from torchloom_vision.sampling import uniform

CONVERTED_LIMIT = 64 * 2**20
"""Bytes up to which images are kept as the floats that training reads, rather than converted batch by batch."""

_GREY = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


class MemorySplit(Split):
    """Labelled images in memory; many of them stay bytes of their own size until a batch is read.

    Args:
        images: uint8 ``(num, channels, height, width)``.
        labels: int64 ``(num,)``.
        white: The value of a full pixel.
        config: Size, channels and augmentation.
        augmented: Whether training batches are augmented.
    """

    def __init__(self, images: Tensor, labels: Tensor, white: int, config: ImageDatasetConfig, augmented: bool) -> None:
        self.augmented = augmented
        self.config = config
        self.white = white
        self.labels = labels
        converted_bytes = 4 * len(images) * config.channels * config.image_size**2
        self.images = self._convert(images) if converted_bytes <= CONVERTED_LIMIT else images

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return ``image`` and ``label``."""
        images = self.images.index_select(0, indices)
        if images.dtype == torch.uint8:
            images = self._convert(images)
        if self.augmented and key is not None:
            images = augment(images, indices, key, self.config)
        return {"image": images, "label": self.labels.index_select(0, indices)}

    def _convert(self, images: Tensor) -> Tensor:
        return resize(recolour(images.float() / self.white, self.config.channels), self.config.image_size)


class FileSplit(Split):
    """Images that stay in their files until a batch is read; labelled if ``labels`` are given."""

    def __init__(
        self, paths: Sequence[Path], labels: Tensor | None, config: ImageDatasetConfig, augmented: bool = False
    ) -> None:
        self.augmented = augmented
        self.config = config
        self.paths = paths
        self.labels = labels

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return ``image`` and, if labelled, ``label``."""
        images = torch.stack([self._open(self.paths[index]) for index in indices.tolist()])
        if self.augmented and key is not None:
            images = augment(images, indices, key, self.config)
        batch = {"image": images}
        if self.labels is not None:
            batch["label"] = self.labels.index_select(0, indices)
        return batch

    def _open(self, path: Path) -> Tensor:
        size = self.config.image_size
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd metadata that does not touch the pixels
                with Image.open(path) as image:
                    pixels = ImageOps.exif_transpose(image)
                    if pixels.mode.startswith("I"):  # 16-bit grey, which convert("L") would clip to white
                        pixels = Image.fromarray((np.asarray(pixels) >> 8).astype(np.uint8))
                    pixels = pixels.convert("RGBA" if "transparency" in pixels.info else "RGB")
                    array = np.array(pixels.convert("RGB"))
        except FileNotFoundError as error:
            raise DataError(f"{path}: there is no such image file") from error
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: not an image that can be read, or cut short; replace or remove the file"
            ) from error
        image_1CHW = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255  # noqa: N806 - shape suffix
        return resize(recolour(image_1CHW, self.config.channels), size)[0]


def recolour(images: Tensor, channels: int) -> Tensor:
    """Repeat grey images ``(batch, 1, height, width)`` or average coloured ones by luminance, to ``channels``."""
    if images.shape[1] == channels:
        return images
    return images.repeat(1, channels, 1, 1) if channels == 3 else (images * _GREY).sum(dim=1, keepdim=True)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize float images ``(batch, channels, height, width)`` to ``size`` squared, bilinearly, in ``[0, 1]``."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp_(0, 1)


def augment(images: Tensor, indices: Tensor, key: EpochKey, config: ImageDatasetConfig) -> Tensor:
    """Move, turn, zoom and mirror each image at random, as a function of seed, epoch and its index alone.

    Args:
        images: float32 ``(batch, channels, height, width)``.
        indices: int64 ``(batch,)``, where the images stand in their split.
        key: Seed and epoch.
        config: Largest changes.

    Returns:
        As ``images``; what comes in at the edge repeats the edge.
    """
    draws = torch.from_numpy(uniform(key, indices.numpy(), 5)).float()
    signed = 2 * draws - 1
    angle = signed[:, 0] * math.radians(config.max_rotation)
    scale = 1 + signed[:, 1] * config.max_zoom
    flip = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if config.mirror else torch.ones(len(images))
    # The side of an image is 2 in the coordinates of affine_grid.
    shift = 2 * config.max_shift * signed[:, 2:4]
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], dim=1),
        torch.stack([flip * scale * angle.sin(), scale * angle.cos(), shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
