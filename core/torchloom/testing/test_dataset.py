"""What every dataset does; those that need a download are tested where their data is there."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import shutil
import tempfile
import wave
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from torchloom import registry
from torchloom.component import Component
from torchloom.contracts.dataset import Batch, Dataset, EpochKey, Split, SplitName
from torchloom.contracts.spec import (
    ChatSpec,
    ImageSpec,
    LabelledTextSpec,
    QuestionSpec,
    SentencePairSpec,
    Seq2SeqSpec,
    SeriesSpec,
    Spec,
    TokenSpec,
    spec_from_dict,
)
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import TorchloomError
from torchloom.testing.support import TEXT, default_config, differing, each, load

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
KEY = EpochKey(seed=3, epoch=1)
MOST = 5000
"""Examples that are compared with each other; reading all of a large dataset would take too long."""


def new_dataset(component: Component) -> Dataset:
    """Build a dataset from its defaults, without a download, or skip for its own reason.

    One that cannot do without a person's own files is given some.
    """
    config = default_config(component)
    downloads = hasattr(config, "download")
    try:
        return prepared(component, **({"download": False} if downloads else {}))
    except TorchloomError as error:
        if downloads or not hasattr(config, "path"):
            pytest.skip(str(error))
    try:
        return prepared(component, path=str(own_files("tokenizer" in component.slots)))
    except TorchloomError as error:
        pytest.skip(str(error))


def prepared(component: Component, **changes: Any) -> Dataset:
    dataset = built(component, **changes)
    dataset.prepare()
    return dataset


def built(component: Component, **changes: Any) -> Dataset:
    cls = load(component)
    slots = [tokenizer_for(component)] if cls.takes_tokenizer else []
    dataset: Dataset = cls(default_config(component, **changes), *slots)
    return dataset


def tokenizer_for(component: Component) -> Tokenizer:
    """Build the tokenizer that a dataset opens its group with, with all special tokens, which some datasets need."""
    chosen = registry.current().get("tokenizer", component.slots["tokenizer"])
    special = {"special_tokens": ["pad", "unk", "bos", "eos", "mask", "cls", "sep"]}
    config = default_config(chosen, **(special if hasattr(default_config(chosen), "special_tokens") else {}))
    tokenizer: Tokenizer = load(chosen)(config)
    return tokenizer


@functools.cache
def own_files(text: bool) -> Path:
    """Make a folder of texts, tables and questions, or of images and sounds in one folder a class, and return it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if text:
        for number in range(3):
            (folder / f"{number}.txt").write_text(TEXT[number * 20_000 : (number + 1) * 20_000], encoding="utf-8")
        write_tables(folder)
        return folder
    noise = torch.randint(256, (3, 20, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for label, images in zip("abc", noise, strict=True):
        (folder / label).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.numpy()).save(folder / label / f"{number}.png")
            with wave.open(str(folder / label / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes(image.numpy().tobytes() * 8)
    return folder


def write_tables(folder: Path) -> None:
    """Write a table and a file of questions for each split; the table has columns for all usual tasks."""
    lines = list(dict.fromkeys(" ".join(line.split()) for line in TEXT.split("\n") if len(line.split()) > 3))
    bounds = {"train": (0, 3000), "dev": (3000, 3200), "test": (3200, 3400)}
    for name, (start, stop) in bounds.items():
        rows, articles = [], []
        for number, (one, two) in enumerate(zip(lines[start:stop], lines[start + 1 : stop], strict=False)):
            texts = {"text": one, "sentence1": one, "sentence2": two, "source": one, "target": two}
            turns = [{"role": "user", "content": one}, {"role": "assistant", "content": two}]
            rows.append(json.dumps({**texts, "label": number % 3, "messages": turns}) + "\n")
            word = one.split()[number % 3]
            answer = {"text": word, "answer_start": one.index(word)}
            question = {"id": str(number), "question": f"Which word is number {number}?", "answers": [answer]}
            articles.append({"paragraphs": [{"context": one, "qas": [question]}]})
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps({"data": articles}), encoding="utf-8")


@functools.cache
def dataset_of(component: Component) -> Dataset:
    """Return one dataset for all tests that do not change it."""
    return new_dataset(component)


def first(split: Split, count: int, key: EpochKey | None = None) -> Batch:
    return split.batch(torch.arange(min(count, len(split))), key)


def copies(one: Split, other: Split) -> float:
    """Return the share of another split's examples that stand in one split, whatever their labels."""
    ones, others = first(one, MOST), first(other, MOST)
    if "tokens" in ones and "length" not in first(one, 1):
        stream = written(ones["tokens"][:, :-1].flatten())  # windows that follow each other give the text itself
        return sum(written(row) in stream for row in others["tokens"]) / len(others["tokens"])
    name = next(name for name in ("image", "series", "source", "tokens") if name in ones)
    held = {trimmed(row) for row in ones[name]}
    return sum(trimmed(row) in held for row in others[name]) / len(others[name])


def trimmed(row: Tensor) -> bytes:
    """Return an example's values without what fills it up, which hangs on the batch."""
    return row.numpy().tobytes().rstrip(b"\0")


def cropped(rows: Tensor, shape: torch.Size) -> Tensor:
    """Cut off what fills rows up beyond a shape, which must be the same throughout."""
    for dim, size in enumerate(shape[1:], 1):
        kept, rest = rows.narrow(dim, 0, size), rows.narrow(dim, size, rows.shape[dim] - size)
        assert len(rest.unique()) <= 1, f"more than padding is cut off from {rows.shape} to {shape}"
        rows = kept
    return rows


def written(ids: Tensor) -> str:
    return "".join(map(chr, ids.tolist()))


def check_batch(batch: Batch, spec: Spec) -> None:
    """Assert that a batch is as its spec's docstring says."""
    if "label" in batch:
        classes = getattr(spec, "num_classes", 2)
        assert batch["label"].dtype == torch.int64
        assert 0 <= batch["label"].min() <= batch["label"].max() < classes
        assert len(getattr(spec, "classes", ())) in (0, classes)
    if isinstance(spec, ImageSpec):
        images = batch["image"]
        assert images.dtype == torch.float32
        assert images.shape[1:] == (spec.channels, spec.height, spec.width)
        assert 0 <= images.min() <= images.max() <= 1
        assert "label" in batch or not spec.num_classes
    elif isinstance(spec, SeriesSpec):
        assert batch["series"].dtype == torch.float32
        assert batch["series"].shape[1] <= spec.context_length
        assert batch["series"].shape[2] == spec.channels
        assert ("future" in batch, "label" in batch) == (spec.horizon > 0, spec.num_classes > 0)
        if spec.horizon:
            assert batch["future"].shape[1:] == (spec.horizon, spec.channels)
        check_lengths(batch, "series", "length")
    elif isinstance(spec, Seq2SeqSpec):
        check_ids(batch["source"], spec.vocab_size, spec.source_length)
        check_ids(batch["target"], spec.vocab_size, spec.target_length + 1)
        check_lengths(batch, "source", "source_length")
        check_lengths(batch, "target", "target_length")
        last = batch["target"].gather(1, batch["target_length"][:, None] - 1)
        assert set(batch["target"][:, 0].tolist()) == {spec.pad_id if spec.bos_id is None else spec.bos_id}
        assert set(last.flatten().tolist()) == {spec.eos_id}
    elif isinstance(spec, LabelledTextSpec | SentencePairSpec | QuestionSpec):
        check_ids(batch["tokens"], spec.vocab_size, spec.context_length)
        check_lengths(batch, "tokens", "length")
        pairs = getattr(spec, "pairs", True)
        assert ("segments" in batch) == pairs
        if pairs:
            assert batch["segments"].shape == batch["tokens"].shape
            assert set(batch["segments"].unique().tolist()) == {0, 1}
        if isinstance(spec, QuestionSpec):
            check_answers(batch)
        else:
            assert "label" in batch
    elif isinstance(spec, ChatSpec):
        check_ids(batch["tokens"], spec.vocab_size, spec.context_length + 1)
        check_lengths(batch, "tokens", "length")
        assert batch["answer"].dtype == torch.bool
        assert batch["answer"].shape == batch["tokens"].shape
        assert batch["answer"].any(dim=1).all()
    elif isinstance(spec, TokenSpec):
        check_ids(batch["tokens"], spec.vocab_size, spec.context_length + 1)
        assert batch["tokens"].shape[1] == spec.context_length + 1


def check_ids(tokens: Tensor, vocab_size: int, most: int) -> None:
    assert tokens.dtype == torch.int64
    assert tokens.shape[1] <= most
    assert 0 <= tokens.min() <= tokens.max() < vocab_size


def check_lengths(batch: Batch, rows: str, lengths: str) -> None:
    if lengths in batch:
        assert batch[lengths].dtype == torch.int64
        assert 1 <= batch[lengths].min() <= batch[lengths].max() <= batch[rows].shape[1]


def check_answers(batch: Batch) -> None:
    """Assert that what the tokens from start to end stand for holds the first answer given."""
    assert batch["offsets"].shape == (*batch["tokens"].shape, 2)
    assert batch["context"].dtype == batch["answers"].dtype == torch.uint8
    for row, (start, end) in enumerate(zip(batch["start"].tolist(), batch["end"].tolist(), strict=True)):
        if end == 0:
            continue
        assert (batch["segments"][row, start : end + 1] == 1).all()
        (begin, _), (_, stop) = batch["offsets"][row, start].tolist(), batch["offsets"][row, end].tolist()
        assert bytes(batch["answers"][row].tolist()).split(b"\0")[0] in bytes(
            batch["context"][row, begin:stop].tolist()
        )


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
            check_batch(batch, spec)

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
            mine = {name: cropped(value[row : row + 1], alone[name].shape) for name, value in together.items()}
            assert list(differing(mine, alone)) == []

    def test_evaluation_is_not_random(self, component: Component) -> None:
        for name in SPLITS[1:]:
            split = dataset_of(component).split(name)
            assert list(differing(first(split, 16), first(split, 16))) == []

    def test_only_an_augmented_split_changes_with_the_epoch(self, component: Component) -> None:
        train = dataset_of(component).split("train")
        if train.augmented or type(dataset_of(component).spec) is TokenSpec:
            pytest.skip("its training examples differ from epoch to epoch")
        assert list(differing(first(train, 16, KEY), first(train, 16, EpochKey(KEY.seed, KEY.epoch + 1)))) == []

    def test_no_example_stands_in_two_splits(self, component: Component) -> None:
        dataset = dataset_of(component)
        # Text repeats itself here and there, so that a window of it may too.
        allowed = 0.05 if type(dataset.spec) in (TokenSpec, SentencePairSpec) else 0.0
        for one, other in itertools.combinations(SPLITS, 2):
            share = copies(dataset.split(one), dataset.split(other))
            assert share <= allowed, f"{share:.1%} of the examples of {other} stand in {one} too"

    def test_missing_data_is_an_error_that_names_the_place(self, component: Component) -> None:
        config = default_config(component)
        if not hasattr(config, "path") or hasattr(config, "download"):
            pytest.skip("reads no files of a person's own")
        with pytest.raises(TorchloomError, match="/no/such/place"):
            built(component, path="/no/such/place").prepare()
