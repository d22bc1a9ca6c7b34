"""Shards come back as they were written, are whole or not there, and say so when they were tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpus_shards_made import char_record, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom.errors import DataError
from torchloom_corpus import shards
from torchloom_corpus.shards import Corpus, ShardWriter, TokenizerRecord, content_hash, write_manifest

TEXTS = ["the first", "another one", "a third", "the first"]


@given(
    documents=st.lists(st.lists(st.integers(0, 65535), max_size=9), max_size=9),
    vocab_size=st.sampled_from([65536, 65537, 1 << 20]),
    begin=st.sampled_from([None, 1]),
    end=st.sampled_from([None, 65535]),
)
@settings(max_examples=40, deadline=None)
def test_documents_come_back(documents: list[list[int]], vocab_size: int, begin: int | None, end: int | None) -> None:
    record = TokenizerRecord("bpe", {}, "{}", vocab_size, begin, end)
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), 0, record) as writer:
            counts = [writer.add(ids, number) for number, ids in enumerate(documents)]
        write_manifest(Path(folder), [writer.shard], record)
        corpus = Corpus(Path(folder), verify=True)
        tokens, offsets = corpus.tokens(0), corpus.offsets(0)
        found = [tokens[low:high].tolist() for low, high in pairwise(offsets.tolist())]
        hashes = corpus.hashes(0).tolist()
    edges = [[one] if one is not None else [] for one in (begin, end)]
    assert found == [edges[0] + ids + edges[1] for ids in documents if ids]
    assert hashes == [number for number, ids in enumerate(documents) if ids]
    assert counts == [len(ids) + len(edges[0]) + len(edges[1]) if ids else 0 for ids in documents]
    assert tokens.dtype == (np.uint16 if vocab_size == 65536 else np.uint32)


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 7, TokenizerRecord("bpe", {}, "{}", 300, end=2)) as writer:
        writer.add([1, 258], 0x0102030405060708)
    tokens, index = (tmp_path / f"tokens/00007.{end}" for end in ("bin", "idx"))
    assert tokens.read_bytes() == bytes([1, 0, 2, 1, 2, 0])
    whole = [1, 2, 1, 3]  # version and bytes a token, documents, tokens
    assert index.read_bytes() == (
        b"TLSHARD\n"
        + b"".join(value.to_bytes(size, "little") for value, size in zip(whole, (4, 4, 8, 8), strict=True))
        + b"".join(value.to_bytes(8, "little") for value in (0, 3, 0x0102030405060708))
    )
    assert writer.shard.sha256 == hashlib.sha256(tokens.read_bytes() + index.read_bytes()).hexdigest()
    assert (writer.shard.file, writer.shard.tokens, writer.shard.documents) == ("tokens/00007.bin", 3, 1)


@pytest.mark.parametrize("wrong", [300, -1, 70000])
def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path, wrong: int) -> None:
    record = TokenizerRecord("bpe", {}, "{}", 300)
    with (
        pytest.raises(ValueError, match=f"token {wrong} is outside a vocabulary of 300"),
        ShardWriter(tmp_path, 0, record) as writer,
    ):
        writer.add([1, wrong], 0)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    def write(fail: bool) -> None:
        with ShardWriter(tmp_path, 0, char_record()) as writer:
            writer.add([1, 2, 3] if not fail else [4], 5)
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write(fail=True)
    assert list((tmp_path / "tokens").iterdir()) == []
    write(fail=False)
    before = {path: path.read_bytes() for path in (tmp_path / "tokens").iterdir()}
    with pytest.raises(RuntimeError):
        write(fail=True)
    assert {path: path.read_bytes() for path in (tmp_path / "tokens").iterdir()} == before


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_corpus(tmp_path / name, TEXTS, shards=2, recipe="r")
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_equal_texts_have_equal_hashes_and_others_have_not() -> None:
    texts = [f"text {number}" for number in range(5000)] + ["", "\ud800"]
    hashes = [content_hash(text) for text in texts]
    assert len(set(hashes)) == len(texts)
    assert hashes == [content_hash(text) for text in texts]
    assert 0 <= min(hashes) <= max(hashes) < 1 << 64


def test_the_manifest_says_what_was_written(tmp_path: Path) -> None:
    manifest = json.loads((write_corpus(tmp_path, TEXTS, shards=2, recipe="abc") / "manifest.json").read_text("utf-8"))
    assert manifest["documents"] == 4
    assert manifest["tokens"] == sum(len(text) + 1 for text in TEXTS)
    assert manifest["recipe"] == "abc"
    assert [shard["documents"] for shard in manifest["shards"]] == [2, 2]
    assert manifest["tokenizer"]["name"] == "char"
    assert Corpus(tmp_path).tokenizer == char_record()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), "corpus: no such folder; make a corpus with"),
    "unfinished": (
        lambda folder: (folder / "manifest.json").unlink(),
        "corpus: holds no manifest.json, so it is no corpus, or its build is unfinished; run `torchloom corpus build",
    ),
    "other file": (
        lambda folder: (folder / "manifest.json").write_text('{"format": "toys"}'),
        "manifest.json: is not the manifest of a corpus",
    ),
    "cut manifest": (
        lambda folder: os.truncate(folder / "manifest.json", 40),
        "manifest.json: is damaged",
    ),
    "later version": (
        lambda folder: edit(folder / "manifest.json", version=2),
        "manifest.json: has version 2, and this torchloom reads version 1",
    ),
    "no shards in it": (
        lambda folder: edit(folder / "manifest.json", shards=[{"file": "x"}]),
        "manifest.json: is damag",
    ),
    "no tokenizer in it": (
        lambda folder: edit(folder / "manifest.json", tokenizer={"name": "char"}),
        "manifest.json: is damaged",
    ),
    "deleted shard": (
        lambda folder: (folder / "tokens/00001.bin").unlink(),
        "tokens/00001.bin: cannot be found, but the manifest names it; run the `torchloom corpus build`",
    ),
    "deleted index": (lambda folder: (folder / "tokens/00001.idx").unlink(), "tokens/00001.idx: cannot be found"),
    "cut shard": (
        lambda folder: os.truncate(folder / "tokens/00001.bin", 10),
        "tokens/00001.bin: has 10 bytes, but the manifest says 44; run the",
    ),
    "cut index": (lambda folder: os.truncate(folder / "tokens/00000.idx", 16), "tokens/00000.idx: has 16 bytes"),
    "other index": (
        lambda folder: (folder / "tokens/00000.idx").write_bytes(bytes(72)),
        "tokens/00000.idx: is not the index of this shard",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_by_name_and_place(tmp_path: Path, damage: str) -> None:
    folder = write_corpus(tmp_path / "corpus", TEXTS, shards=2)
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(DataError) as caught:
        Corpus(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("file", ["tokens/00001.bin", "tokens/00001.idx"])
def test_a_changed_byte_is_found_on_request(tmp_path: Path, file: str) -> None:
    folder = write_corpus(tmp_path, TEXTS, shards=2)
    Corpus(folder, verify=True)
    flip(folder / file)
    Corpus(folder)
    with pytest.raises(DataError, match=r"tokens/00001.bin: it or its index was changed: its SHA-256 differs; run the"):
        Corpus(folder, verify=True)


def test_another_tokenizer_under_its_name_is_refused(tmp_path: Path) -> None:
    corpus = Corpus(write_corpus(tmp_path, TEXTS))
    flip(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match=r"tokenizer.json: is not the tokenizer that this corpus was written with"):
        _ = corpus.tokenizer
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json: the corpus's tokenizer cannot be read"):
        _ = corpus.tokenizer


def test_tokenizers_differ_where_their_names_or_states_do() -> None:
    one = TokenizerRecord("bpe", {}, "{}", 300)
    assert one.hash == TokenizerRecord("bpe", {"path": "x"}, "{}", 300).hash
    assert len({one.hash, TokenizerRecord("word", {}, "{}", 300).hash, TokenizerRecord("bpe", {}, "[]", 300).hash}) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files where the system lists them")
def test_files_stay_few_however_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_OPEN", 3)
    corpus = Corpus(write_corpus(tmp_path, [f"text {'abcdefghijkl'[number]}" for number in range(12)], shards=12))
    before = len(list(Path("/proc/self/fd").iterdir()))
    firsts = [(int(corpus.tokens(number)[5]), int(corpus.offsets(number)[1])) for number in [*range(12), *range(12)]]
    assert firsts == [(number + 2, 7) for number in range(12)] * 2
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 6


def test_nothing_is_read_whole(tmp_path: Path) -> None:
    record = TokenizerRecord("bpe", {}, "{}", 300)
    with ShardWriter(tmp_path, 0, record) as writer:
        writer.add([1], 0)
    size = 1 << 31
    os.truncate(tmp_path / "tokens/00000.bin", 2 * size)  # a hole of 4 GiB
    index = tmp_path / "tokens/00000.idx"
    index.write_bytes(index.read_bytes()[:24] + size.to_bytes(8, "little") + index.read_bytes()[32:])
    write_manifest(tmp_path, [shards.Shard("tokens/00000.bin", size, 1, "")], record)
    tracemalloc.start()
    corpus = Corpus(tmp_path)
    assert corpus.tokens(0)[size - 5 :].tolist() == [0] * 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_corpus_travels_to_another_process_without_its_tokens(tmp_path: Path) -> None:
    corpus = Corpus(write_corpus(tmp_path, ["a" * 100_000]))
    assert len(corpus.tokens(0)) == 100_001
    content = pickle.dumps(corpus)
    assert len(content) < 1000
    assert np.array_equal(pickle.loads(content).tokens(0), corpus.tokens(0))
