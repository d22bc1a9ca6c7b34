"""The convolutional network: the tutorial's sizes, and images too small for it."""

import pytest
import torch

from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError
from torchloom_vision.cnn import CNN
from torchloom_vision.configs import CNNConfig


def grey(side: int) -> ImageSpec:
    return ImageSpec(1, side, side, 10)


def test_default_is_the_tutorial_s():
    network = CNN(CNNConfig(), grey(28))
    head = torch.nn.Linear(network.width, 10)
    assert sum(p.numel() for module in (network, head) for p in module.parameters()) == 93_322
    assert network.features(torch.rand(5, 1, 28, 28)).shape == (5, 64)
    sides = []
    hidden = torch.rand(1, 1, 28, 28)
    for block in network.blocks():
        hidden = block(hidden)
        sides.append(tuple(hidden.shape[1:]))
    assert sides == [(32, 13, 13), (64, 5, 5), (64, 3, 3)]


@pytest.mark.parametrize(
    "config",
    [
        CNNConfig(channels=[8], kernel_size=5, hidden=7),
        CNNConfig(channels=[8, 4, 4, 4], padding="same", batch_norm=True, dropout=0.5),
        CNNConfig(channels=[8, 4, 4], pool_size=1),
    ],
)
def test_sizes_follow_config_and_spec(config):
    network = CNN(config, ImageSpec(3, 20, 24, 10))
    features = network.features(torch.rand(4, 3, 20, 24))
    assert features.shape == (4, network.width) == (4, config.hidden)
    features.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_smallest_image_that_fits_is_named_and_fits():
    with pytest.raises(ConfigError) as caught:
        CNN(CNNConfig(), grey(17))
    assert str(caught.value) == (
        "architecture.channels: 3 convolutions leave nothing of images of 17x17\n"
        "    set dataset.image_size=18 or larger, or architecture.padding=same, or name fewer channels"
    )
    assert CNN(CNNConfig(), grey(18)).features(torch.rand(1, 1, 18, 18)).shape == (1, 64)


@pytest.mark.parametrize("channels", [[], [32, 0]])
def test_no_convolutions_are_refused(channels):
    with pytest.raises(ConfigError) as caught:
        CNN(CNNConfig(channels=channels), grey(28))
    assert str(caught.value) == (
        f"architecture.channels: {channels} is not a list of convolutions\n"
        "    name the output channels of each, such as [32,64,64]"
    )


def test_dropout_is_for_training_only():
    network = CNN(CNNConfig(dropout=0.5), grey(28))
    images = torch.rand(2, 1, 28, 28)
    assert not torch.equal(network.features(images), network.features(images))
    network.eval()
    assert torch.equal(network.features(images), network.features(images))
