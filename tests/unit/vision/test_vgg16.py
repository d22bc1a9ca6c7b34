"""VGG16 for transfer: sizes, what is frozen, cached features, published weights, and every error."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from torchloom.contracts.architecture import restoring
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, DataError
from torchloom_vision.configs import FashionMNISTConfig, VGG16TransferConfig
from torchloom_vision.datasets import FashionMNIST
from torchloom_vision.vgg16 import NORMALISATIONS, VGG16Transfer

SMALL = ImageSpec(1, 32, 32, 10)


@pytest.fixture(scope="module")
def published():
    """Weights in torchvision's layout, those of its classifier among them, as a download would hold."""
    torch.manual_seed(0)
    state = {f"features.{key}": value for key, value in make_layers(cfgs["D"]).state_dict().items()}
    return {**state, "classifier.0.bias": torch.zeros(3)}


@pytest.fixture(scope="module")
def weights(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.save(published, path)
    return path


def configured(**fields):
    return VGG16TransferConfig(normalisation="imagenet", **fields)


def test_parameters_are_the_tutorial_s():
    network = VGG16Transfer(VGG16TransferConfig(), ImageSpec(3, 224, 224, 10))
    head = nn.Linear(network.width, 10)
    assert sum(p.numel() for module in (network, head) for p in module.parameters()) == 21_140_042
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 25_088 * 256 + 256
    assert len(network.blocks()) == 5


@pytest.mark.parametrize("spec", [SMALL, ImageSpec(3, 64, 40, 10)])
def test_features_follow_the_spec(spec):
    network = VGG16Transfer(VGG16TransferConfig(hidden=20), spec)
    assert network.features(torch.rand(2, spec.channels, spec.height, spec.width)).shape == (2, 20)


@pytest.mark.parametrize("unfrozen", [0, 2, 5])
def test_frozen_blocks_stay_frozen_in_mode_and_parameters(unfrozen):
    network = VGG16Transfer(VGG16TransferConfig(unfreeze_blocks=unfrozen), SMALL)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    network.features(torch.rand(2, 1, 32, 32)).sum().backward()
    optimizer.step()
    network.eval().train()
    for number, block in enumerate(network.blocks()):
        frozen = number < 5 - unfrozen
        assert all(module.training != frozen for module in block.modules())
        assert all(parameter.requires_grad != frozen for parameter in block.parameters())
        changed = [
            not torch.equal(value, before[name])
            for name, value in network.state_dict().items()
            if name.startswith(f"convolutions.{number}.")
        ]
        assert not any(changed) if frozen else any(changed)
    assert not torch.equal(network.dense.weight, before["dense.weight"])


@pytest.mark.parametrize("unfrozen", [0, 2])
def test_frozen_stage_gives_what_features_would_have_computed(unfrozen):
    network = VGG16Transfer(VGG16TransferConfig(unfreeze_blocks=unfrozen), SMALL).eval()
    images = torch.rand(3, 1, 32, 32)
    stage = network.frozen_stage()
    encoded = stage(images)
    assert not encoded.requires_grad
    assert torch.equal(network.features(torch.zeros(3, 1, 32, 32), encoded=encoded), network.features(images))
    torch.testing.assert_close(stage(images[1:2]), encoded[1:2], atol=1e-4, rtol=1e-4)
    assert len(network.state_dict()) == 2 + 26 + 2, "asking for the stage leaves the state dict alone"


def test_nothing_frozen_means_no_frozen_stage():
    assert VGG16Transfer(VGG16TransferConfig(unfreeze_blocks=5), SMALL).frozen_stage() is None


def test_published_weights_give_torchvision_s_features(weights, published):
    network = VGG16Transfer(configured(weights=str(weights)), SMALL)
    reference = make_layers(cfgs["D"])
    reference.load_state_dict(
        {key.removeprefix("features."): value for key, value in published.items() if key.startswith("features.")}
    )
    images = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS["imagenet"])
    expected = reference((images.repeat(1, 3, 1, 1) - mean) / std)
    torch.testing.assert_close(network.frozen_stage()(images), expected)
    assert network.notes() == {"weights": "vgg16.pth"}
    assert VGG16Transfer(VGG16TransferConfig(), SMALL).notes() == {"weights": "random"}


def test_a_checkpoint_is_rebuilt_without_the_weights_file(weights):
    config = VGG16TransferConfig(weights=str(weights), normalisation="imagenet_features")
    trained = VGG16Transfer(config, SMALL).eval()
    gone = VGG16TransferConfig(weights="/no/such/file.safetensors")
    with restoring():
        rebuilt = VGG16Transfer(gone, SMALL).eval()
    rebuilt.load_state_dict(trained.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(rebuilt.features(images), trained.features(images))


def test_small_images_are_refused():
    with pytest.raises(ConfigError) as caught:
        VGG16Transfer(VGG16TransferConfig(), ImageSpec(1, 28, 28, 10))
    assert str(caught.value) == (
        "dataset.image_size: images of 28x28 are too small for five poolings\n    set dataset.image_size=32 or larger"
    )


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(DataError) as caught:
        VGG16Transfer(configured(weights=f"{tmp_path}/none.pth"), SMALL)
    assert str(caught.value) == (
        f"architecture.weights={tmp_path}/none.pth: neither a file nor one of IMAGENET1K_V1, IMAGENET1K_FEATURES; "
        "give the path of a .safetensors or .pth file, or leave it out for random weights"
    )


def test_weights_that_cannot_be_fetched_leave_nothing_behind(tmp_path, monkeypatch):
    from torchvision.models import VGG16_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(VGG16_Weights.IMAGENET1K_FEATURES.value, "url", "http://127.0.0.1:9/vgg16.pth")
    with pytest.raises(DataError) as caught:
        VGG16Transfer(VGG16TransferConfig(weights="IMAGENET1K_FEATURES"), SMALL)
    assert str(caught.value) == (
        "architecture.weights=IMAGENET1K_FEATURES: could not be fetched from http://127.0.0.1:9/vgg16.pth; "
        "give the path of a .safetensors or .pth file, or leave it out for random weights"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_cut_short_are_refused(tmp_path, weights, suffix):
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(DataError) as caught:
        VGG16Transfer(configured(weights=str(path)), SMALL)
    message = f"{path}: not a .safetensors or .pth file of tensors, or cut short; fetch it anew"
    assert str(caught.value) == message
    if suffix == ".safetensors":
        with pytest.raises(DataError) as caught:
            VGG16Transfer(VGG16TransferConfig(weights=str(path)), SMALL)
        assert str(caught.value) == message


def test_weights_of_another_network_are_refused(tmp_path, published):
    def message(state):
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(DataError) as caught:
            VGG16Transfer(configured(weights=f"{tmp_path}/other.pth"), SMALL)
        return str(caught.value).removeprefix(f"{tmp_path}/other.pth: ")

    assert message({"layer1.weight": torch.zeros(1)}) == (
        "holds no 'features.0.weight'; these are not weights of VGG16 in torchvision's layout"
    )
    assert message({**published, "features.5.weight": torch.zeros(2, 3)}) == (
        "'features.5.weight' is (2, 3) where VGG16 has (128, 64, 3, 3)"
    )
    assert message([torch.zeros(1)]) == "holds a list, not a state dict"


def test_normalisation_of_a_silent_file_must_be_told(weights):
    with pytest.raises(ConfigError) as caught:
        VGG16Transfer(VGG16TransferConfig(weights=str(weights)), SMALL)
    assert str(caught.value) == (
        f"architecture.normalisation: {weights} does not say how its images were normalised\n"
        "    set it to imagenet or imagenet_features, as torchvision's weights of that name were trained"
    )


@pytest.mark.parametrize("name", ["imagenet", "imagenet_features"])
def test_normalisation_stated_in_a_file_is_used(tmp_path, published, name):
    safetensors = pytest.importorskip("safetensors.torch")
    mean, _ = NORMALISATIONS[name]
    safetensors.save_file(published, tmp_path / "vgg16.safetensors", {"input": f"RGB, mean {mean}"})
    network = VGG16Transfer(VGG16TransferConfig(weights=f"{tmp_path}/vgg16.safetensors"), SMALL)
    torch.testing.assert_close(network.normalise.mean.flatten(), torch.tensor(mean))


@pytest.mark.slow
def test_real_weights_tell_clothes_apart_better_than_random_ones():
    """The nearest training image in the frozen features names the class: with ImageNet's weights more often."""
    path = Path(os.environ.get("TORCHLOOM_DATA", "none")) / "vgg16_imagenet" / "features.safetensors"
    if not path.is_file():
        pytest.skip("needs vgg16_imagenet/features.safetensors under TORCHLOOM_DATA")
    dataset = FashionMNIST(FashionMNISTConfig(image_size=64, train_per_class=10, test_limit=100, download=False))
    try:
        dataset.prepare()
    except DataError as error:
        pytest.skip(str(error))
    train, test = (dataset.split(name).batch(torch.arange(100)) for name in ("train", "test"))
    accuracy = {}
    for weights in (None, str(path)):
        torch.manual_seed(0)
        network = VGG16Transfer(VGG16TransferConfig(weights=weights), dataset.spec)
        stage = network.frozen_stage()
        with torch.no_grad():
            known, asked = (F.normalize(stage(batch["image"]).flatten(1)) for batch in (train, test))
        guess = train["label"][(asked @ known.T).argmax(dim=1)]
        accuracy[network.notes()["weights"]] = (guess == test["label"]).float().mean().item()
    assert accuracy["features.safetensors"] > accuracy["random"] + 0.05
