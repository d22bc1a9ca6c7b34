"""Datasets of the hub, read from a folder as the library reads them, and what is said without a network."""

import json

import pytest
from task_parts import everything, said, words

from torchloom.errors import DataError
from torchloom_tasks.configs import HubConfig

datasets = pytest.importorskip("datasets", reason="needs torchloom[hub]")


def hub(path, cache, **fields):
    from torchloom_tasks.hub import Hub

    fields = {"val_fraction": 0.25, "test_fraction": 0.0, "context_length": 16, **fields}
    return Hub(HubConfig(path=str(path), cache=str(cache), **fields), words())


def folder(root, **splits):
    root.mkdir()
    for name, rows in splits.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


ROWS = [{"text": f"text number {number}", "other": f"and {number}", "label": number % 2} for number in range(8)]


def test_a_folder_is_read_by_its_splits(tmp_path):
    dataset = hub(folder(tmp_path / "a", train=ROWS, test=[{**ROWS[0], "text": "new"}]), tmp_path / "cache")
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [6, 2, 1]
    assert dataset.spec.classes == ("0", "1")
    batch = everything(dataset.split("train"))
    number = int(said(dataset, batch["tokens"][0]).split()[3])
    assert batch["label"][0] == number % 2


def test_names_of_classes_and_pairs_are_taken(tmp_path):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "other": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    root = tmp_path / "parquet"
    root.mkdir()
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(root / "train.parquet")
    dataset = hub(root, tmp_path / "cache", pair_column="other", val_fraction=0.0)
    assert dataset.spec.classes == ("no", "yes")
    assert dataset.spec.pairs
    row = everything(dataset.split("train"))["tokens"][1]
    assert said(dataset, row) == "<cls> text number 1 <sep> and 1 <sep>"


def test_secret_labels_leave_a_split_to_a_share(tmp_path):
    root = folder(tmp_path / "a", train=ROWS, test=[{**ROWS[0], "text": "new", "label": -1}])
    dataset = hub(root, tmp_path / "cache", test_fraction=0.25)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [4, 2, 2]


def test_a_column_that_is_not_there_is_named(tmp_path):
    root = folder(tmp_path / "a", train=ROWS)
    with pytest.raises(DataError) as caught:
        hub(root, tmp_path / "cache", text_column="body").prepare()
    assert str(caught.value) == f"{root}: has no column body; set dataset.text_column to one of text, other, label"


def test_without_a_network_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        hub("nobody/no-such-dataset", tmp_path).prepare()
    assert str(caught.value) == (
        "nobody/no-such-dataset: the hub cannot be reached, and there is no copy in the cache; go online once, or set "
        "dataset.path to a folder of its files"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        hub(tmp_path / "gone", tmp_path).prepare()
    assert str(caught.value) == f"{tmp_path / 'gone'}: no such folder; set dataset.path to one, or to a name on the hub"
