"""Generator and discriminator of images."""

from __future__ import annotations

from torch import nn

from torchloom.contracts.architecture import AdversarialPair
from torchloom.contracts.attention import Attention
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, Problem
from torchloom_vision.configs import GANConfig


class GAN(AdversarialPair):
    """Two networks that play against each other.

    By default, on 28x28 grey images, a dense generator 100 -> 128 -> 784 of 114,064 parameters, and a discriminator of
    two 5x5 convolutions with max-pooling, of 212,865. The discriminator gives logits: the objective applies the
    sigmoid, in the loss, where it is exact.

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets"; with the preset ``dcgan`` Radford, Metz and Chintala
    2016, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks".
    """

    accepts = (ImageSpec,)

    def __init__(self, config: GANConfig, spec: ImageSpec, attention: Attention | None = None) -> None:
        super().__init__(config, spec)
        problems = _problems(config, spec)
        if problems:
            raise ConfigError(problems)
        self.latent_dim = self.width = config.latent_dim
        self.generator = (_dense_generator if config.generator == "dense" else _transposed_generator)(config, spec)
        self.discriminator = _discriminator(config, spec)
        if config.init == "dcgan":
            self.apply(_init_dcgan)


def _dense_generator(config: GANConfig, spec: ImageSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = config.latent_dim
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.LeakyReLU(config.negative_slope)]
        width = hidden
    image = (spec.channels, spec.height, spec.width)
    layers += [nn.Linear(width, spec.channels * spec.height * spec.width), nn.Tanh(), nn.Unflatten(1, image)]
    return nn.Sequential(*layers)


def _transposed_generator(config: GANConfig, spec: ImageSpec) -> nn.Sequential:
    """Project the noise to a small image of many channels, then double its sides until it is whole."""
    channels = list(reversed(config.channels))
    shrink = 2 ** len(channels)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (config.latent_dim, 1, 1)),
        nn.ConvTranspose2d(config.latent_dim, channels[0], (spec.height // shrink, spec.width // shrink), bias=False),
    ]
    for in_channels, out_channels in zip(channels, [*channels[1:], spec.channels], strict=True):
        layers += [
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False),
        ]
    return nn.Sequential(*layers, nn.Tanh())


def _discriminator(config: GANConfig, spec: ImageSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = spec.channels
    for number, out_channels in enumerate(config.channels):
        # The first layer sees the image as it is: normalised there, the pair oscillates (Radford et al., section 3).
        norm = config.discriminator_norm if number > 0 else "none"
        bias = norm == "none"
        if config.discriminator == "pooled":
            layers.append(nn.Conv2d(channels, out_channels, 5, padding=2, bias=bias))
        else:
            layers.append(nn.Conv2d(channels, out_channels, 4, stride=2, padding=1, bias=bias))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(out_channels))
        elif norm == "layer":
            layers.append(nn.GroupNorm(1, out_channels))
        layers.append(nn.LeakyReLU(config.negative_slope))
        if config.discriminator == "pooled":
            layers.append(nn.MaxPool2d(2))
        channels = out_channels
    shrink = 2 ** len(config.channels)
    flat = channels * (spec.height // shrink) * (spec.width // shrink)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 1), nn.Flatten(0))


def _init_dcgan(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def _problems(config: GANConfig, spec: ImageSpec) -> list[Problem]:
    problems = []
    for name, widths in (("channels", config.channels), ("hidden", config.hidden)):
        if min(widths, default=1) < 1 or (name == "channels" and not widths):
            message = f"{list(widths)} is not a list of positive numbers"
            problems.append(Problem(f"architecture.{name}", message, "name one number a layer, such as [64,128]"))
    if problems:
        return problems
    shrink = 2 ** len(config.channels)
    exact = config.generator == "transposed" or config.discriminator == "strided"
    if min(spec.height, spec.width) < shrink or (exact and (spec.height % shrink or spec.width % shrink)):
        message = (
            f"{len(config.channels)} layers halve the image as often, which {spec.height}x{spec.width} does not allow"
        )
        mend = f"set dataset.image_size to a multiple of {shrink}, or name fewer channels"
        problems.append(Problem("architecture.channels", message, mend))
    return problems
