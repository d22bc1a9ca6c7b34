"""Labelled texts and pairs: what is read, how it is divided, what is cut, and what is refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from task_parts import data, everything, said, words

from torchloom.configs import TrainerConfig
from torchloom.data import DataModule
from torchloom.errors import ConfigError, DataError
from torchloom_objectives.configs import MLMConfig
from torchloom_objectives.mlm import MLM
from torchloom_tasks.configs import EntailmentConfig, SentimentConfig
from torchloom_tasks.division import divide
from torchloom_tasks.labelled import Entailment, Sentiment
from torchloom_tasks.texts import Layout


def sentiment(path, tokenizer=None, **fields):
    fields = {"val_fraction": 0.0, "test_fraction": 0.0, "context_length": 16, **fields}
    return Sentiment(SentimentConfig(path=str(path), **fields), tokenizer or words())


def entailment(path, **fields):
    fields = {"val_fraction": 0.0, "test_fraction": 0.0, "context_length": 16, **fields}
    return Entailment(EntailmentConfig(path=str(path), **fields), words())


def write(path, text):
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


# What is read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'a "good film\t1\na bad one\t0\n'),
        ("a.tsv", 'id\tSentence\tlabel\n1\ta "good film\tpositive\n2\ta bad one\tnegative\n'),
        ("a.csv", 'label,text\n1,"a ""good film"\n0,a bad one\n'),
        ("a.jsonl", '{"text": "a \\"good film", "label": "Positive"}\n\n{"label": "Negative", "text": "a bad one"}\n'),
    ],
)
def test_every_form_of_file_gives_the_same(tmp_path, name, text):
    dataset = sentiment(write(tmp_path / name, text))
    batch = everything(dataset.split("train"))
    assert dataset.spec.classes == ("negative", "positive")
    assert not dataset.spec.pairs
    assert said(dataset, batch["tokens"][0]) == '<cls> a " good film <sep>'
    assert batch["label"].tolist() == [1, 0]
    assert batch["length"].tolist() == [6, 5]
    assert batch["tokens"].shape == (2, 8)
    assert "segments" not in batch


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("01", ("negative", "positive")),
        ("021", ("negative", "neutral", "positive")),
        (["neutral", "POSITIVE"], ("negative", "neutral", "positive")),
        ("03142", ("0", "1", "2", "3", "4")),
        (["sport", "arts"], ("arts", "sport")),
    ],
)
def test_classes_come_from_the_labels_of_training(tmp_path, labels, classes):
    path = write(tmp_path / "a.tsv", "".join(f"text {n}\t{label}\n" for n, label in enumerate(labels)))
    dataset = sentiment(path)
    dataset.prepare()
    assert dataset.spec.classes == classes
    numbers = everything(dataset.split("train"))["label"].tolist()
    assert [classes[n] for n in numbers] == [classes[int(one)] if one.isdigit() else one.lower() for one in labels]


def test_named_columns_and_classes_are_taken(tmp_path):
    path = write(tmp_path / "a.csv", "body,mark,text\nthis one,yes,not this\nthat,no,nor this\n")
    dataset = sentiment(path, text_column="body", label_column="mark", classes=["yes", "no"])
    batch = everything(dataset.split("train"))
    assert said(dataset, batch["tokens"][0]) == "<cls> this one <sep>"
    assert batch["label"].tolist() == [0, 1]


def test_sst2_as_it_comes():
    dataset = sentiment(data("sst2"), context_length=64)
    assert dataset.spec.classes == ("negative", "positive")
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [6917, 872, 1821]
    assert dataset.cut == {"train": 0, "val": 0, "test": 0}
    assert everything(dataset.split("test"))["label"].float().mean() == pytest.approx(0.4992, abs=1e-4)


def test_sick_as_it_comes(caplog):
    dataset = entailment(data("sick"), context_length=80)
    assert dataset.spec.classes == ("entailment", "neutral", "contradiction")
    assert dataset.spec.pairs
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [4440, 495, 4927]
    assert everything(dataset.split("test"))["label"].bincount().tolist() == [1414, 2793, 720]
    assert "left out 60 examples of train whose copies stand in a later split" in caplog.text


def test_snli_lines_without_a_label_are_left_out_and_counted(tmp_path, caplog):
    rows = [("a man runs", "he moves", "entailment"), ("a dog", "a cat", "-"), ("rain", "sun", "contradiction")]
    lines = [json.dumps({"gold_label": c, "sentence1": a, "sentence2": b, "pairID": "x"}) for a, b, c in rows]
    dataset = entailment(write(tmp_path / "snli_1.0_train.jsonl", "\n".join(lines)))
    batch = everything(dataset.split("train"))
    assert batch["label"].tolist() == [0, 2]
    assert said(dataset, batch["tokens"][0]) == "<cls> a man runs <sep> he moves <sep>"
    assert batch["segments"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]]
    assert "left out 1 examples with the label '-'" in caplog.text


def test_special_tokens_that_a_tokenizer_lacks_are_left_out(tmp_path):
    dataset = sentiment(write(tmp_path / "a.tsv", "one two\t1\nthree\t0\n"), words("unk"))
    batch = everything(dataset.split("train"))
    assert dataset.spec.pad_id is None
    assert said(dataset, batch["tokens"][0][:2]) == "one two"
    assert batch["length"].tolist() == [2, 1]


# Division


@given(
    numbers=st.lists(st.integers(0, 30), min_size=40, max_size=80),
    val=st.sampled_from([0, 0.1, 0.3]),
    test=st.sampled_from([0, 0.2]),
)
def test_copies_stay_together_and_nothing_is_lost(numbers, val, test):
    if len(set(numbers)) < 4:
        return
    splits = divide(
        {"train": numbers},
        lambda one: str(one).encode(),
        SentimentConfig(val_fraction=val, test_fraction=test),
        "numbers",
    )
    assert sorted(one for split in splits.values() for one in split) == sorted(numbers)
    held = [set(split) for split in splits.values()]
    assert not (held[0] & held[1])
    assert not (held[0] & held[2])
    assert not (held[1] & held[2])
    assert [bool(one) for one in held] == [True, val > 0, test > 0]


def test_copies_in_files_of_their_own_are_left_out_of_earlier_splits(tmp_path, caplog):
    write(tmp_path / "train.tsv", "one\t0\ntwo\t1\nthree\t0\n")
    write(tmp_path / "dev.tsv", "two\t1\nfour\t1\n")
    write(tmp_path / "test.tsv", "three\t1\n")
    dataset = sentiment(tmp_path)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [1, 2, 1]
    assert "left out 2 examples of train" in caplog.text


def test_a_division_hangs_on_the_texts_alone(tmp_path):
    lines = [f"text number {n}\t{n % 2}" for n in range(50)]
    one = sentiment(write(tmp_path / "a.tsv", "\n".join(lines)), val_fraction=0.2, test_fraction=0.1)
    other = sentiment(write(tmp_path / "b.tsv", "\n".join(reversed(lines))), val_fraction=0.2, test_fraction=0.1)
    for name, size in (("train", 35), ("val", 10), ("test", 5)):
        assert {example.texts for example in one.divided[name]} == {example.texts for example in other.divided[name]}
        assert len(one.divided[name]) == size


def test_the_vocabulary_is_learnt_from_training_alone(tmp_path):
    write(tmp_path / "train.tsv", "one\t0\ntwo\t1\n")
    write(tmp_path / "test.tsv", "three\t1\n")
    dataset = sentiment(tmp_path)
    assert dataset.spec.vocab_size == 7
    assert everything(dataset.split("test"))["tokens"][0, :3].tolist() == [2, 1, 3]


# Length


@given(first=st.integers(1, 40), second=st.integers(1, 40), length=st.integers(5, 40))
def test_of_two_texts_the_longer_is_cut_first(first, second, length):
    """As the reference takes tokens away: one after the other from whichever is longer then."""
    layout = Layout(Bare(), length, pairs=True)
    row, size, cut = layout.row(torch.arange(first).numpy() + 10, torch.arange(second).numpy() + 60)
    left, right = first, second
    while left + right > length - 3:
        left, right = (left - 1, right) if left > right else (left, right - 1)
    assert (size - 2, len(row) - size - 1) == (left, right)
    assert cut == (left + right < first + second)
    assert row.tolist() == [0, *range(10, 10 + left), 1, *range(60, 60 + right), 1]


class Bare:
    """No more of a tokenizer than a layout needs."""

    def special_id(self, name):
        return {"cls": 0, "sep": 1}.get(name)


def test_long_texts_are_cut_and_counted(tmp_path, caplog):
    path = write(tmp_path / "a.tsv", "one two three four\t0\nfive\t1\n")
    dataset = sentiment(path, context_length=4)
    assert said(dataset, everything(dataset.split("train"))["tokens"][0]) == "<cls> one two <sep>"
    assert dataset.cut == {"train": 1}
    assert "1 of 2 examples of train are too long and were cut" in caplog.text


def test_long_texts_are_refused_where_that_is_asked(tmp_path):
    path = write(tmp_path / "a.tsv", "one two three four\t0\nfive\t1\n")
    with pytest.raises(DataError) as caught:
        sentiment(path, context_length=4, too_long="refuse").split("train")
    assert str(caught.value) == (
        f"{path}, line 1: has 6 tokens with the special ones, more than dataset.context_length=4; raise that, or set "
        "dataset.too_long=cut"
    )


def test_a_context_without_room_for_text_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        entailment(write(tmp_path / "a.tsv", "a\tb\t0\nc\td\t1\n"), context_length=4).split("train")
    assert str(caught.value) == (
        "dataset.context_length: 4 leaves no room for text beside 3 special tokens\n    set it to 5 or more"
    )


def test_batches_of_like_length_are_made_where_that_is_asked(tmp_path):
    lines = (f"{'word ' * (number * 7 % 13)}{number}\t{number % 2}" for number in range(64))
    path = write(tmp_path / "a.tsv", "\n".join(lines))

    def size(*, grouped, hide):
        dataset = sentiment(path, batch_size=8, group_lengths=grouped)
        objective = MLM(MLMConfig(), dataset.spec)
        made = objective.examples if hide else lambda split: split
        loader = DataModule(dataset, TrainerConfig(), seed=0, examples=made).loader("train")
        return sum(batch["tokens"].numel() for batch in loader)

    assert size(grouped=False, hide=False) == size(grouped=False, hide=True) == 8 * 8 * 16
    assert size(grouped=True, hide=False) == size(grouped=True, hide=True) < 8 * 8 * 14


# A person's own inputs


def test_read_takes_texts_and_pairs(tmp_path):
    one = sentiment(write(tmp_path / "a.tsv", "one two\t0\nthree\t1\n"))
    batch = everything(one.read(["two three", "one"]))
    assert said(one, batch["tokens"][0]) == "<cls> two three <sep>"
    assert "label" not in batch
    two = entailment(write(tmp_path / "b.tsv", "one\ttwo\t0\nthree\tfour\t1\n"))
    assert said(two, everything(two.read(["one ||| four"]))["tokens"][0]) == "<cls> one <sep> four <sep>"
    with pytest.raises(DataError) as caught:
        two.read(["one four"])
    assert str(caught.value) == "'one four': not a pair of texts; write it as 'first text ||| second text'"


# Bad input


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "good\t1\n  \t0\n", ", line 2: the text is empty; give it text or remove the line"),
        ("a.tsv", "good\t1\nbad\t\n", ", line 2: the label is empty; give one or remove the line"),
        ("a.tsv", "good\t1\nbad\n", ", line 2: has 1 cells, but the first line has 2; correct it"),
        ("a.tsv", "", ": holds no rows; give a file that does"),
        (
            "a.jsonl",
            '{"text": "a"\n',
            ", line 1: not JSON (Expecting ',' delimiter); a .jsonl file holds one object a line",
        ),
        (
            "a.jsonl",
            '{"text": "a", "mark": 1}\n',
            ", line 1: has no column label or gold_label or entailment_judgment or sentiment or class or polarity; "
            "set dataset.label_column to one of text, mark",
        ),
        ("a.csv", 'text,label\n"two\nlines",1\n,0\n', ", line 4: the text is empty; give it text or remove the line"),
        ("a.jsonl", '{"text": null, "label": 1}\n', ", line 1: the text is empty; give it text or remove the line"),
        ("a.jsonl", '{"text": ["a", "b"], "label": 1}\n', ", line 1: text is a list; give a text or a number"),
        ("a.jsonl", '{"text": "a", "label": {"is": 1}}\n', ", line 1: label is an object; give a text or a number"),
        (
            "a.csv",
            "text,label,Text\na,1,b\n",
            ", line 1: has 2 columns text; give all but one of them other names",
        ),
        (
            "a.tsv",
            "fine\t1\ncaf\udce9\t0\n",
            ", line 2: not UTF-8 at byte 10 of the file; convert it with iconv",
        ),
    ],
)
def test_bad_lines_are_named(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(DataError) as caught:
        sentiment(path).prepare()
    assert str(caught.value) == f"{path}{message}"


def test_a_label_outside_the_classes_is_named(tmp_path):
    write(tmp_path / "train.tsv", "one\t0\ntwo\t1\n")
    path = write(tmp_path / "test.tsv", "three\t1\nfour\t2\n")
    with pytest.raises(DataError) as caught:
        sentiment(tmp_path).prepare()
    assert str(caught.value) == (
        f"{path}, line 2: label '2' is none of the classes negative, positive; correct it, or set dataset.classes, "
        "or dataset.label_column if its labels are in another column"
    )


@pytest.mark.parametrize(
    ("lines", "label", "classes"),
    [
        (["0", "1", "7"], "7", "negative, positive"),
        (["1", "2", "3"], "3", "negative, neutral, positive"),
        (["negative", "positive", "maybe"], "maybe", "negative, positive"),
        (["0", "1", "maybe"], "maybe", "negative, positive"),
        (["0", "1", "-1"], "-1", "negative, positive"),
    ],
)
def test_a_label_of_training_that_fits_no_others_is_no_class_of_its_own(tmp_path, lines, label, classes):
    path = write(tmp_path / "a.tsv", "".join(f"text {n}\t{one}\n" for n, one in enumerate(lines)))
    with pytest.raises(DataError) as caught:
        sentiment(path).prepare()
    assert str(caught.value) == (
        f"{path}, line {len(lines)}: label {label!r} is none of the classes {classes}; correct it, or set dataset.classes, "
        "or dataset.label_column if its labels are in another column"
    )
    chosen = sentiment(path, classes=lines)
    assert chosen.spec.classes == tuple(lines)
    assert everything(chosen.split("train"))["label"].tolist() == list(range(len(lines)))


def test_files_that_cannot_be_told_apart_are_refused(tmp_path):
    for name in ("dev_matched", "dev_mismatched", "train"):
        write(tmp_path / f"{name}.tsv", "one\t1\n")
    with pytest.raises(DataError) as caught:
        sentiment(tmp_path).prepare()
    assert str(caught.value) == (
        f"{tmp_path / 'dev_matched.tsv'} and dev_mismatched.tsv: both could be the val split; set dataset.path to the "
        "training file, and dataset.val_path and dataset.test_path"
    )


def test_too_few_examples_for_the_splits_are_refused(tmp_path):
    path = write(tmp_path / "a.tsv", "one\t0\none\t1\ntwo\t1\n")
    with pytest.raises(DataError) as caught:
        sentiment(path, val_fraction=0.1, test_fraction=0.1).prepare()
    assert str(caught.value) == (
        f"{path}: 2 different examples cannot make 3 splits; give more of them, or set dataset.val_fraction=0 and "
        "dataset.test_fraction=0"
    )


def test_shares_that_leave_no_training_are_refused():
    with pytest.raises(ConfigError) as caught:
        sentiment("any", val_fraction=0.5, test_fraction=0.5)
    assert str(caught.value) == (
        "dataset.val_fraction: 0.5 and dataset.test_fraction=0.5 leave nothing for training\n"
        "    lower one of them: together below 1"
    )
