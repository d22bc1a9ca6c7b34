"""Parallel text: pairs in order, with their beginning and end, and files that do not match."""

import pytest
from task_parts import everything, said, words

from torchloom.errors import ConfigError, DataError
from torchloom_tasks.configs import ParallelTextConfig
from torchloom_tasks.parallel import ParallelText


def parallel(path, *special, **fields):
    fields = {"val_fraction": 0.0, "test_fraction": 0.0, **fields}
    tokenizer = words(*(special or ("pad", "unk", "bos", "eos")))
    return ParallelText(ParallelTextConfig(path=str(path), **fields), tokenizer)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_aligned_files_give_pairs(tmp_path):
    source = write(tmp_path / "a.en", "the cat\n\nthe dog runs\n")
    target = write(tmp_path / "a.de", "die Katze\n\nder Hund rennt jetzt\n")
    dataset = parallel(source, target_path=str(target))
    batch = everything(dataset.split("train"))
    assert said(dataset, batch["source"][1]) == "the dog runs"
    assert said(dataset, batch["target"][0]) == "<bos> die Katze <eos>"
    assert batch["source_length"].tolist() == [2, 3]
    assert batch["target_length"].tolist() == [4, 6]
    assert batch["target"].shape == (2, 8)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "the cat\tdie Katze\n"),
        ("a.csv", "target,source\ndie Katze,the cat\n"),
        ("a.jsonl", '{"summary": "die Katze", "article": "the cat"}\n'),
    ],
)
def test_tables_give_the_same(tmp_path, name, text):
    dataset = parallel(write(tmp_path / name, text))
    batch = everything(dataset.split("train"))
    assert said(dataset, batch["source"][0]) == "the cat"
    assert said(dataset, batch["target"][0]) == "<bos> die Katze <eos>"


def test_without_bos_a_target_begins_with_pad(tmp_path):
    dataset = parallel(write(tmp_path / "a.tsv", "one\ttwo\n"), "pad", "eos")
    assert everything(dataset.split("train"))["target"][0, 0] == dataset.spec.pad_id


def test_long_texts_are_cut_with_their_end_in_place_and_counted(tmp_path):
    path = write(tmp_path / "a.tsv", "one two three four\tfive six seven eight\none\ttwo\n")
    dataset = parallel(path, source_length=3, target_length=3)
    batch = everything(dataset.split("train"))
    assert said(dataset, batch["source"][0]) == "one two three"
    assert said(dataset, batch["target"][0]) == "<bos> five six <eos>"
    assert dataset.cut == {"train": 1}


def test_copies_of_a_source_stay_in_one_split(tmp_path):
    path = write(tmp_path / "a.tsv", "".join(f"source {n % 10}\ttarget {n}\n" for n in range(40)))
    dataset = parallel(path, val_fraction=0.2, test_fraction=0.2)
    held = [{row.cells[0] for row in dataset.divided[name]} for name in ("train", "val", "test")]
    assert list(map(len, held)) == [6, 2, 2]
    assert len(held[0] | held[1] | held[2]) == 10


def test_read_takes_sources(tmp_path):
    dataset = parallel(write(tmp_path / "a.tsv", "one two\tthree\n"))
    batch = everything(dataset.read(["two one"]))
    assert said(dataset, batch["source"][0]) == "two one"
    assert "target" not in batch


def test_files_of_other_lengths_are_refused(tmp_path):
    source, target = write(tmp_path / "a.en", "one\ntwo\n"), write(tmp_path / "a.de", "eins\n")
    with pytest.raises(DataError) as caught:
        parallel(source, target_path=str(target)).prepare()
    assert str(caught.value) == f"{source} has 2 lines, {target} 1; aligned files have as many"


def test_a_text_without_its_other_half_is_named(tmp_path):
    source, target = write(tmp_path / "a.en", "one\ntwo\n"), write(tmp_path / "a.de", "eins\n\n")
    with pytest.raises(DataError) as caught:
        parallel(source, target_path=str(target)).prepare()
    assert str(caught.value) == f"{source}, line 2: the target is empty; give it text or remove the line"


def test_special_tokens_are_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError) as caught:
        _ = parallel(write(tmp_path / "a.tsv", "one\ttwo\n"), "eos").spec
    assert str(caught.value) == (
        "tokenizer.special_tokens: targets begin with bos, or pad, and end with eos; one of them is missing\n"
        "    set it to [pad,unk,bos,eos]"
    )


def test_targets_are_given_for_all_text_files_or_none():
    with pytest.raises(ConfigError) as caught:
        parallel("a.en", target_path="a.de", val_path="b.en")
    assert str(caught.value) == (
        "dataset.val_target_path: given for some files only\n    give the targets of every text file, or of none"
    )
