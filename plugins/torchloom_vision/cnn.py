"""A plain convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, Problem
from torchloom_vision.configs import CNNConfig


class CNN(Architecture):
    """Convolutions, each but the last followed by max-pooling, then one dense layer.

    Under a head of ten classes and on 28x28 grey images the defaults have 93,322 parameters.

    Source: TensorFlow tutorial "Convolutional Neural Network (CNN)", on one channel.
    """

    protocols = frozenset({"features"})
    accepts = (ImageSpec,)

    def __init__(self, config: CNNConfig, spec: ImageSpec, attention: Attention | None = None) -> None:
        super().__init__(config, spec)
        problems = _problems(config, spec)
        if problems:
            raise ConfigError(problems)
        self.convolutions = nn.ModuleList()
        channels, height, width = spec.channels, spec.height, spec.width
        for number, out_channels in enumerate(config.channels):
            last = number == len(config.channels) - 1
            self.convolutions.append(_stage(config, channels, out_channels, last))
            channels = out_channels
            height, width = (_side_after(side, config, last) for side in (height, width))
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(channels * height * width, config.hidden)
        self.width = config.hidden

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map images to ``(batch, hidden)``."""
        hidden = inputs
        for stage in self.convolutions:
            hidden = stage(hidden)
        vectors: Tensor = self.dropout(F.relu(self.dense(self.dropout(hidden.flatten(1)))))
        return vectors

    def blocks(self) -> Sequence[nn.Module]:
        """Return the convolutions, each with its pooling."""
        return list(self.convolutions)


def _stage(config: CNNConfig, in_channels: int, out_channels: int, last: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=config.padding)]
    if config.batch_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    layers.append(nn.ReLU())
    if not last and config.pool_size > 1:
        layers.append(nn.MaxPool2d(config.pool_size))
    return nn.Sequential(*layers)


def _side_after(side: int, config: CNNConfig, last: bool) -> int:
    if config.padding == "valid":
        side -= config.kernel_size - 1
    return side if last else side // config.pool_size


def _problems(config: CNNConfig, spec: ImageSpec) -> list[Problem]:
    if not config.channels or min(config.channels) < 1:
        mend = "name the output channels of each, such as [32,64,64]"
        return [Problem("architecture.channels", f"{list(config.channels)} is not a list of convolutions", mend)]
    smallest = 1
    for number in reversed(range(len(config.channels))):
        if number < len(config.channels) - 1:
            smallest *= config.pool_size
        if config.padding == "valid":
            smallest += config.kernel_size - 1
    if min(spec.height, spec.width) >= smallest:
        return []
    message = f"{len(config.channels)} convolutions leave nothing of images of {spec.height}x{spec.width}"
    mend = f"set dataset.image_size={smallest} or larger, or architecture.padding=same, or name fewer channels"
    return [Problem("architecture.channels", message, mend)]
