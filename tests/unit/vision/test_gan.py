"""The adversarial pair: the tutorial's sizes, DCGAN's shape, and that gradients reach both players."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError
from torchloom_vision.configs import GANConfig
from torchloom_vision.gan import GAN


def dcgan(channels: list[int], norm: str = "batch") -> GANConfig:
    return GANConfig(
        generator="transposed", discriminator="strided", discriminator_norm=norm, init="dcgan", channels=channels
    )


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_default_has_the_tutorial_s_parameters():
    pair = GAN(GANConfig(), ImageSpec(1, 28, 28, 10))
    assert count(pair.generator) == 114_064
    assert count(pair.discriminator) == 212_865
    assert pair.latent_dim == 100


CASES = [
    (GANConfig(), ImageSpec(1, 28, 28)),
    (GANConfig(hidden=[], channels=[4], discriminator_norm="layer"), ImageSpec(3, 15, 20)),
    (dcgan([64, 128]), ImageSpec(1, 28, 28)),
    (dcgan([8, 16, 32]), ImageSpec(3, 32, 32)),
    (dcgan([8, 16, 32, 64]), ImageSpec(3, 64, 64)),
    (dcgan([8, 16], norm="none"), ImageSpec(1, 28, 28)),
]


@pytest.mark.parametrize(("config", "spec"), CASES)
def test_images_and_logits_have_the_contract_s_shapes_and_range(config, spec):
    pair = GAN(config, spec)
    images = pair.generator(torch.randn(6, pair.latent_dim))
    assert images.shape == (6, spec.channels, spec.height, spec.width)
    assert images.abs().max() <= 1
    assert pair.discriminator(images).shape == (6,)


@pytest.mark.parametrize(("config", "spec"), CASES)
def test_each_player_s_loss_reaches_all_its_parameters(config, spec):
    pair = GAN(config, spec)
    fakes = pair.generator(torch.randn(6, pair.latent_dim))
    logits = pair.discriminator(fakes.detach())
    F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pair.discriminator.parameters())
    assert all(p.grad is None for p in pair.generator.parameters())
    pair.discriminator.requires_grad_(False)
    logits = pair.discriminator(fakes)
    F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pair.generator.parameters())


def test_logits_are_not_squashed():
    pair = GAN(GANConfig(), ImageSpec(1, 28, 28))
    nn.init.constant_(pair.discriminator[-2].bias, 50.0)
    assert pair.discriminator(torch.zeros(1, 1, 28, 28)).item() > 40


def test_dcgan_starts_from_small_normal_weights():
    pair = GAN(dcgan([64, 128]), ImageSpec(1, 28, 28))
    for module in pair.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert isinstance(pair.discriminator[1], nn.LeakyReLU), "the first layer is not normalised"


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_discriminator_without_batch_norm_judges_each_image_alone(norm):
    pair = GAN(dcgan([8, 16], norm=norm), ImageSpec(1, 28, 28))
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(pair.discriminator(images)[:1], pair.discriminator(images[:1]))


def test_sides_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(ConfigError) as caught:
        GAN(dcgan([64, 128, 256]), ImageSpec(1, 28, 28))
    assert str(caught.value) == (
        "architecture.channels: 3 layers halve the image as often, which 28x28 does not allow\n"
        "    set dataset.image_size to a multiple of 8, or name fewer channels"
    )


def test_empty_layers_are_refused():
    with pytest.raises(ConfigError) as caught:
        GAN(GANConfig(channels=[], hidden=[0]), ImageSpec(1, 28, 28))
    assert str(caught.value) == (
        "2 problems in the configuration:\n"
        "  architecture.channels: [] is not a list of positive numbers\n"
        "    name one number a layer, such as [64,128]\n"
        "  architecture.hidden: [0] is not a list of positive numbers\n"
        "    name one number a layer, such as [64,128]"
    )
