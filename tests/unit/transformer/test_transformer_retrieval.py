"""Pieces of a corpus: what is found, how it is read, and that a causal network looks up by what stands before alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_made import FORMS, SDPA, close

import torchloom
from torchloom.contracts.attention import AttentionMask
from torchloom.contracts.spec import Seq2SeqSpec, SeriesSpec, Spec, TokenSpec
from torchloom.errors import ConfigError, DataError, UnsupportedError
from torchloom_text.configs import WordConfig
from torchloom_text.tokenization import WordTokenizer
from torchloom_transformer.configs import EncoderConfig, RetrievalConfig
from torchloom_transformer.encoder import Encoder
from torchloom_transformer.retrieval import Index
from torchloom_transformer.sizes import parameter_count

LINES = (
    "in the red house lives a cat",
    "in the blue house lives a dog",
    "a cat and a dog and a mouse",
    "the mouse is small",
    "the red red dog is there",
)
CONTEXT = 24


def tokenizer() -> WordTokenizer:
    made = WordTokenizer(WordConfig(special_tokens=["pad", "unk", "cls", "sep"], min_frequency=1))
    made.train([*LINES, "who lives where , nobody knows"])
    return made


def make(form: str, corpus: Path, *, retrieval: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return a network in double precision whose weights are large enough that what is looked up shows."""
    config, target, _ = FORMS[form]
    words = tokenizer()
    size = words.vocab_size
    spec: Spec = TokenSpec(vocab_size=size, context_length=CONTEXT)
    if form == "encoder_decoder":
        spec = Seq2SeqSpec(vocab_size=size, source_length=CONTEXT, target_length=CONTEXT)
    torch.manual_seed(0)
    options = {"d_model": 16, "num_layers": 2, "num_heads": 4, "init_std": 0.3, **options}
    looks = RetrievalConfig(**{"path": str(corpus), "piece_length": 4, **(retrieval or {})})
    network = target(config(**options, retrieval=looks), spec, SDPA)
    network.take_tokenizer(words)
    return network.double().eval()


def index_of(network: Any) -> Index:
    index: Index = network.retrieval.index(torch.device("cpu"))
    return index


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES) + "\n\n", encoding="utf-8")
    return path


def asked(*texts: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [tokenizer().encode(text) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def drawn(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(4, tokenizer().vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_what_is_found_has_the_greatest_cosine_of_tf_idf(corpus: Path) -> None:
    texts = ["the cat lives in the red house", "is the mouse red red red", "who", "a dog and a dog"]
    network = make("encoder", corpus, retrieval={"piece_length": 12, "pieces": 5})
    found = network.retrieval.look_up(*asked(*texts)).tolist()

    documents = [Counter(line.split()) for line in LINES]
    rarity = {word: math.log(len(LINES) / sum(word in one for one in documents)) for line in documents for word in line}
    for text, places in zip(texts, found, strict=True):
        words = Counter(text.split())
        alike = []
        for line in documents:
            product = sum(words[word] * line[word] * rarity[word] ** 2 for word in words if word in line)
            alike.append(product / math.sqrt(sum((line[word] * rarity[word]) ** 2 for word in line)))
        assert sorted(places) == [0, 1, 2, 3, 4]
        ranked = [alike[place] for place in places]
        assert ranked == pytest.approx(sorted(alike, reverse=True))


def test_padding_and_special_tokens_are_not_looked_up(corpus: Path) -> None:
    network = make("encoder", corpus)
    words = tokenizer()
    (row,) = asked("the small mouse")[0]
    special = torch.tensor([words.special_id(name) for name in ("cls", "sep", "unk", "pad")])
    behind = torch.cat((row, special, words.encode("red red dog")))
    alone = network.retrieval.look_up(row[None])
    assert torch.equal(network.retrieval.look_up(behind[None], torch.tensor([len(row) + 4])), alone)


@pytest.mark.parametrize(("cut", "count"), [("lines", 9), ("running", 8)])
def test_pieces_hold_the_whole_text(corpus: Path, cut: str, count: int) -> None:
    index = index_of(make("encoder", corpus, retrieval={"cut": cut}))
    assert len(index.tokens) == count
    pieces = [row[:length] for row, length in zip(index.tokens, index.lengths, strict=True)]
    assert torch.equal(torch.cat(pieces), tokenizer().encode(" ".join(LINES)))
    assert max(map(len, pieces)) == 4


def test_a_folder_is_read_file_by_file(tmp_path: Path, corpus: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    for number, line in enumerate(LINES):
        where = folder / "inner" if number % 2 else folder
        (where / f"{number}.txt").write_text(line, encoding="utf-8")
    one, other = index_of(make("encoder", corpus)), index_of(make("encoder", folder))
    assert sorted(one.tokens.tolist()) == sorted(other.tokens.tolist())


def test_what_is_read_are_the_pieces_alone_one_behind_the_other(corpus: Path) -> None:
    network = make("encoder", corpus, retrieval={"pieces": 3})
    tokens, lengths = asked("in the red house lives a small cat", "mouse")
    retrieval, index = network.retrieval, index_of(network)
    found = retrieval(network.embeddings, tokens, lengths)
    for row, places in enumerate(retrieval.look_up(tokens, lengths)):
        parts = []
        for place in places:
            piece = index.tokens[place, : index.lengths[place]][None]
            parts.append(retrieval.stack(network.embeddings(piece), AttentionMask())[0])
        wanted = torch.cat(parts)
        assert found.mask.key_lengths[row] == len(wanted)
        close(found.vectors[row, : len(wanted)], wanted)


@pytest.mark.parametrize("form", FORMS)
def test_what_a_piece_says_reaches_the_vectors(form: str, corpus: Path) -> None:
    tokens, lengths = asked("who lives in the red house", "where is the small mouse")

    def vectors() -> torch.Tensor:
        network = make(form, corpus, retrieval={"piece_length": 8, "pieces": 1})
        if form == "encoder_decoder":
            return network.encode(tokens, lengths).vectors[:, 0]
        return network.features(tokens, lengths=lengths)

    before = vectors()
    # The animals change places: no word is rarer than before.
    corpus.write_text(
        corpus.read_text().replace("a cat\n", "a frog\n").replace("a dog\n", "a cat\n").replace("frog", "dog")
    )
    after = vectors()
    assert (before[0] - after[0]).abs().max() > 1e-3
    close(before[1], after[1])


def test_rows_do_not_look_up_for_each_other(corpus: Path) -> None:
    network = make("encoder", corpus)
    tokens, lengths = asked("who lives in the red house", "where is the small mouse , nobody knows")
    together = network.features(tokens, lengths=lengths)
    close(network.features(tokens[:1, : lengths[0]]), together[:1])


def test_a_causal_network_looks_up_by_what_stands_before_the_window(corpus: Path) -> None:
    network = make("decoder", corpus)
    tokens = drawn(2, 15)
    vectors = network.sequence(tokens)
    for cut in range(1, 15):
        changed = torch.cat((tokens[:, :cut], drawn(2, 15 - cut, seed=cut)), dim=1)
        close(network.sequence(changed)[:, :cut], vectors[:, :cut])
        close(network.sequence(tokens[:, :cut]), vectors[:, :cut])


def test_the_first_window_finds_nothing_and_later_ones_do(corpus: Path) -> None:
    network = make("decoder", corpus)
    tokens = drawn(2, 12)
    before = network.sequence(tokens)
    index_of(network).tokens[:] = 5
    after = network.sequence(tokens)
    close(after[:, :4], before[:, :4])
    assert ((after - before)[:, 4:].abs().amax((0, 2)) > 1e-3).all()


@pytest.mark.parametrize("options", [{}, {"positions": "learned"}, {"recurrence": "fixed", "recurrent_steps": 2}])
def test_a_cache_changes_nothing(corpus: Path, options: dict[str, Any]) -> None:
    network = make("decoder", corpus, **options)
    tokens = drawn(3, 17)
    whole = network.sequence(tokens)
    with torch.no_grad():
        state = network.new_state(3, 17)
        parts = [network.sequence(part, state=state) for part in tokens.split([3, 1, 1, 6, 1, 5], dim=1)]
        close(torch.cat(parts, dim=1), whole)
        state = network.new_state(3, 17)
        network.sequence(tokens[:, :9], state=state)
        rows = torch.tensor([2, 2, 0])
        state.reorder(rows)
        close(network.sequence(tokens[rows, 9:], state=state), whole[rows, 9:])


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_as_many_as_are_told_and_none_is_the_corpus(form: str, corpus: Path) -> None:
    network = make(form, corpus, recurrence="fixed", recurrent_steps=3)
    count = sum(one.numel() for one in network.parameters())
    assert parameter_count(network.config, tokenizer().vocab_size, CONTEXT) == count
    assert network.state_dict().keys() == {name for name, _ in network.named_parameters(remove_duplicate=False)}
    tokens = drawn(2, 9)
    output = network.seq2seq(tokens, tokens) if form == "encoder_decoder" else network.features(tokens)
    output.sum().backward()
    untouched = [name for name, one in network.named_parameters() if one.grad is None]
    assert untouched == []


def test_documents_told_apart_are_refused(corpus: Path) -> None:
    mask = AttentionMask(documents=torch.zeros(2, 8, dtype=torch.int64))
    for form in ("decoder", "encoder"):
        with pytest.raises(UnsupportedError, match=r"a row is looked up as a whole, but .* dataset.packing=stream"):
            make(form, corpus).sequence(drawn(2, 8), mask=mask)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "none.txt",
            None,
            "none.txt: cannot be read: No such file or directory; set architecture.retrieval.path to text",
        ),
        ("bytes.txt", b"\xff\xfe\xfa", "bytes.txt: is not UTF-8 text; set architecture.retrieval.path to text"),
        ("empty.txt", b" \n\n", "empty.txt: holds no text to look up; set architecture.retrieval.path to some"),
        ("", None, "holds no .txt file with text to look up; set architecture.retrieval.path to some"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        make("encoder", tmp_path / name)
    assert message in str(caught.value)


def test_pieces_longer_than_the_positions_and_data_that_is_no_text_are_refused(corpus: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make("decoder", corpus, retrieval={"piece_length": 25})
    assert str(caught.value) == (
        "architecture.retrieval.piece_length: pieces of 25 tokens do not fit into the network's 24 positions\n"
        "    set it to 24 or less, or raise dataset.context_length"
    )
    config = EncoderConfig(d_model=16, retrieval=RetrievalConfig(path=str(corpus)))
    with pytest.raises(ConfigError, match=r"text is looked up by text, but the dataset gives series\n    leave it out"):
        Encoder(config, SeriesSpec(channels=2, context_length=64), SDPA)


def test_a_network_without_its_tokenizer_says_so(corpus: Path) -> None:
    config = EncoderConfig(d_model=16, retrieval=RetrievalConfig(path=str(corpus), piece_length=4))
    network = Encoder(config, TokenSpec(vocab_size=9, context_length=8), SDPA)
    with pytest.raises(UnsupportedError, match="no corpus has been read to look up in: call take_tokenizer"):
        network.features(torch.zeros(1, 3, dtype=torch.int64))


def test_a_run_reads_its_corpus_again_and_another_may_take_its_place(tmp_path: Path) -> None:
    words = ["experiment=facts", "dataset.examples=60", "dataset.eval_examples=20", "dataset.batch_size=8"]
    small = ["architecture.d_model=8", "architecture.num_layers=1", "trainer.max_steps=2", "trainer.max_epochs=null"]
    quiet = ["trainer.accelerator=cpu", "trainer.progress=none"]
    corpus = tmp_path / "made" / "facts.txt"
    config = torchloom.compose([*words, *small, *quiet, f"dataset.corpus={corpus}"])
    summary = torchloom.train(config, tmp_path / "run")
    again = torchloom.load(tmp_path / "run", device="cpu").evaluate("test")[0]
    assert again["test/loss"] == pytest.approx(summary["metrics"]["test/loss"], rel=1e-5)

    other = tmp_path / "other.txt"
    other.write_text("In alpha 0 there is nothing.\n")
    moved = torchloom.load(tmp_path / "run", [f"architecture.retrieval.path={other}"], device="cpu")
    assert moved.evaluate("test")[0]["test/loss"] != again["test/loss"]
    corpus.unlink()
    with pytest.raises(DataError, match=r"facts.txt: cannot be read: No such file or directory"):
        torchloom.load(tmp_path / "run", device="cpu")
