"""Sentence pairs of running text: half of them follow one another, the others are of another document."""

import pytest
import torch

from torchloom.contracts.dataset import EpochKey
from torchloom.contracts.spec import SentencePairSpec
from torchloom.errors import ConfigError, DataError
from torchloom_text.configs import CharConfig, PythonDocsConfig, TextFilesConfig, WordPieceConfig
from torchloom_text.datasets import PythonDocs, TextFiles
from torchloom_text.pairs import PairTokens, SentencePairs
from torchloom_text.tokenization import CharTokenizer, WordPieceTokenizer

TOKENS = PairTokens(cls=1, sep=2, pad=0, context_length=32)
SIZES = (2, 5, 40, 90, 400, 29, 60, 1000, 3, 217)


def numbered():
    """Return documents whose every token says which document it is of and where."""
    return [torch.arange(size, dtype=torch.int32) + 10_000 * (number + 1) for number, size in enumerate(SIZES)]


def drawn(key, split=None):
    split = split or SentencePairs(numbered(), TOKENS)
    batch = split.batch(torch.arange(len(split)), key)
    pairs = []
    for row, segments, length in zip(batch["tokens"], batch["segments"], batch["length"], strict=True):
        real = row[:length]
        assert real[0] == 1
        assert real[-1] == 2
        assert (row[length:] == 0).all()
        second = real[segments[:length] == 1][:-1]
        first = real[segments[:length] == 0][1:-1]
        assert real[len(first) + 1] == 2
        pairs.append((first, second))
    return batch, pairs


@pytest.mark.parametrize("key", [None, EpochKey(0, 0), EpochKey(3, 7)])
def test_pieces_are_whole_follow_one_another_or_are_of_another_document(key):
    batch, pairs = drawn(key)
    assert len(pairs) == sum(max(1, size // 29) for size in SIZES)
    for label, (first, second) in zip(batch["label"], pairs, strict=True):
        for piece in (first, second):
            assert len(piece) >= 1
            assert (piece.diff() == 1).all()
        if label == 1:
            assert second[0] == first[-1] + 1
        else:
            assert second[0] // 10_000 != first[0] // 10_000


def test_kinds_are_balanced_and_every_place_gets_both():
    labels = [drawn(EpochKey(0, epoch))[0]["label"] for epoch in range(40)]
    assert all(abs(one.float().mean() - 0.5) <= 0.01 for one in labels)
    share = torch.stack(labels).float().mean(0)
    assert share.min() > 0.1
    assert share.max() < 0.9


def test_lengths_fill_the_context_but_for_some_and_do_not_tell_the_kind():
    documents = [torch.arange(100, dtype=torch.int32) + 10_000 * (number + 1) for number in range(500)]
    batch, _ = drawn(EpochKey(0, 0), SentencePairs(documents, TOKENS))
    full = (batch["length"] == 32).float().mean()
    assert full == pytest.approx(0.9, abs=0.03)
    assert batch["length"].max() == 32
    by_kind = [batch["length"][batch["label"] == kind].float().mean() for kind in (0, 1)]
    assert by_kind[0] == pytest.approx(by_kind[1], abs=0.5)
    first = (batch["segments"] == 0).sum(1) - (32 - batch["length"])
    assert first.float().mean() == pytest.approx(15.5, abs=1.5)


def test_strangers_are_drawn_by_their_length():
    strangers = []
    for epoch in range(40):
        batch, pairs = drawn(EpochKey(1, epoch))
        for label, (first, second) in zip(batch["label"], pairs, strict=True):
            if label == 0 and first[0] // 10_000 == 5:  # of the fifth document, whose 13 examples are not drawn
                strangers.append(int(second[0]) // 10_000 - 1)
    share = torch.tensor(strangers).bincount(minlength=len(SIZES)) / len(strangers)
    counts = torch.tensor([max(1, size // 29) for size in SIZES])
    counts[4] = 0
    assert share[4] == 0
    assert torch.allclose(share, counts / counts.sum(), atol=0.1)


def test_pairs_change_with_the_epoch_and_not_with_the_batch():
    split = SentencePairs(numbered(), TOKENS)
    whole = split.batch(torch.arange(len(split)), EpochKey(0, 1))
    alone = split.batch(torch.tensor([4]), EpochKey(0, 1))
    width = alone["tokens"].shape[1]
    assert torch.equal(whole["tokens"][4, :width], alone["tokens"][0])
    other = split.batch(torch.arange(len(split)), EpochKey(0, 2))
    assert (whole["tokens"] != other["tokens"]).any(1).float().mean() > 0.9
    assert torch.equal(split.batch(torch.arange(9))["tokens"], split.batch(torch.arange(9))["tokens"])


BERT = ["pad", "unk", "cls", "sep", "mask"]


def test_python_docs_gives_pairs_in_every_split():
    dataset = PythonDocs(PythonDocsConfig(examples="pairs", context_length=64), WordPieceTokenizer(WordPieceConfig()))
    dataset.prepare()
    assert isinstance(dataset.spec, SentencePairSpec)
    assert dataset.spec.mask_id == 4
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        label = split.batch(torch.arange(len(split)))["label"]
        assert abs(label.float().mean() - 0.5) <= 0.01
        assert len(split) > 50


def text_files(path, special=BERT, **fields):
    fields = {"val_fraction": 0.0, "test_fraction": 0.0, "context_length": 32, **fields}
    tokenizer = CharTokenizer(CharConfig(special_tokens=special))
    return TextFiles(TextFilesConfig(path=str(path), examples="pairs", **fields), tokenizer)


def write(folder, *texts):
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_copies_of_a_document_are_no_others(tmp_path):
    write(tmp_path, "one text", "one text", "x")
    with pytest.raises(DataError) as caught:
        text_files(tmp_path).split("train")
    assert str(caught.value) == (
        f"{tmp_path / '0.txt'} and 2 more: the train split has 1 different documents of two tokens or more, but pairs "
        "need two, to take what does not follow from another; give more files, or set dataset.examples=windows"
    )


def test_a_split_without_a_share_is_empty(tmp_path):
    dataset = text_files(write(tmp_path, "one text", "another"))
    assert len(dataset.split("val")) == 0
    assert len(dataset.split("train")) == 2


def test_special_tokens_are_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError) as caught:
        text_files(write(tmp_path, "one text", "another"), special=["unk", "sep"]).split("train")
    assert str(caught.value) == (
        "tokenizer.special_tokens: has no cls, which dataset.examples=pairs needs\n    set it to [pad,unk,cls,sep,mask]"
    )


def test_a_context_without_room_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        text_files(write(tmp_path, "one text", "another"), context_length=4).split("train")
    assert str(caught.value) == (
        "dataset.context_length: 4 leaves no room for two pieces beside three special tokens\n    set it to 5 or more"
    )


def test_read_takes_pairs_and_cuts_the_longer_piece(tmp_path):
    dataset = text_files(write(tmp_path, "abcdefghij" * 4, "another"), context_length=11)
    batch = dataset.read(["abcdefgh ||| ij", "ab ||| cdefghij", "abcdef ||| abcdef"]).batch(torch.arange(3))
    said = [
        dataset.tokenizer.decode(row[:length]) for row, length in zip(batch["tokens"], batch["length"], strict=True)
    ]
    assert said == ["<cls>abcdef<sep>ij<sep>", "<cls>ab<sep>cdefgh<sep>", "<cls>abcd<sep>abcd<sep>"]
    assert batch["segments"].sum(1).tolist() == [3, 7, 5]
    assert "label" not in batch
    with pytest.raises(DataError) as caught:
        dataset.read(["abc"])
    assert str(caught.value) == "'abc': not a pair of texts; write it as 'first text ||| second text'"
