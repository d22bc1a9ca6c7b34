"""What every dataset does; those that need a download are tested where their data is there."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from torchloom import registry
from torchloom.component import Component
from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.contracts.spec import ImageSpec, TokenSpec, spec_from_dict
from torchloom.errors import TorchloomError
from torchloom.testing.support import TEXT, build, default_config, differing, each, load

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
KEY = EpochKey(seed=3, epoch=1)
MOST = 5000
"""Examples that are compared with each other; reading all of a large dataset would take too long."""


def new_dataset(component: Component) -> Dataset:
    """Build a dataset from its defaults, without a download, or skip for its own reason.

    One that reads a person's own files is given some.
    """
    changes: dict[str, Any] = {}
    config = default_config(component)
    if hasattr(config, "download"):
        changes["download"] = False
    elif hasattr(config, "path"):
        changes["path"] = str(own_files("tokenizer" in component.slots))
    dataset = built(component, **changes)
    try:
        dataset.prepare()
    except TorchloomError as error:
        pytest.skip(str(error))
    return dataset


def built(component: Component, **changes: Any) -> Dataset:
    cls = load(component)
    slots = []
    if cls.takes_tokenizer:
        slots.append(build(registry.current().get("tokenizer", component.slots["tokenizer"])))
    dataset: Dataset = cls(default_config(component, **changes), *slots)
    return dataset


@functools.cache
def own_files(text: bool) -> Path:
    """Make a folder of texts, or of images in one folder a class, and return it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if text:
        for number in range(3):
            (folder / f"{number}.txt").write_text(TEXT[number * 20_000 : (number + 1) * 20_000], encoding="utf-8")
        return folder
    noise = torch.randint(256, (3, 20, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for label, images in zip("abc", noise, strict=True):
        (folder / label).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.numpy()).save(folder / label / f"{number}.png")
    return folder


@functools.cache
def dataset_of(component: Component) -> Dataset:
    """Return one dataset for all tests that do not change it."""
    return new_dataset(component)


def first(split: Split, count: int, key: EpochKey | None = None) -> Batch:
    return split.batch(torch.arange(min(count, len(split))), key)


def copies(one: Split, other: Split) -> float:
    """Return the share of another split's examples that stand in one split, whatever their labels."""
    ones, others = first(one, MOST), first(other, MOST)
    if "image" in ones:
        held = {row.numpy().tobytes() for row in ones["image"]}
        return sum(row.numpy().tobytes() in held for row in others["image"]) / len(others["image"])
    stream = written(ones["tokens"][:, :-1].flatten())  # windows that follow each other give the text itself
    return sum(written(row) in stream for row in others["tokens"]) / len(others["tokens"])


def written(ids: Tensor) -> str:
    return "".join(map(chr, ids.tolist()))


@each("dataset")
class TestDataset:
    """Splits, batches and what the spec says of them."""

    def test_takes_a_tokenizer_where_it_opens_the_group(self, component: Component) -> None:
        assert load(component).takes_tokenizer == ("tokenizer" in component.slots)

    def test_splits_hold_examples(self, component: Component) -> None:
        dataset = dataset_of(component)
        assert all(len(dataset.split(name)) > 0 for name in SPLITS)

    def test_spec_travels_as_plain_values(self, component: Component) -> None:
        spec = dataset_of(component).spec
        assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    def test_batches_are_what_the_spec_says(self, component: Component) -> None:
        dataset = dataset_of(component)
        spec = dataset.spec
        for name in SPLITS:
            batch = first(dataset.split(name), 16, KEY if name == "train" else None)
            assert all(len(value) == 16 or len(value) == len(dataset.split(name)) for value in batch.values())
            if isinstance(spec, ImageSpec):
                images = batch["image"]
                assert images.dtype == torch.float32
                assert images.shape[1:] == (spec.channels, spec.height, spec.width)
                assert images.min() >= 0
                assert images.max() <= 1
                assert len(spec.classes) in (0, spec.num_classes)
                if spec.num_classes:
                    assert batch["label"].dtype == torch.int64
                    assert batch["label"].min() >= 0
                    assert batch["label"].max() < spec.num_classes
            elif isinstance(spec, TokenSpec):
                tokens = batch["tokens"]
                assert tokens.dtype == torch.int64
                assert tokens.shape[1] == spec.context_length + 1
                assert tokens.min() >= 0
                assert tokens.max() < spec.vocab_size

    def test_loading_again_gives_the_same(self, component: Component) -> None:
        one, other = dataset_of(component), new_dataset(component)
        assert one.spec == other.spec
        for name in SPLITS:
            assert len(one.split(name)) == len(other.split(name))
            key = KEY if name == "train" else None
            assert list(differing(first(one.split(name), 64, key), first(other.split(name), 64, key))) == []

    def test_an_example_does_not_hang_on_its_batch(self, component: Component) -> None:
        train = dataset_of(component).split("train")
        indices = torch.tensor([len(train) - 1, 0, len(train) // 2])
        together = train.batch(indices, KEY)
        for row, index in enumerate(indices):
            alone = train.batch(index[None], KEY)
            assert list(differing({name: value[row : row + 1] for name, value in together.items()}, alone)) == []

    def test_evaluation_is_not_random(self, component: Component) -> None:
        for name in SPLITS[1:]:
            split = dataset_of(component).split(name)
            assert list(differing(first(split, 16), first(split, 16))) == []

    def test_only_an_augmented_split_changes_with_the_epoch(self, component: Component) -> None:
        train = dataset_of(component).split("train")
        if train.augmented or isinstance(dataset_of(component).spec, TokenSpec):
            pytest.skip("its training examples differ from epoch to epoch")
        assert list(differing(first(train, 16, KEY), first(train, 16, EpochKey(KEY.seed, KEY.epoch + 1)))) == []

    def test_no_example_stands_in_two_splits(self, component: Component) -> None:
        dataset = dataset_of(component)
        # Text repeats itself here and there, so that a window of it may too.
        allowed = 0.05 if isinstance(dataset.spec, TokenSpec) else 0.0
        for one, other in itertools.combinations(SPLITS, 2):
            share = copies(dataset.split(one), dataset.split(other))
            assert share <= allowed, f"{share:.1%} of the examples of {other} stand in {one} too"

    def test_missing_data_is_an_error_that_names_the_place(self, component: Component) -> None:
        config = default_config(component)
        if not hasattr(config, "path") or hasattr(config, "download"):
            pytest.skip("reads no files of a person's own")
        with pytest.raises(TorchloomError, match="/no/such/place"):
            built(component, path="/no/such/place").prepare()
