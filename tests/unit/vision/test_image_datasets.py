"""Image datasets: what a batch holds, splits, subsets, augmentation, a person's own files, and every error."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchloom.contracts.dataset import EpochKey
from torchloom.contracts.spec import ImageSpec
from torchloom.errors import ConfigError, DataError
from torchloom_vision.configs import (
    CIFAR10Config,
    DigitsConfig,
    FashionMNISTConfig,
    ImageFolderConfig,
    MNISTConfig,
)
from torchloom_vision.datasets import CIFAR10, MNIST, Digits, FashionMNIST, ImageFolder, read_idx

SPLITS = ("train", "val", "test")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def everything(split):
    return split.batch(torch.arange(len(split)))


def rows(split):
    return {image.numpy().tobytes() for image in everything(split)["image"]}


def write_idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist_folder(tmp_path):
    """A folder of 200 + 40 images in MNIST's files; one training image is a copy of a test image."""
    rng = np.random.default_rng(0)
    images, tests = (rng.integers(0, 256, (n, 28, 28)) for n in (200, 40))
    images[7] = tests[3]
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(200) % 10)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", tests)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(40) % 10)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """A folder of 12 cats and 15 dogs, in colour and of unequal size; two of the cats are copies of a third."""
    rng = np.random.default_rng(0)
    for name, count in (("cat", 12), ("dog", 15)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    for number in (1, 2):
        (tmp_path / "cat" / f"{number}.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    return tmp_path


def test_digits_are_what_the_spec_says():
    dataset = Digits(DigitsConfig())
    assert dataset.spec == ImageSpec(1, 28, 28, 10, tuple("0123456789"))
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 1259, "val": 179, "test": 359}
    batch = everything(dataset.split("train"))
    assert batch["image"].shape == (1259, 1, 28, 28)
    assert batch["image"].dtype == torch.float32
    assert batch["image"].min() == 0
    assert batch["image"].max() == 1
    assert batch["label"].dtype == torch.int64
    assert batch["label"].unique().tolist() == list(range(10))


def test_digits_splits_are_disjoint_whole_and_the_same_every_time():
    dataset = Digits(DigitsConfig(image_size=8))
    held = [rows(dataset.split(name)) for name in SPLITS]
    assert sum(map(len, held)) == len(set.union(*held)) == 1797
    again = Digits(DigitsConfig(image_size=8))
    for name in SPLITS:
        one, two = everything(dataset.split(name)), everything(again.split(name))
        assert all(torch.equal(one[key], two[key]) for key in one)
    other = Digits(DigitsConfig(image_size=8, split_seed=1))
    assert rows(other.split("test")) != held[2]


def test_digits_at_their_own_size_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    split = Digits(DigitsConfig(image_size=8)).split("test")
    known = {
        (image / 16).astype(np.float32).tobytes(): label
        for image, label in zip(*load_digits(return_X_y=True), strict=False)
    }
    batch = everything(split)
    assert [known[image.numpy().tobytes()] for image in batch["image"]] == batch["label"].tolist()


def test_few_training_images_and_fewer_test_images():
    dataset = Digits(DigitsConfig(train_per_class=10, test_limit=100))
    assert everything(dataset.split("train"))["label"].bincount().tolist() == [10] * 10
    assert len(dataset.split("test")) == 100
    assert rows(dataset.split("test")) < rows(Digits(DigitsConfig()).split("test"))
    assert rows(dataset.split("train")) < rows(Digits(DigitsConfig()).split("train"))


def test_more_training_images_than_there_are_is_refused():
    with pytest.raises(ConfigError) as caught:
        Digits(DigitsConfig(train_per_class=500)).split("train")
    assert str(caught.value) == (
        "dataset.train_per_class: class '8' has 122 training images, fewer than the 500 asked for\n"
        "    set it to 122 or less"
    )


def test_contradicting_fields_are_refused_together():
    with pytest.raises(ConfigError) as caught:
        Digits(DigitsConfig(channels=2, val=0.6, test=0.5))
    assert str(caught.value) == (
        "2 problems in the configuration:\n"
        "  dataset.channels: 2 is neither grey nor colour\n"
        "    set it to 1 or 3\n"
        "  dataset.val: val=0.6 and test=0.5 leave nothing to train on\n"
        "    lower one of them"
    )


def test_channels_are_repeated():
    image = everything(Digits(DigitsConfig(channels=3, test_limit=5)).split("test"))["image"]
    assert image.shape == (5, 3, 28, 28)
    assert torch.equal(image[:, 0], image[:, 2])


def test_augmentation_depends_on_seed_epoch_and_index_alone_and_spares_evaluation():
    config = DigitsConfig(augment=True, mirror=True)
    dataset, plain = Digits(config), Digits(DigitsConfig())
    train = dataset.split("train")
    assert train.augmented
    assert not dataset.split("test").augmented
    indices = torch.tensor([3, 70, 4])
    one = train.batch(indices, EpochKey(0, 1))["image"]
    assert torch.equal(one[1:2], train.batch(indices[1:2], EpochKey(0, 1))["image"])
    for other in (EpochKey(0, 2), EpochKey(1, 1)):
        assert not torch.equal(one, train.batch(indices, other)["image"])
    assert torch.equal(train.batch(indices)["image"], plain.split("train").batch(indices)["image"])
    assert torch.equal(
        dataset.split("val").batch(indices, EpochKey(0, 1))["image"], plain.split("val").batch(indices)["image"]
    )


def test_augmentation_without_strength_changes_nothing_but_the_mirror():
    still = {"augment": True, "max_shift": 0.0, "max_rotation": 0.0, "max_zoom": 0.0}
    indices, key = torch.arange(100), EpochKey(0, 0)
    plain = Digits(DigitsConfig()).split("train").batch(indices)["image"]
    unmoved = Digits(DigitsConfig(**still)).split("train").batch(indices, key)["image"]
    torch.testing.assert_close(unmoved, plain, atol=1e-5, rtol=0)
    mirrored = Digits(DigitsConfig(**still, mirror=True)).split("train").batch(indices, key)["image"]
    flipped = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(mirrored, plain, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(mirrored, plain, strict=True)]
    assert all(a or b for a, b in zip(flipped, kept, strict=True))
    assert 30 < sum(flipped) < 70


def test_big_sets_stay_bytes_and_read_the_same(mnist_folder, monkeypatch):
    config = MNISTConfig(path=str(mnist_folder), image_size=20, channels=3)
    floats = MNIST(config).split("train")
    monkeypatch.setattr("torchloom_vision.images.CONVERTED_LIMIT", 0)
    lean = MNIST(config).split("train")
    assert (floats.images.dtype, lean.images.dtype) == (torch.float32, torch.uint8)
    indices = torch.tensor([5, 0, 100])
    assert torch.equal(floats.batch(indices)["image"], lean.batch(indices)["image"])


def test_mnist_files_are_read_and_copies_of_test_images_left_out(mnist_folder):
    dataset = MNIST(MNISTConfig(path=str(mnist_folder), download=False))
    dataset.prepare()
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 179, "val": 20, "test": 40}
    held = [rows(dataset.split(name)) for name in SPLITS]
    assert sum(map(len, held)) == len(set.union(*held)) == 239
    raw = read_idx(mnist_folder / "t10k-images-idx3-ubyte.gz")
    np.testing.assert_array_equal((everything(dataset.split("test"))["image"] * 255).round()[:, 0], raw)


def test_test_subset_is_the_same_whatever_the_split_seed(mnist_folder):
    one, two = (
        MNIST(MNISTConfig(path=str(mnist_folder), test_limit=9, train_per_class=3, split_seed=seed)) for seed in (0, 1)
    )
    assert rows(one.split("test")) == rows(two.split("test"))
    assert rows(one.split("train")) != rows(two.split("train"))


def test_missing_mnist_is_refused(tmp_path):
    with pytest.raises(DataError) as caught:
        MNIST(MNISTConfig(path=str(tmp_path / "none"), download=False)).prepare()
    assert str(caught.value) == (
        f"{tmp_path}/none: holds no MNIST, and dataset.download=false. "
        "Put its four files, train-images-idx3-ubyte.gz and so on, there."
    )
    assert not (tmp_path / "none").exists()


def test_unreachable_mirrors_leave_nothing_behind(tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(FashionMNIST, "elsewhere", ())
    monkeypatch.setenv("TORCHLOOM_DATASETS", str(tmp_path))
    with pytest.raises(DataError) as caught:
        FashionMNIST(FashionMNISTConfig()).prepare()
    assert str(caught.value) == (
        f"{tmp_path}: holds no Fashion-MNIST, and it could not be fetched. On Debian, "
        "`apt-get install dataset-fashion-mnist`; else put train-images-idx3-ubyte.gz and so on there."
    )
    assert list(tmp_path.iterdir()) == []


def test_unreachable_cifar10_leaves_nothing_behind(tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError) as caught:
        CIFAR10(CIFAR10Config(path=str(tmp_path))).prepare()
    assert str(caught.value) == (
        f"{tmp_path}: holds no CIFAR-10, and it could not be fetched. Unpack cifar-10-python.tar.gz there."
    )
    assert list(tmp_path.iterdir()) == []


def test_corrupt_cifar10_is_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"nonsense")
    dataset = CIFAR10(CIFAR10Config(path=str(tmp_path)))
    dataset.prepare()
    with pytest.raises(DataError) as caught:
        dataset.split("train")
    assert str(caught.value) == (
        f"{tmp_path}/cifar-10-batches-py: a file is missing or corrupt; remove the folder to fetch it anew"
    )


def test_cifar10_s_own_files_are_read(tmp_path, monkeypatch):
    import hashlib
    import pickle

    import torchvision

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    sums = {}
    pixels = {}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        pixels[name] = rng.integers(0, 256, (20, 3072), np.uint8)
        content = {"data": pixels[name], "labels": [n % 10 for n in range(20)], "label_names": list(CIFAR10.classes)}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    vision = torchvision.datasets.CIFAR10
    monkeypatch.setattr(vision, "train_list", [[name, sums[name]] for name in sums if name.startswith("data")])
    monkeypatch.setattr(vision, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(vision, "meta", {**vision.meta, "md5": sums["batches.meta"]})
    dataset = CIFAR10(CIFAR10Config(path=str(tmp_path)))
    dataset.prepare()
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 90, "val": 10, "test": 20}
    assert dataset.spec == ImageSpec(3, 32, 32, 10, CIFAR10.classes)
    images = everything(dataset.split("test"))["image"]
    np.testing.assert_array_equal((images * 255).round().flatten(1), pixels["test_batch"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-5], "cut short or corrupt; remove it and fetch it anew"),
        (lambda data: data[:20] + bytes(40) + data[60:], "cut short or corrupt; remove it and fetch it anew"),
        (lambda data: b"GIF89a", "cut short or corrupt; remove it and fetch it anew"),
        (lambda data: gzip.compress(b"no images"), "not an IDX file of bytes"),
        (lambda data: gzip.compress(b""), "not an IDX file of bytes"),
        (
            lambda data: gzip.compress(gzip.decompress(data)[:-1]),
            "holds 31,359 bytes where its head promises 31,360; fetch it anew",
        ),
    ],
)
def test_spoilt_idx_files_are_named(mnist_folder, spoil, message):
    path = mnist_folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        MNIST(MNISTConfig(path=str(mnist_folder))).split("test")
    assert str(caught.value) == f"{path}: {message}"


def test_labels_that_do_not_match_their_images_are_refused(mnist_folder):
    write_idx(mnist_folder / "train-labels-idx1-ubyte.gz", np.arange(199) % 10)
    with pytest.raises(DataError) as caught:
        MNIST(MNISTConfig(path=str(mnist_folder))).split("train")
    assert str(caught.value) == (
        f"{mnist_folder}/train-labels-idx1-ubyte: 199 labels for 200 images; fetch the files anew"
    )


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debian_s_fashion_mnist_is_found_without_a_download(tmp_path):
    dataset = FashionMNIST(FashionMNISTConfig(path=str(tmp_path), download=False))
    dataset.prepare()
    sizes = {name: len(dataset.split(name)) for name in SPLITS}
    assert sizes["test"] == 10_000
    assert 59_900 < sizes["train"] + sizes["val"] <= 60_000
    assert dataset.split("train").images.dtype == torch.uint8
    held = [{image.numpy().tobytes() for image in dataset.split(name).images} for name in SPLITS]
    assert not held[0] & held[1]
    assert not (held[0] | held[1]) & held[2]


def test_own_images_are_read_as_the_dataset_s(tmp_path):
    dataset = Digits(DigitsConfig())
    images = everything(dataset.split("test"))["image"][:3]
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()).save(path)
    batch = everything(dataset.read(paths))
    assert set(batch) == {"image"}
    torch.testing.assert_close(batch["image"], images, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_every_mode_keep_their_brightness(tmp_path, mode):
    grey = np.full((40, 30), 255 if mode == "1" else 153, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / f"image.{'tiff' if mode in ('CMYK', 'F') else 'png'}"
    image.save(path)
    read = everything(Digits(DigitsConfig()).read([str(path)]))["image"]
    assert read.shape == (1, 1, 28, 28)
    expected = 1.0 if mode == "1" else 0.6
    assert (read - expected).abs().max() < 0.01


def test_an_own_image_that_is_missing_or_spoilt_is_named(tmp_path):
    dataset = Digits(DigitsConfig())
    with pytest.raises(DataError) as caught:
        dataset.read([str(tmp_path / "seven.png")])
    assert str(caught.value) == f"{tmp_path}/seven.png: there is no such image file"
    (tmp_path / "note.png").write_text("not a picture")
    with pytest.raises(DataError) as caught:
        everything(dataset.read([str(tmp_path / "note.png")]))
    assert str(caught.value) == (
        f"{tmp_path}/note.png: not an image that can be read, or cut short; replace or remove the file"
    )


def test_image_folder_is_divided_with_copies_together(folder):
    dataset = ImageFolder(ImageFolderConfig(path=str(folder)))
    dataset.prepare()
    assert dataset.spec == ImageSpec(3, 64, 64, 2, ("cat", "dog"))
    splits = {name: dataset.split(name) for name in SPLITS}
    assert sum(map(len, splits.values())) == 27
    held = [{path.read_bytes() for path in split.paths} for split in splits.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == 25
    for split in splits.values():
        batch = everything(split)
        assert batch["image"].shape[1:] == (3, 64, 64)
        assert [path.parent.name for path in split.paths] == [("cat", "dog")[label] for label in batch["label"]]


def test_image_folder_augments_training_alone(folder):
    dataset = ImageFolder(ImageFolderConfig(path=str(folder), augment=True))
    train = dataset.split("train")
    assert train.augmented
    assert not dataset.split("val").augmented
    indices = torch.tensor([2, 0])
    one = train.batch(indices, EpochKey(0, 0))["image"]
    assert torch.equal(one, train.batch(indices.flip(0), EpochKey(0, 0))["image"].flip(0))
    assert not torch.equal(one, train.batch(indices, EpochKey(0, 1))["image"])


def test_given_folders_are_the_splits(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    for name in ("cat", "dog"):
        files = sorted((folder / name).iterdir())
        for split, part in (("train", files[3:]), ("test", files[:3])):
            (root / split / name).mkdir(parents=True)
            for file in part:
                (root / split / name / file.name).write_bytes(file.read_bytes())
    leak = (root / "test" / "dog" / "0.png").read_bytes()
    (root / "train" / "dog" / "leak.png").write_bytes(leak)
    dataset = ImageFolder(ImageFolderConfig(path=str(root)))
    # 22 for training, less the leak above and the third copy of a cat that stands in the test folder.
    assert {name: len(dataset.split(name)) for name in SPLITS} == {"train": 18, "val": 2, "test": 6}
    assert all(path.name != "leak.png" for name in ("train", "val") for path in dataset.split(name).paths)


def test_an_image_that_is_cut_short_is_named(folder):
    dataset = ImageFolder(ImageFolderConfig(path=str(folder)))
    path = dataset.split("train").paths[4]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        dataset.split("train").batch(torch.arange(6))
    assert str(caught.value) == f"{path}: not an image that can be read, or cut short; replace or remove the file"


def test_folders_that_cannot_be_used_are_named(tmp_path):
    def message(path):
        with pytest.raises(DataError) as caught:
            ImageFolder(ImageFolderConfig(path=path)).prepare()
        return str(caught.value)

    assert message(None) == "dataset.path: image_folder needs a folder of images; set dataset.path=FOLDER"
    assert message(f"{tmp_path}/none") == (
        f"{tmp_path}/none: there is no such folder; set dataset.path to one that holds a folder a class"
    )
    assert message(str(tmp_path)) == (
        f"{tmp_path}: holds no class folders; put the images into one folder a class, two or more"
    )
    (tmp_path / "cat").mkdir()
    assert message(str(tmp_path)) == (
        f"{tmp_path}: holds only one class folder, 'cat'; put the images into one folder a class, two or more"
    )
    (tmp_path / "dog").mkdir()
    assert message(str(tmp_path)) == (
        f"{tmp_path}/cat: holds no images (.bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp)"
    )
    for name in ("train/cat", "train/dog", "test/cow"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name / "1.png")
    assert message(str(tmp_path)) == f"{tmp_path}/test/cow: class 'cow' has no folder in {tmp_path}/train"
