"""Image datasets and image networks."""

from __future__ import annotations

from torchloom import Component, hookimpl


@hookimpl
def torchloom_components() -> list[Component]:
    """Declare the components of this plugin."""
    return [
        _dataset(
            "digits",
            "Digits",
            "1,797 handwritten digits of 8x8 from scikit-learn; needs no download",
            "Alpaydin and Kaynak 1998",
        ),
        _dataset("mnist", "MNIST", "70,000 handwritten digits of 28x28", "LeCun et al. 1998"),
        _dataset("fashion_mnist", "FashionMNIST", "70,000 pieces of clothing of 28x28", "Xiao et al. 2017"),
        _dataset("cifar10", "CIFAR10", "60,000 colour photographs of 32x32, ten classes", "Krizhevsky 2009"),
        _dataset("image_folder", "ImageFolder", "Your own images, one folder a class"),
        Component(
            kind="architecture",
            name="cnn",
            target="torchloom_vision.cnn:CNN",
            config="torchloom_vision.configs:CNNConfig",
            summary="Convolutions with max-pooling and a dense layer",
            source="TensorFlow tutorial 'Convolutional Neural Network (CNN)'",
        ),
        Component(
            kind="architecture",
            name="text_cnn",
            target="torchloom_vision.text_cnn:TextCNN",
            config="torchloom_vision.configs:TextCNNConfig",
            summary="Convolutions of several widths over a text or a series, each one's largest answer",
            source="Kim 2014, https://aclanthology.org/D14-1181",
        ),
        Component(
            kind="architecture",
            name="gan",
            target="torchloom_vision.gan:GAN",
            config="torchloom_vision.configs:GANConfig",
            summary="Generator and discriminator of images; preset dcgan",
            source="Goodfellow et al. 2014; Radford et al. 2016 (dcgan)",
        ),
        Component(
            kind="architecture",
            name="vgg16_transfer",
            target="torchloom_vision.vgg16:VGG16Transfer",
            config="torchloom_vision.configs:VGG16TransferConfig",
            summary="VGG16's convolutions, pretrained and frozen, with a new dense layer",
            source="Simonyan and Zisserman 2015",
        ),
    ]


def _dataset(name: str, cls: str, summary: str, source: str = "") -> Component:
    return Component(
        kind="dataset",
        name=name,
        target=f"torchloom_vision.datasets:{cls}",
        config=f"torchloom_vision.configs:{cls}Config",
        summary=summary,
        source=source,
    )
