"""Text datasets: splits that share nothing, exact text, and errors that name the file."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from torchloom.contracts.dataset import EpochKey
from torchloom.errors import ConfigError, DataError
from torchloom_text.configs import (
    BPEConfig,
    CharConfig,
    PythonDocsConfig,
    StdlibCodeConfig,
    TextFilesConfig,
    WordConfig,
)
from torchloom_text.datasets import PythonDocs, StdlibCode, TextFiles
from torchloom_text.documents import Document, split_documents
from torchloom_text.tokenization import BPETokenizer, CharTokenizer, WordTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def text_files(path, tokenizer=None, **fields):
    config = TextFilesConfig(path=str(path) if path is not None else None, **{"context_length": 4, **fields})
    return TextFiles(config, tokenizer or CharTokenizer(CharConfig()))


def text_of(dataset, name):
    """Put the tokens of an evaluation split, or of the training tiling, together again."""
    split = dataset.split(name)
    batch = split.batch(torch.arange(len(split)))
    lengths = batch.get("length", torch.full((len(split),), batch["tokens"].shape[1]))
    pieces = [
        row[1 if number else 0 : length]
        for number, (row, length) in enumerate(zip(batch["tokens"], lengths, strict=True))
    ]
    return dataset.tokenizer.decode(torch.cat(pieces))


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


# One text


def test_one_text_is_cut_in_order(tmp_path):
    path = write(tmp_path, one=ALPHABET * 4) / "one.txt"
    dataset = text_files(path, val_fraction=0.25, test_fraction=0.125)
    assert text_of(dataset, "val") == (ALPHABET * 4)[65:91]
    assert text_of(dataset, "test") == (ALPHABET * 4)[91:]
    assert (ALPHABET * 4)[:65].startswith(text_of(dataset, "train"))


@given(
    length=st.integers(1, 3000),
    val=st.sampled_from([0, 0.1, 0.2, 0.05, 1 / 3]),
    test=st.sampled_from([0, 0.05, 0.1, 0.3]),
)
def test_a_cut_loses_nothing_and_repeats_nothing(length, val, test):
    text = "".join(chr(256 + i) for i in range(length))
    splits = split_documents([Document("one", text)], val, test)
    assert "".join(document.text for name in ("train", "val", "test") for document in splits[name]) == text
    if test == 0 and val == 0.1:
        assert "".join(document.text for document in splits["val"]) == text[int(0.9 * length) :]


def test_shakespeare_is_split_as_nanogpt_splits_it():
    if "TORCHLOOM_DATA" not in os.environ:
        pytest.skip("TORCHLOOM_DATA is not set")
    path = Path(os.environ["TORCHLOOM_DATA"]) / "tinyshakespeare/input.txt"
    text = path.read_text(encoding="utf-8")
    dataset = text_files(path, CharTokenizer(CharConfig(special_tokens=[])), test_fraction=0, context_length=64)
    assert dataset.spec.vocab_size == 65
    assert text_of(dataset, "val") == text[int(0.9 * len(text)) :]
    assert len(dataset.split("test")) == 0


# Several texts


@settings(max_examples=60)
@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=8), min_size=3, max_size=30),
    val=st.sampled_from([0, 0.1, 0.3]),
    test=st.sampled_from([0, 0.05, 0.3]),
)
def test_documents_are_divided_whole_and_no_copy_stands_in_two_splits(texts, val, test):
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    assume(len(set(texts)) >= 3)
    splits = split_documents(documents, val, test)
    assert sorted(d.name for split in splits.values() for d in split) == sorted(d.name for d in documents)
    held = {name: {document.text for document in split} for name, split in splits.items()}
    assert held["train"].isdisjoint(held["val"] | held["test"])
    assert held["val"].isdisjoint(held["test"])
    assert held["train"]
    assert (bool(held["val"]), bool(held["test"])) == (val > 0, test > 0)
    for name, share in (("val", val), ("test", test)):
        size = sum(len(document.text) for document in splits[name])
        assert size <= share * sum(map(len, texts)) or len(held[name]) == 1


def test_a_split_depends_on_the_texts_alone_not_on_names_or_places(tmp_path):
    texts = [f"text number {number} {'x' * number}" for number in range(20)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = text_files(write(tmp_path / "a", **{f"f{n:02}": text for n, text in enumerate(texts)}))
    second = text_files(write(tmp_path / "b", **{f"g{20 - n:02}": text for n, text in enumerate(texts)}))
    for name in ("train", "val", "test"):
        assert {d.text for d in first.divide()[name]} == {d.text for d in second.divide()[name]}


def test_a_cut_of_copies_uses_the_text_once(tmp_path):
    dataset = text_files(write(tmp_path, one=ALPHABET, two=ALPHABET), val_fraction=0.5, test_fraction=0)
    assert [document.text for document in dataset.divide()["val"]] == [ALPHABET[13:]]


def test_an_end_of_text_stands_between_documents_and_none_within_one_text(tmp_path):
    folder = write(tmp_path, a="aa " * 20, b="bb " * 20, c="cc " * 20)
    tokenizer = BPETokenizer(BPEConfig(vocab_size=258))
    dataset = text_files(folder, tokenizer, val_fraction=0.3, test_fraction=0, glob="*.txt")
    assert text_of(dataset, "train").count("<eos>") == 1
    single = text_files(folder / "a.txt", tokenizer, test_fraction=0)
    assert "<eos>" not in text_of(single, "train")


def test_own_validation_and_test_files_take_the_place_of_shares(tmp_path):
    write(tmp_path, train=ALPHABET, val="held out", test="kept apart")
    dataset = text_files(
        tmp_path / "train.txt", val_path=str(tmp_path / "val.txt"), test_path=str(tmp_path / "test.txt")
    )
    assert dataset.divide()["train"][0].text == ALPHABET
    assert dataset.divide()["val"][0].text == "held out"
    assert len(dataset.split("val")) == 2
    assert len(dataset.split("test")) == 3


def test_a_copy_among_own_files_is_refused(tmp_path):
    write(tmp_path, train=ALPHABET, val=ALPHABET)
    dataset = text_files(tmp_path / "train.txt", val_path=str(tmp_path / "val.txt"), test_fraction=0)
    with pytest.raises(DataError) as caught:
        dataset.prepare()
    assert str(caught.value) == (
        f"{tmp_path / 'val.txt'}: the val split holds a copy of {tmp_path / 'train.txt'} from the train split; "
        "remove one of them"
    )


def test_the_vocabulary_is_learnt_from_training_alone(tmp_path):
    path = write(tmp_path, one="a" * 48 + "b" * 52 + "é" * 20) / "one.txt"
    dataset = text_files(path, val_fraction=0.2, test_fraction=0)
    assert dataset.spec.vocab_size == 3
    assert dataset.spec.unk_id == 0
    assert text_of(dataset, "val") == "b" * 4 + "\ufffd" * 20
    strict = text_files(path, CharTokenizer(CharConfig(special_tokens=[])), val_fraction=0.2, test_fraction=0)
    with pytest.raises(
        DataError, match=r"one\.txt: character 'é' \(U\+00E9\) at position \d+ is not in the vocabulary"
    ):
        strict.split("val")


def test_a_trained_tokenizer_is_kept(tmp_path):
    tokenizer = CharTokenizer(CharConfig())
    tokenizer.train(["xyz" + ALPHABET.upper()])
    dataset = text_files(write(tmp_path, one=ALPHABET) / "one.txt", tokenizer)
    assert dataset.spec.vocab_size == 1 + 3 + 26


def test_files_are_read_exactly_but_for_a_byte_order_mark(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfline\r\nnext\r\n")
    assert text_files(tmp_path / "dos.txt").documents()[0].text == "line\r\nnext\r\n"


# Built-in texts


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer(CharConfig()), WordTokenizer(WordConfig()), BPETokenizer(BPEConfig())]
)
def test_python_docs_divides_into_shares_of_whole_topics(tokenizer):
    dataset = PythonDocs(PythonDocsConfig(), tokenizer)
    dataset.prepare()
    sizes = {name: sum(len(d.text) for d in documents) for name, documents in dataset.divide().items()}
    total = sum(sizes.values())
    assert total > 300_000
    assert 0.095 < sizes["val"] / total <= 0.1
    assert 0.045 < sizes["test"] / total <= 0.05
    assert dataset.spec.vocab_size == tokenizer.vocab_size
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        batch = split.batch(torch.tensor([0, len(split) - 1]), EpochKey(0, 0))
        assert batch["tokens"].shape == (2, 65)
        assert 0 <= batch["tokens"].min() <= batch["tokens"].max() < dataset.spec.vocab_size


def test_python_docs_holds_no_validation_text_in_training():
    """Topics repeat each other: without care 40 % of the validation windows stand in the training text."""
    splits = {
        name: "".join(document.text for document in documents)
        for name, documents in PythonDocs(PythonDocsConfig(), CharTokenizer(CharConfig())).divide().items()
    }
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        windows = [splits[other][start : start + 65] for start in range(0, len(splits[other]) - 65, 64)]
        assert sum(window in splits[one] for window in windows) < 0.02 * len(windows)


def test_stdlib_code_holds_modules_but_no_tests():
    names = {
        Path(document.name).as_posix()
        for document in StdlibCode(StdlibCodeConfig(), CharTokenizer(CharConfig())).documents()
    }
    assert any(name.endswith("/argparse.py") for name in names)
    assert not any(
        "/test/" in name or "/tests/" in name or "/encodings/" in name or "-packages/" in name for name in names
    )


# A person's own inputs


def test_read_takes_texts_and_files_and_keeps_them_apart(tmp_path):
    dataset = text_files(write(tmp_path, one=ALPHABET, own="abcdefghij") / "one.txt")
    split = dataset.read(["xy", str(tmp_path / "own.txt")])
    batch = split.batch(torch.arange(len(split)))
    assert batch["input"].tolist() == [0, 1, 1, 1]
    assert batch["length"].tolist() == [2, 5, 5, 2]
    assert dataset.tokenizer.decode(batch["tokens"][1]) == "abcde"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.txt", "missing.txt: no such file; give the path of a UTF-8 file, or text with a space in it"),
        ("a", "'a': has 1 tokens; a prediction needs at least 2"),
    ],
)
def test_read_names_an_input_it_cannot_use(tmp_path, text, message):
    dataset = text_files(write(tmp_path, one=ALPHABET) / "one.txt")
    with pytest.raises(DataError) as caught:
        dataset.read([text])
    assert str(caught.value) == message


# Bad input


def failing(tmp_path, kind):
    """Return a dataset of bad data and the message it must give; ``{}`` in the message is the folder."""
    if kind == "no path":
        return text_files(None), "dataset.path: not given; set dataset.path to a UTF-8 text file or a folder of them"
    if kind == "missing":
        mend = "set dataset.path to a UTF-8 text file or a folder of them"
        return text_files(tmp_path / "gone.txt"), f"{{}}/gone.txt: no such file or folder; {mend}"
    if kind == "no match":
        mend = "set dataset.glob, such as dataset.glob='**/*.md'"
        return text_files(tmp_path), f"{{}}: no file of this folder matches '**/*.txt'; {mend}"
    if kind == "empty":
        mend = "set dataset.path to a file or folder that does"
        return text_files(write(tmp_path, one="") / "one.txt"), f"{{}}/one.txt: holds no text; {mend}"
    if kind == "not UTF-8":
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9 noir")
        mend = "convert it, for example with iconv -f LATIN1 -t UTF-8"
        return text_files(tmp_path), f"{{}}/latin.txt: not UTF-8 at byte 3 (0xe9); {mend}"
    if kind == "short":
        mend = "give more text or lower dataset.context_length"
        path = write(tmp_path, one="abcde") / "one.txt"
        return text_files(path), f"{{}}/one.txt: the training split has 4 tokens, but one window takes 5; {mend}"
    if kind == "short validation":
        mend = "give more text or raise dataset.val_fraction"
        path = write(tmp_path, one="abcdefghij") / "one.txt"
        message = f"{{}}/one.txt: the val split has 1 tokens, but a prediction needs at least 2; {mend}"
        return text_files(path, val_fraction=0.1, test_fraction=0), message
    mend = "set dataset.test_fraction=0, or join them into one file, which is cut in order"
    message = f"{{}}/one.txt and 1 more: 2 different documents cannot make 3 splits; {mend}"
    return text_files(write(tmp_path, one="abcdefgh", two="ijklmnop")), message


@pytest.mark.parametrize(
    "kind", ["no path", "missing", "no match", "empty", "not UTF-8", "short", "short validation", "too few documents"]
)
def test_bad_data_is_named_with_its_place_and_its_mend(tmp_path, kind):
    dataset, message = failing(tmp_path, kind)
    use = {"short": lambda: dataset.split("train"), "short validation": lambda: dataset.split("val")}
    with pytest.raises(DataError) as caught:
        use.get(kind, dataset.prepare)()
    assert str(caught.value) == message.replace("{}", str(tmp_path))


def test_shares_that_leave_no_training_are_refused():
    with pytest.raises(ConfigError) as caught:
        text_files("any", val_fraction=0.5, test_fraction=0.5)
    assert str(caught.value) == (
        "dataset.val_fraction: 0.5 and dataset.test_fraction=0.5 leave nothing for training\n"
        "    lower one of them: together below 1"
    )


def test_building_reads_nothing_and_needs_a_tokenizer():
    text_files("/does/not/exist")
    with pytest.raises(ConfigError) as caught:
        PythonDocs(PythonDocsConfig())
    assert str(caught.value) == "tokenizer: a text dataset needs one\n    choose tokenizer=char, word or bpe"
