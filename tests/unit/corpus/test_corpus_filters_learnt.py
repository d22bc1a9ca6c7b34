"""Filters that learn from samples: the n-gram model's laws, and how well both tell real text apart."""

import json
import math
import os
import pydoc_data.topics
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom.errors import ConfigError, DataError

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from torchloom_corpus.contracts import Document, StepTally
from torchloom_corpus.filters import classifier, perplexity
from torchloom_corpus.filters.classifier import QualityClassifier
from torchloom_corpus.filters.configs import PerplexityConfig, QualityClassifierConfig
from torchloom_corpus.filters.perplexity import ByteModel, Perplexity
from torchloom_corpus.filters.samples import Samples, hold_out


def started(step, rank=0):
    step.start(StepTally("step"), rank, 4)
    return step


def kneser_ney(ring: bytes, order: int):
    """Interpolated Kneser-Ney over a ring of bytes, written down from its definition."""
    grams = {n: Counter((ring * (n + 1))[at : at + n] for at in range(len(ring))) for n in range(1, order + 1)}
    counts = {order: grams[order]}
    for n in range(1, order):
        counts[n] = Counter(gram[1:] for gram in grams[n + 1])
    discounts = {}
    for n, found in counts.items():
        once, twice = list(found.values()).count(1), list(found.values()).count(2)
        discounts[n] = once / (once + 2 * twice) if once and twice else 0.5
    after = {n: defaultdict(dict) for n in counts}
    for n, found in counts.items():
        for gram, count in found.items():
            after[n][gram[:-1]][gram[-1:]] = count

    def probability(context: bytes, byte: bytes) -> float:
        value = 1 / 256
        for n in range(1, order + 1):
            if len(context) < n - 1:
                break
            followers = after[n].get(context[len(context) - n + 1 :] if n > 1 else b"")
            if followers:
                total = sum(followers.values())
                share = max(followers.get(byte, 0) - discounts[n], 0) / total
                value = share + discounts[n] * len(followers) / total * value
        return value

    return probability


texts = st.text(st.sampled_from("abc\né"), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=3), texts, st.integers(1, 8))
def test_the_model_is_kneser_neys(training, text, order) -> None:
    model = ByteModel(training, order)
    probability = kneser_ney(("\n".join(training) + "\n").encode(), order)
    data = text.encode()
    expected = [math.log(probability(data[max(0, at - order + 1) : at], data[at : at + 1])) for at in range(len(data))]
    np.testing.assert_allclose(model.log_probabilities(data), expected, rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(texts, texts, st.integers(1, 8))
def test_probabilities_add_up_to_one_in_every_context(training, context, order) -> None:
    model = ByteModel([training], order)
    shares = [math.exp(model.log_probabilities(context.encode() + bytes([byte]))[-1]) for byte in range(256)]
    assert sum(shares) == pytest.approx(1, rel=1e-9)


def test_a_long_text_is_scored_in_pieces_as_in_one(monkeypatch) -> None:
    model = ByteModel(list(pydoc_data.topics.topics.values())[:20], 5)
    text = pydoc_data.topics.topics["typesseq"]
    whole = model.perplexity(text)
    for size in (1, 7, 1000):
        monkeypatch.setattr(perplexity, "CHUNK", size)
        assert model.perplexity(text[: 500 if size == 1 else None]) == pytest.approx(
            whole if size > 1 else whole_of(model, text[:500]), rel=1e-5
        )
    assert model.perplexity("") == math.inf
    assert model.perplexity("half \ud800 a pair") > 1


def whole_of(model: ByteModel, text: str) -> float:
    return math.exp(-model.log_probabilities(b"\n" + text.encode())[1:].mean())


# --- samples


def test_samples_come_from_folders_paragraphs_and_json_lines(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("one\n\nstill one", "utf-8")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jsonl").write_text('{"text": "two"}\n\n{"text": "one\\n\\nstill one"}\n', "utf-8")
    (tmp_path / "ignored.html").write_text("no", "utf-8")
    assert sorted(Samples.at(str(tmp_path), "place").read(1, 100)) == ["one\n\nstill one", "two"]
    assert sorted(Samples.at(str(tmp_path / "a.txt"), "place").read(1, 100)) == ["one", "still one"]
    assert sorted(Samples.at(str(tmp_path / "more/b.jsonl"), "place").read(1, 100)) == ["one\n\nstill one", "two"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=3), max_size=30),
    st.integers(1, 9),
)
def test_too_many_samples_are_chosen_from_whatever_their_order(texts, most) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for order in (texts, texts[::-1]):
            patch.setattr(Samples, "_texts", lambda _, __, order=order: iter(order))
            found.append(Samples("place", False, (("file", 0, 0),)).read(0, most))
    different = {text.strip() for text in texts if text.strip()}
    assert found[0] == found[1]
    assert len(found[0]) == len(set(found[0])) == min(most, len(different))
    assert set(found[0]) <= different
    learnt_from, held_out = hold_out(found[0])
    assert sorted(learnt_from + held_out) == sorted(found[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "fine"}\n{"text": ', 'line 2 is no JSON object with a field "text"'),
        (b'{"content": "x"}\n', 'line 1 is no JSON object with a field "text"'),
        (b"[1]\n", 'line 1 is no JSON object with a field "text"'),
        (b'{"text": 3}\n', 'the field "text" of .*line 1 is no text but int'),
        (b'{"text": "caf\xe9"}\n', "is not UTF-8"),
    ],
)
def test_samples_that_cannot_be_read_are_named(content, message, tmp_path) -> None:
    path = tmp_path / "good.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"steps\.perplexity\.good: .*{message}"):
        started(Perplexity(PerplexityConfig(good=str(path))))


def test_missing_and_too_few_samples_are_refused_by_name(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"steps\.perplexity\.good: no samples are given"):
        Perplexity(PerplexityConfig())
    with pytest.raises(DataError, match=rf"steps\.perplexity\.good: there is no file or folder {tmp_path}/none\."):
        Perplexity(PerplexityConfig(good=str(tmp_path / "none")))
    with pytest.raises(DataError, match=rf"steps\.perplexity\.good: {tmp_path} is or has no \.txt or \.jsonl file"):
        Perplexity(PerplexityConfig(good=str(tmp_path)))
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("\n\n".join(f"sample {number}" for number in range(99)))
    bad.write_text("\n\n".join(["the same"] * 99))
    with pytest.raises(DataError, match=r"steps\.perplexity\.good: 99 different samples are too few .* at least 100\."):
        started(Perplexity(PerplexityConfig(good=str(good))))
    with pytest.raises(ConfigError, match=r"steps\.quality_classifier\.bad: no samples are given"):
        QualityClassifier(QualityClassifierConfig(good=str(good)))
    with pytest.raises(
        DataError, match=r"steps\.quality_classifier\.bad: 1 different samples are too few .* least 50\."
    ):
        started(QualityClassifier(QualityClassifierConfig(good=str(good), bad=str(bad))))


# --- telling text apart


def paragraphs_of_help() -> list[str]:
    chapters = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    return [part for chapter in chapters for part in chapter.split("\n\n") if len(part) >= 200]


def pieces_of_code() -> list[str]:
    files = [path for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")) if path.name != "this.py"]
    sources = [path.read_text("utf-8") for path in files[:60]]
    return [source[at : at + 1500] for source in sources for at in range(0, len(source) - 1500, 3000)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two kinds of text, half of each to learn from; the other half is of other chapters and modules."""
    folder = tmp_path_factory.mktemp("samples")
    prose, code = paragraphs_of_help(), pieces_of_code()
    half = len(prose) // 2, len(code) // 2
    (folder / "good.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in prose[: half[0]]), "utf-8")
    (folder / "bad.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in code[: half[1]]), "utf-8")
    return folder, prose[half[0] :], code[half[1] :]


def kept(step, texts) -> float:
    return sum(step.process(Document(text, "1")) is None for text in texts) / len(texts)


def test_perplexity_keeps_text_like_the_samples(samples) -> None:
    folder, prose, code = samples
    step = started(Perplexity(PerplexityConfig(good=str(folder / "good.jsonl"))))
    held_out = step.tally.counts["good samples held out"]
    assert held_out >= 50
    assert step.tally.counts["good samples held out and let through"] / held_out == pytest.approx(0.95, abs=0.02)
    assert kept(step, prose) >= 0.9  # measured: .919
    assert kept(step, code) <= 0.25  # measured: .204; the modules hold prose, and the chapters code


def test_perplexity_of_an_encyclopedia_drops_plays_and_novels(tmp_path) -> None:
    if "TORCHLOOM_DATA" not in os.environ:
        pytest.skip("TORCHLOOM_DATA is not set")
    data = Path(os.environ["TORCHLOOM_DATA"])

    def paragraphs(path: Path, gap: str) -> list[str]:
        return [text for text in path.read_text("utf-8").split(gap) if len(text) > 200]

    good = tmp_path / "good.txt"
    good.write_text("\n\n".join(paragraphs(data / "wikitext2/valid.txt", "\n")), "utf-8")
    step = started(Perplexity(PerplexityConfig(good=str(good))))
    assert kept(step, paragraphs(data / "wikitext2/test.txt", "\n")[::4]) >= 0.78  # of other articles; measured: .80
    assert kept(step, paragraphs(data / "tinyshakespeare/input.txt", "\n\n")[::4]) <= 0.005  # measured: 0
    assert kept(step, paragraphs(sorted((data / "french").glob("*.txt"))[0], "\n")[:300]) <= 0.005  # measured: 0


def test_perplexity_lets_through_what_is_at_its_threshold(samples) -> None:
    folder, prose, _ = samples
    step = started(Perplexity(PerplexityConfig(good=str(folder / "good.jsonl"))))
    document = Document(prose[0], "1")
    step.process(document)
    step.threshold = document.metadata["perplexity"]
    assert step.process(document) is None
    step.threshold -= 1e-9
    assert step.process(document) == "perplexity too high"
    assert step.process(Document("", "1")) == "perplexity too high"


def test_a_lower_percentile_lets_less_through(samples) -> None:
    folder, prose, _ = samples
    shares = [
        kept(started(Perplexity(PerplexityConfig(good=str(folder / "good.jsonl"), percentile=percentile))), prose)
        for percentile in (20, 60, 100)
    ]
    assert shares == sorted(set(shares))


def test_the_classifier_tells_good_from_bad(samples) -> None:
    folder, prose, code = samples
    step = started(QualityClassifier(QualityClassifierConfig(str(folder / "good.jsonl"), str(folder / "bad.jsonl"))))
    counts = step.tally.counts
    assert counts["good samples held out and let through"] / counts["good samples held out"] >= 0.95
    assert counts["bad samples held out and dropped"] / counts["bad samples held out"] >= 0.95
    assert kept(step, prose) >= 0.95  # measured: .965
    assert kept(step, code) <= 0.1  # measured: .068


def test_the_classifiers_score_is_scikit_learns(samples) -> None:
    folder, prose, code = samples
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    good, bad = (str(folder / f"{kind}.jsonl") for kind in ("good", "bad"))
    goods, bads = (hold_out(Samples.at(path, "place").read(1, 10_000))[0] for path in (good, bad))
    reference = make_pipeline(
        HashingVectorizer(n_features=2**18, ngram_range=(1, 2), alternate_sign=False, token_pattern=r"\w+|[^\w\s]"),
        LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear", random_state=0),
    ).fit(goods + bads, [1] * len(goods) + [0] * len(bads))
    step = started(QualityClassifier(QualityClassifierConfig(good, bad)))
    for text in [*prose[:50], *code[:50], "", "?"]:
        document = Document(text, "1")
        step.process(document)
        assert document.metadata["quality"] == pytest.approx(reference.predict_proba([text])[0, 1], abs=1e-6)
        step.config = QualityClassifierConfig(good, bad, min_score=document.metadata["quality"])
        assert step.process(document) is None


@pytest.mark.parametrize("rank", [0, 3])
def test_every_task_learns_the_same_and_one_counts(samples, rank) -> None:
    folder, prose, code = samples
    good, bad = str(folder / "good.jsonl"), str(folder / "bad.jsonl")
    for make in (
        lambda: Perplexity(PerplexityConfig(good=good)),
        lambda: QualityClassifier(QualityClassifierConfig(good, bad)),
    ):
        found = []
        for _ in range(2):
            perplexity._learn.cache_clear()
            classifier._learn.cache_clear()
            step = started(make(), rank)
            documents = [Document(text, "1") for text in (*prose[:40], *code[:40])]
            found.append([(step.process(document), document.metadata) for document in documents])
            assert bool(step.tally.counts) == (rank == 0)
        assert found[0] == found[1]


def test_samples_that_change_are_learnt_anew(tmp_path) -> None:
    path = tmp_path / "good.txt"
    thresholds = []
    for word in ("alpha", "beta"):
        path.write_text("\n\n".join(f"{word} {number} {word * (number % 7)}" for number in range(150)))
        os.utime(path, ns=(1, len(thresholds) + 1))
        thresholds.append(started(Perplexity(PerplexityConfig(good=str(path)))).threshold)
    assert thresholds[0] != thresholds[1]
