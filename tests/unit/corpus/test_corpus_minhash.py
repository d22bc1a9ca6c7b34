"""MinHash: the law of its recall, planted copies, and the same survivors however documents are dealt and tasks run."""

import inspect
import json
import os
import random
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

import numpy as np
from corpus_dedup_runner import deal, make, run_step
from datatrove.executor import LocalPipelineExecutor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchloom_corpus.contracts import StepTally
from torchloom_corpus.dedup import runs
from torchloom_corpus.dedup.configs import MinHashConfig
from torchloom_corpus.dedup.minhash import MinHash
from torchloom_corpus.dedup.words import fold, ngram_hashes, word_hashes, word_pattern, word_spans

# As conf/recipe/fineweb.yaml has it.
FINEWEB = {"bands": 14, "rows": 8, "shingle": 5}


@pytest.fixture(scope="session")
def real_texts():
    """A thousand texts of 60 to 150 words that people wrote: docstrings, and paragraphs of Wikipedia where present."""
    found = {}

    def add(text):
        words = text.split()
        for start in range(0, len(words), 150):
            part = words[start : start + 150]
            if len(part) >= 60:
                found.setdefault(" ".join(part[:8]), " ".join(part))

    if data := os.environ.get("TORCHLOOM_DATA"):
        for line in (Path(data) / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines():
            add(line)
    for topic in topics.values():
        add(topic)
    library = Path(inspect.__file__).parent
    for path in sorted([*library.glob("*.py"), *library.glob("*/*.py"), *library.glob("*/*/*.py")]):
        if len(found) >= 6000:
            break
        if "site-packages" not in path.parts and "test" not in path.parts:
            for text in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8", errors="replace"), re.DOTALL):
                add(text)
    texts = [found[key] for key in sorted(found)]
    random.Random(0).shuffle(texts)
    # The library repeats itself: what is made of others' shingles is no unique document.
    unique, seen = [], set()
    for text in texts:
        shingles = set(ngram_hashes(word_hashes(text), 3).tolist())
        if len(shingles & seen) < 0.2 * len(shingles):
            unique.append(text)
            seen |= shingles
        if len(unique) == 1000:
            return unique
    raise AssertionError(f"only {len(unique)} texts")


def edited(text, share, rng, scattered):
    """Change a share of the words: anywhere, or a passage of them."""
    words = text.split()
    count = max(1, round(share * len(words)))
    start = rng.randrange(len(words) - count + 1)
    for place in rng.sample(range(len(words)), count) if scattered else range(start, start + count):
        words[place] = f"edited{rng.randrange(10**6)}".translate(str.maketrans("0123456789", "abcdefghij"))
    return " ".join(words)


def numbered(texts, name="page"):
    return {f"{name}/{number}": text for number, text in enumerate(texts)}


# Words


def test_words_of_any_script_are_found():
    text = "Café déjà-vu, don't: 3.14 and 1,000; 日本語 ไทย हिन्दी 𐌰𐌱 abc12 __x__"
    words = "Café déjà vu don t 3.14 and 1,000 日 本 語 ไ ท ย हिन्दी 𐌰𐌱 abc12 x"
    assert word_pattern().findall(text) == words.split()
    assert [fold(word) for word in ("CAFÉ", "cafe\u0301", "3.14", "abc12")] == ["cafe", "cafe", "0", "abc0"]


@given(st.text(max_size=200))
@example("\u1cd0")
@example("a \u0301 \u0308 b")
@example("\ufe200A 0A")
@settings(deadline=None)
def test_hashes_and_spans_tell_of_the_same_words(text):
    spans = word_spans(text)
    words = [text[start:end] for start, end in spans.tolist()]
    assert words == word_pattern().findall(text)
    hashes = word_hashes(text)
    assert [word_hashes(word).tolist() for word in words] == [[one] for one in hashes.tolist()]
    folded = [fold(word) for word in words]
    assert all(folded)
    assert len(set(zip(folded, hashes.tolist(), strict=True))) == len(set(folded)) == len(set(hashes.tolist()))


@given(st.text(st.characters(max_codepoint=0x24F), max_size=200))
@settings(deadline=None)
def test_a_folded_text_has_the_same_hashes(text):
    folded = " ".join(fold(word) for word in word_pattern().findall(text))
    np.testing.assert_array_equal(word_hashes(text), word_hashes(folded))


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 6))
def test_ngrams_are_equal_where_their_words_are(words, n):
    hashes = ngram_hashes(np.array(words, np.uint64) * np.uint64(0x9E3779B97F4A7C15), n)
    n = min(n, len(words))
    ngrams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)] if n else []
    assert len(hashes) == len(ngrams)
    assert len(set(hashes.tolist())) == len(set(ngrams))


# The law


@pytest.mark.parametrize(
    ("shared", "shingles", "similarity"), [(140, 170, 0.7), (150, 175, 0.75), (160, 180, 0.8), (170, 185, 0.85)]
)
def test_recall_follows_the_law_with_the_bands_of_fineweb(tmp_path, shared, shingles, similarity):
    # 1,500 pairs: the share found strays by .013 at most (one standard deviation), .04 is three of them.
    pairs, n = 1500, 5
    assert shared / (2 * shingles - shared) == similarity
    texts = {}
    for pair in range(pairs):
        # All words differ, so that k words in a row are k - 4 shingles.
        common = [f"c{pair}w{place}x" for place in range(shared + n - 1)]
        for side in "ab":
            own = [f"{side}{pair}w{place}x" for place in range(shingles - shared)]
            texts[f"{pair}/{side}"] = " ".join(common + own)
    letters = str.maketrans("0123456789", "qwertyuiop")  # digits would all be folded into one
    texts = {identity: text.translate(letters) for identity, text in texts.items()}
    a, b = (set(ngram_hashes(word_hashes(texts[identity]), n).tolist()) for identity in ("0/a", "0/b"))
    assert len(a & b) / len(a | b) == similarity

    outcome = run_step(MinHash, MinHashConfig(**FINEWEB), texts, tmp_path)

    assert set(outcome.dropped) <= {f"{pair}/b" for pair in range(pairs)}  # the first of each pair stays
    found = len(outcome.dropped) / pairs
    assert found == pytest.approx(1 - (1 - similarity**8) ** 14, abs=0.04)
    assert found == pytest.approx({0.7: 0.56, 0.75: 0.77, 0.8: 0.92, 0.85: 0.988}[similarity], abs=0.04)


# Planted copies


def plant(real_texts, scattered):
    """Add copies of 200 texts, in which 1 to 10 % of the words were edited; return all in a random order."""
    rng = random.Random(1)
    originals = rng.sample(range(len(real_texts)), 200)
    texts = numbered(real_texts)
    for original in originals:
        texts[f"page/{original}/copy"] = edited(real_texts[original], rng.uniform(0.01, 0.1), rng, scattered)
    items = list(texts.items())
    rng.shuffle(items)
    return dict(items), {f"page/{original}/copy" for original in originals}


@pytest.mark.parametrize("scattered", [False, True])
def test_planted_copies_are_found_and_unique_documents_stay(tmp_path, real_texts, scattered):
    texts, copies = plant(real_texts, scattered)

    outcome = run_step(MinHash, MinHashConfig(), texts, tmp_path, tasks=3)

    found = copies & set(outcome.dropped)
    assert len(found) >= 0.95 * len(copies)
    assert len(set(outcome.dropped) - copies) <= 0.005 * len(real_texts)
    assert set(outcome.reasons) == {"near duplicate"}
    assert all(outcome.metadata[copy]["duplicate_of"] == copy.removesuffix("/copy") for copy in found)
    assert outcome.tally.histograms["cluster size"]["2"] == len(found)


def test_the_law_tells_which_planted_copies_the_bands_of_fineweb_find(tmp_path, real_texts):
    texts, copies = plant(real_texts, scattered=False)
    outcome = run_step(MinHash, MinHashConfig(**FINEWEB), texts, tmp_path, tasks=3)
    assert set(outcome.dropped) <= copies
    expected = spread = 0.0
    for copy in copies:
        a, b = (set(ngram_hashes(word_hashes(texts[page]), 5).tolist()) for page in (copy, copy.removesuffix("/copy")))
        chance = 1 - (1 - (len(a & b) / len(a | b)) ** 8) ** 14
        expected += chance
        spread += chance * (1 - chance)
    assert len(outcome.dropped) == pytest.approx(expected, abs=3 * spread**0.5)


# Always the same


@pytest.fixture(scope="module")
def copies(real_texts):
    rng = random.Random(2)
    texts = {}
    for number, text in enumerate(real_texts[:120]):
        for copy in range(rng.choice([1, 1, 2, 3, 6])):
            texts[f"site/{number + 50 * copy}/{copy}"] = edited(text, 0.03, rng, scattered=False) if copy else text
    return texts


@pytest.fixture(scope="module")
def one_task(copies, tmp_path_factory):
    return run_step(MinHash, MinHashConfig(), copies, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("tasks", [2, 5])
def test_survivors_do_not_depend_on_tasks_or_order(tmp_path, monkeypatch, copies, one_task, tasks):
    assert 100 < len(one_task.dropped) < 300
    monkeypatch.setattr(runs, "HELD", 50)  # many runs and parts of ranges
    items = list(copies.items())
    random.Random(tasks).shuffle(items)
    outcome = run_step(MinHash, MinHashConfig(), dict(items), tmp_path, tasks=tasks)
    assert outcome.texts == one_task.texts
    assert outcome.metadata == one_task.metadata
    assert outcome.tally.histograms == one_task.tally.histograms


def test_the_first_of_a_cluster_stays_by_numbers_of_its_id(tmp_path, real_texts):
    texts = dict.fromkeys(("page/10", "page/9", "page/100", "page/9a"), real_texts[0])
    outcome = run_step(MinHash, MinHashConfig(), texts, tmp_path, tasks=2)
    assert list(outcome.texts) == ["page/9"]
    assert {metadata["duplicate_of"] for metadata in outcome.metadata.values()} == {"page/9"}


def test_a_chain_is_one_cluster(tmp_path, real_texts):
    chain = [" ".join(text.split()[:60]) for text in real_texts[:6]]
    texts = numbered(" ".join(chain[start : start + 3] * 2) for start in range(4))
    outcome = run_step(MinHash, MinHashConfig(bands=100, rows=2), texts, tmp_path)
    assert list(outcome.texts) == ["page/0"]
    assert outcome.tally.histograms["cluster size"] == {"4-7": 1}


def files_below(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Give:
    """Gives each task its documents."""

    def __init__(self, texts):
        self.texts = texts

    def __call__(self, data, rank, world):
        return iter(deal(self.texts, world)[rank])


def test_files_are_the_same_for_any_number_of_workers_and_after_a_kill(tmp_path, copies):
    folders = [tmp_path / name for name in ("one", "two")]
    for workers, folder in enumerate(folders, 1):
        step = make(MinHash, MinHashConfig(save_index=True), folder)
        pipelines = [([Give(copies), step.observer()], 4), *((stage.pipeline, stage.tasks) for stage in step.passes(4))]
        for number, (pipeline, tasks) in enumerate(pipelines):
            if workers == 2 and number < 2:  # what a task left that was killed half way
                (folder / "runs").mkdir(parents=True, exist_ok=True)
                (folder / "edges" / "00001").mkdir(parents=True, exist_ok=True)
                (folder / "edges" / "00001" / ("local.bin", "00002.bin")[number]).write_bytes(b"cut")
                if number == 0:
                    (folder / "runs" / "00001_000009.bin").write_bytes(b"x" * 36)
            LocalPipelineExecutor(
                pipeline=pipeline,
                tasks=tasks,
                workers=workers,
                start_method="fork" if sys.version_info < (3, 12) else "forkserver",
                logging_dir=str(tmp_path / f"logs{workers}{number}"),
            ).run()
    one, two = map(files_below, folders)
    assert one.keys() == two.keys()
    assert [path for path in one if one[path] != two[path]] == []
    assert len(one) > 20


# Existing corpora


@pytest.mark.parametrize("tasks", [1, 3])
def test_what_stands_in_an_existing_corpus_is_dropped_and_named(tmp_path, real_texts, tasks):
    rng = random.Random(3)
    old = numbered(real_texts[:100], "old")
    corpus = tmp_path / "corpus"
    run_step(MinHash, MinHashConfig(save_index=True), old, tmp_path / "a", tasks=2)
    (corpus / "index").mkdir(parents=True)
    (tmp_path / "a" / "index").rename(corpus / "index" / "minhash")
    new = numbered([edited(text, 0.02, rng, scattered=False) for text in real_texts[50:80]], "copy")
    new |= numbered(real_texts[100:150], "new") | {"again": real_texts[120]}

    outcome = run_step(MinHash, MinHashConfig(against=[str(corpus)]), new, tmp_path / "b", tasks=tasks)

    assert outcome.reasons == {"in existing corpus": 30, "near duplicate": 1}
    assert set(outcome.texts) | {"new/20"} == {identity for identity in new if identity != "again"} - set(
        numbered(range(30), "copy")
    ) | {"again", "new/20"}
    assert outcome.metadata["copy/7"]["duplicate_of"] == f"{corpus}: old/57"


def test_an_index_holds_only_what_stayed(tmp_path, real_texts):
    twice = {"a": real_texts[0], "b": real_texts[0], "c": real_texts[1]}
    run_step(MinHash, MinHashConfig(save_index=True, keep="none"), twice, tmp_path / "a")
    corpus = tmp_path / "corpus"
    (corpus / "index").mkdir(parents=True)
    (tmp_path / "a" / "index").rename(corpus / "index" / "minhash")
    new = {"x": real_texts[0], "y": real_texts[1]}
    outcome = run_step(MinHash, MinHashConfig(against=[str(corpus)]), new, tmp_path / "b")
    assert list(outcome.texts) == ["x"]


def test_with_keep_none_no_member_of_a_cluster_stays(tmp_path, copies, one_task):
    outcome = run_step(MinHash, MinHashConfig(keep="none"), copies, tmp_path, tasks=2)
    clusters = {metadata["duplicate_of"] for metadata in one_task.metadata.values()}
    assert set(outcome.texts) == set(one_task.texts) - clusters
    assert set(outcome.dropped) == set(one_task.dropped) | clusters


def test_unusable_indexes_are_refused_by_name(tmp_path):
    from torchloom.errors import DataError

    with pytest.raises(DataError, match=r"index/minhash: no index of minhash .*\n.*save_index=true"):
        make(MinHash, MinHashConfig(against=[str(tmp_path)]), tmp_path / "work").observer()
    run_step(MinHash, MinHashConfig(save_index=True, bands=9), {"a": "one two three"}, tmp_path)
    corpus = tmp_path / "corpus"
    (corpus / "index").mkdir(parents=True)
    (tmp_path / "index").rename(corpus / "index" / "minhash")
    assert json.loads((corpus / "index" / "minhash" / "about.json").read_text())["bands"] == 9
    with pytest.raises(DataError, match=r"made with .*'bands': 9.*while this build has .*'bands': 28"):
        make(MinHash, MinHashConfig(against=[str(corpus)]), tmp_path / "work").observer()


# Odd documents


def test_documents_without_words_and_empty_tasks_pass(tmp_path, real_texts):
    texts = {"a": "", "b": "", "c": "?!", "d": "?!", "e": "short text", "f": "Short, text!", "g": "\x00 \ud800"}
    outcome = run_step(MinHash, MinHashConfig(save_index=True), texts, tmp_path, tasks=9)
    assert set(outcome.texts) == {"a", "b", "c", "d", "e", "g"}
    nothing = run_step(MinHash, MinHashConfig(save_index=True), {}, tmp_path / "none", tasks=2)
    assert nothing.texts == nothing.dropped == {}
    assert nothing.tally.to_dict() == StepTally("step").to_dict()
