"""VGG16's convolutions, frozen, under a new dense layer."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from torchloom.contracts.architecture import Architecture, is_restoring
from torchloom.contracts.attention import Attention
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_vision.configs import VGG16TransferConfig

SMALLEST = 32
"""Side of the smallest image that five poolings leave a pixel of."""

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_features": ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
}
"""Mean and deviation of red, green and blue that torchvision's IMAGENET1K_V1 and IMAGENET1K_FEATURES expect."""

_NAMED = {"IMAGENET1K_V1": "imagenet", "IMAGENET1K_FEATURES": "imagenet_features"}


class VGG16Transfer(Architecture):
    """The 13 convolutions of VGG16 in five blocks, then Flatten and a dense layer with ReLU.

    The blocks before the last ``unfreeze_blocks`` are frozen, in their parameters and in evaluation mode. In the state
    dict torchvision's ``features.N.weight`` is ``convolutions.BLOCK.N.weight``. Under a head of ten classes, at 224
    pixels, there are 21,140,042 parameters.

    Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    configuration D.
    """

    protocols = frozenset({"features"})
    accepts = (ImageSpec,)

    def __init__(self, config: VGG16TransferConfig, spec: ImageSpec, attention: Attention | None = None) -> None:
        super().__init__(config, spec)
        if min(spec.height, spec.width) < SMALLEST:
            message = f"images of {spec.height}x{spec.width} are too small for five poolings"
            raise ConfigError([Problem("dataset.image_size", message, f"set dataset.image_size={SMALLEST} or larger")])
        self.normalise = _Normalise(*NORMALISATIONS[_normalisation(config)])
        self.convolutions = _blocks()
        flat = 512 * (spec.height // SMALLEST) * (spec.width // SMALLEST)
        self.dense = nn.Linear(flat, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.width = config.hidden
        self._num_frozen = len(self.convolutions) - config.unfreeze_blocks
        if config.weights is not None and not is_restoring():
            _load(self.convolutions, _read_weights(config.weights), config.weights)
        self._frozen_blocks().requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what learns; the frozen blocks stay in evaluation mode."""
        super().train(mode)
        self._frozen_blocks().eval()
        return self

    def features(self, inputs: Tensor, *, lengths: Tensor | None = None, encoded: Tensor | None = None) -> Tensor:
        """Map images to ``(batch, hidden)``."""
        if encoded is None:
            encoded = self.normalise(inputs)
            for block in self.convolutions[: self._num_frozen]:
                encoded = block(encoded)
        for block in self.convolutions[self._num_frozen :]:
            encoded = block(encoded)
        vectors: Tensor = self.dropout(F.relu(self.dense(encoded.flatten(1))))
        return vectors

    def frozen_stage(self) -> nn.Module | None:
        """Return the normalisation and the frozen blocks, sharing their parameters; None if no block is frozen."""
        if self._num_frozen == 0:
            return None
        return nn.Sequential(self.normalise, *self._frozen_blocks()).eval()

    def blocks(self) -> Sequence[nn.Module]:
        """Return the five blocks of convolutions."""
        return list(self.convolutions)

    def notes(self) -> dict[str, str]:
        """Say where the convolutions' weights came from."""
        weights = self.config.weights
        if weights is None:
            return {"weights": "random"}
        return {"weights": weights if weights in _NAMED else Path(weights).name}

    def _frozen_blocks(self) -> nn.ModuleList:
        return self.convolutions[: self._num_frozen]


class _Normalise(nn.Module):
    """Images in ``[0, 1]``, grey or in colour, to ``(batch, 3, height, width)`` as the convolutions were trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # In the state dict, for they belong to the weights: a checkpoint is rebuilt without the file that named them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def _blocks() -> nn.ModuleList:
    """Return configuration D in five blocks, each ending in its pooling; a layer keeps torchvision's number."""
    blocks = nn.ModuleList()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(make_layers(cfgs["D"])):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.constant_(layer.get_parameter("bias"), 0.0)
        layers[str(number)] = layer
        if isinstance(layer, nn.MaxPool2d):
            blocks.append(nn.Sequential(layers))
            layers = OrderedDict()
    return blocks


def _load(convolutions: nn.ModuleList, state: dict[str, Tensor], source: str) -> None:
    wanted = convolutions.state_dict()
    for key, tensor in wanted.items():
        published = f"features.{key.partition('.')[2]}"
        if published not in state:
            raise DataError(f"{source}: holds no {published!r}; these are not weights of VGG16 in torchvision's layout")
        if state[published].shape != tensor.shape:
            shapes = f"{tuple(state[published].shape)} where VGG16 has {tuple(tensor.shape)}"
            raise DataError(f"{source}: {published!r} is {shapes}")
        wanted[key] = state[published]
    convolutions.load_state_dict(wanted)


def _read_weights(source: str) -> dict[str, Tensor]:
    """Return a state dict under torchvision's keys, fetched by name or read from a file."""
    if source in _NAMED:
        try:
            return dict(VGG16_Weights[source].get_state_dict(progress=True, check_hash=True))
        except (URLError, OSError, RuntimeError) as error:
            raise DataError(
                f"architecture.weights={source}: could not be fetched from {VGG16_Weights[source].url}; "
                "give the path of a .safetensors or .pth file, or leave it out for random weights"
            ) from error
    path = _existing(source)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors, and every one means the same here
        raise _unreadable(path) from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return state


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise DataError(
            f"architecture.weights={source}: neither a file nor one of {', '.join(_NAMED)}; "
            "give the path of a .safetensors or .pth file, or leave it out for random weights"
        )
    return path


def _normalisation(config: VGG16TransferConfig) -> str:
    """Return the name of the normalisation, taken from the weights if the config leaves it to them."""
    if config.normalisation != "auto":
        return config.normalisation
    if config.weights is None or is_restoring():
        return "imagenet"
    if config.weights in _NAMED:
        return _NAMED[config.weights]
    stated = _metadata(_existing(config.weights))
    for name, (mean, _) in NORMALISATIONS.items():
        if re.search(rf"\b{re.escape(str(mean[0]))}\b", stated):
            return name
    message = f"{config.weights} does not say how its images were normalised"
    mend = f"set it to {' or '.join(NORMALISATIONS)}, as torchvision's weights of that name were trained"
    raise ConfigError([Problem("architecture.normalisation", message, mend)])


def _metadata(path: Path) -> str:
    """Return what a .safetensors file says about itself; nothing for other files."""
    if path.suffix != ".safetensors":
        return ""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return " ".join((file.metadata() or {}).values())
    except (OSError, SafetensorError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> DataError:
    return DataError(f"{path}: not a .safetensors or .pth file of tensors, or cut short; fetch it anew")
