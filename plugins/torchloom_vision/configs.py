"""Config dataclasses of the image datasets and architectures. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.configs import ArchitectureConfig, DatasetConfig
from torchloom.options import option


@dataclass
class ImageDatasetConfig(DatasetConfig):
    """Fields that every image dataset has."""

    image_size: int = option(28, "Height and width that images are resized to.", ge=1, unit="pixels")
    channels: int = option(1, "1 for grey, 3 for colour; grey images are repeated, colour ones averaged.", ge=1, le=3)
    val: float = option(0.1, "Share of the labelled images, in each class, held out for validation.", gt=0, lt=1)
    split_seed: int = option(0, "Decides which images are held out, and which are kept by train_per_class.", ge=0)
    train_per_class: int | None = option(
        None, "Training images of each class, a fixed subset; all unless given.", ge=1, unit="images"
    )
    test_limit: int | None = option(
        None, "Test images, a fixed subset whatever split_seed; all unless given.", ge=1, unit="images"
    )
    augment: bool = option(False, "Move, turn, zoom and mirror training images at random, anew every epoch.")
    max_shift: float = option(0.1, "Largest shift by augment, as a share of the image's side.", ge=0, lt=1)
    max_rotation: float = option(10.0, "Largest turn by augment, either way.", ge=0, le=180, unit="degrees")
    max_zoom: float = option(0.1, "Largest change of scale by augment, as a share of the size.", ge=0, lt=1)
    mirror: bool = option(False, "Whether augment flips half of the images left to right.")


@dataclass
class DigitsConfig(ImageDatasetConfig):
    """scikit-learn's handwritten digits."""

    test: float = option(0.2, "Share of the images, in each class, held out for the test.", gt=0, lt=1)


@dataclass
class DownloadedConfig(ImageDatasetConfig):
    """Fields of datasets that are fetched once and kept in a folder."""

    path: str | None = option(
        None, "Folder that holds the data; unless given, $TORCHLOOM_DATASETS or else ~/.cache/torchloom."
    )
    download: bool = option(True, "Fetch the data if the folder does not hold it.")


@dataclass
class MNISTConfig(DownloadedConfig):
    """MNIST: 70,000 handwritten digits."""


@dataclass
class FashionMNISTConfig(DownloadedConfig):
    """Fashion-MNIST: 70,000 pieces of clothing."""

    mirror: bool = option(True, "Whether augment flips half of the images left to right.")


@dataclass
class CIFAR10Config(DownloadedConfig):
    """CIFAR-10: 60,000 photographs of ten kinds of thing."""

    image_size: int = option(32, "Height and width that images are resized to.", ge=1, unit="pixels")
    channels: int = option(3, "1 for grey, 3 for colour; grey images are repeated, colour ones averaged.", ge=1, le=3)
    mirror: bool = option(True, "Whether augment flips half of the images left to right.")


@dataclass
class ImageFolderConfig(ImageDatasetConfig):
    """A person's own images, one folder a class."""

    path: str | None = option(
        None, "Folder with one folder of images a class, or with train, val and test folders that hold these."
    )
    image_size: int = option(64, "Height and width that images are resized to.", ge=1, unit="pixels")
    channels: int = option(3, "1 for grey, 3 for colour; grey images are repeated, colour ones averaged.", ge=1, le=3)
    test: float = option(0.2, "Share of the images, in each class, held out if there is no test folder.", gt=0, lt=1)
    mirror: bool = option(True, "Whether augment flips half of the images left to right.")


@dataclass
class CNNConfig(ArchitectureConfig):
    """A plain convolutional network; the defaults are the TensorFlow beginners' tutorial's."""

    channels: list[int] = option(lambda: [32, 64, 64], "Output channels of each convolution.")
    kernel_size: int = option(3, "Side of the convolutions' kernels.", ge=1, unit="pixels")
    padding: Literal["valid", "same"] = option("valid", "Whether a convolution shrinks its image or keeps its size.")
    pool_size: int = option(2, "Side of the max-pooling after every convolution but the last; 1 for none.", ge=1)
    hidden: int = option(64, "Width of the dense layer, and of the features.", ge=1)
    dropout: float = option(0.0, "Probability of dropping an input or an output of the dense layer.", ge=0, lt=1)
    batch_norm: bool = option(False, "Normalise each convolution's output over the batch before its ReLU.")


@dataclass
class TextCNNConfig(ArchitectureConfig):
    """A convolutional network over texts; the defaults are Kim's, but for vectors of words that nobody pre-trained."""

    embedding_dim: int = option(128, "Length of the token vectors.", ge=1)
    kernel_sizes: list[int] = option(
        lambda: [3, 4, 5], "Widths of the kernels.", unit="tokens", source="https://aclanthology.org/D14-1181"
    )
    channels: int = option(
        100, "Output channels of each width's convolution.", ge=1, source="https://aclanthology.org/D14-1181"
    )
    dropout: float = option(
        0.5,
        "Probability of dropping entries of the vector given.",
        ge=0,
        lt=1,
        source="https://aclanthology.org/D14-1181",
    )


@dataclass
class GANConfig:
    """A generator and a discriminator; the defaults are a small pair of dense and pooled networks."""

    latent_dim: int = option(100, "Length of the noise vectors.", ge=1)
    generator: Literal["dense", "transposed"] = option(
        "dense", "Dense layers, or transposed convolutions that double the image's side (DCGAN)."
    )
    hidden: list[int] = option(lambda: [128], "Widths of a dense generator's hidden layers.")
    discriminator: Literal["pooled", "strided"] = option(
        "pooled", "5x5 convolutions with max-pooling, or 4x4 convolutions of stride 2 (DCGAN)."
    )
    channels: list[int] = option(
        lambda: [64, 128],
        "Channels of the discriminator's layers, which halve the image each; a transposed generator mirrors them.",
    )
    discriminator_norm: Literal["none", "batch", "layer"] = option(
        "none",
        "Normalisation of the discriminator's convolutions after the first; not batch with objective.loss=wgan_gp.",
    )
    negative_slope: float = option(0.2, "Slope of LeakyReLU below zero; 0 is ReLU.", ge=0, lt=1)
    init: Literal["torch", "dcgan"] = option(
        "torch", "PyTorch's initialisation, or normal with deviation 0.02 (DCGAN)."
    )


@dataclass
class VGG16TransferConfig:
    """VGG16's convolutions, frozen, under a new dense layer."""

    weights: str | None = option(
        None,
        "Weights of the convolutions: IMAGENET1K_V1 or IMAGENET1K_FEATURES (fetched by torchvision), a .safetensors or "
        ".pth file, or none for random ones.",
    )
    normalisation: Literal["auto", "imagenet", "imagenet_features"] = option(
        "auto",
        "How images are normalised: as for IMAGENET1K_V1, as for IMAGENET1K_FEATURES, or as the weights say they need.",
    )
    unfreeze_blocks: int = option(0, "Last convolution blocks that learn, of five.", ge=0, le=5)
    hidden: int = option(256, "Width of the dense layer, and of the features.", ge=1)
    dropout: float = option(0.0, "Probability of dropping an output of the dense layer.", ge=0, lt=1)
