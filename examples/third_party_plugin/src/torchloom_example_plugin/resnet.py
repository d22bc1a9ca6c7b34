"""A small residual network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.attention import Attention
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, Problem
from torchloom_example_plugin.configs import TinyResNetConfig


class TinyResNet(Architecture):
    """Stages of residual blocks, then the mean over the image.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2.
    """

    protocols = frozenset({"features"})
    accepts = (ImageSpec,)

    def __init__(self, config: TinyResNetConfig, spec: ImageSpec, attention: Attention | None = None) -> None:
        """Build the network.

        Raises:
            ConfigError: More halvings than the image has room for.
        """
        super().__init__(config, spec)
        smallest = 2 ** (config.stages - 1)
        if min(spec.height, spec.width) < smallest:
            message = f"{config.stages} stages leave nothing of images of {spec.height}x{spec.width}"
            mend = f"set dataset.image_size={smallest} or larger, or name fewer stages"
            raise ConfigError([Problem("architecture.stages", message, mend)])
        self.stem = nn.Conv2d(spec.channels, config.width, 3, padding=1)
        stages: list[nn.Module] = []
        channels = config.width
        for stage in range(config.stages):
            for block in range(config.blocks_per_stage):
                halve = stage > 0 and block == 0
                stages.append(ResidualBlock(channels, 2 * channels if halve else channels, stride=2 if halve else 1))
                channels = 2 * channels if halve else channels
        self.residual_blocks = nn.ModuleList(stages)
        self.width = channels

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map images ``(batch, channels, height, width)`` to ``(batch, width)``."""
        x = self.stem(inputs)
        for block in self.residual_blocks:
            x = block(x)
        return torch.relu(x).mean(dim=(2, 3))

    def blocks(self) -> Sequence[nn.Module]:
        """Return the residual blocks, first to last."""
        return list(self.residual_blocks)


class ResidualBlock(nn.Module):
    """``x + f(x)`` with two convolutions, normalised in groups before each; the shortcut is projected where it must.

    Source: He et al. 2016, Identity Mappings in Deep Residual Networks, figure 1b.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1),
            nn.GroupNorm(1, out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, height, width)`` to ``(batch, out_channels, height / stride, width / stride)``."""
        output: Tensor = self.shortcut(x) + self.body(x)
        return output
