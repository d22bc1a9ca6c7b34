"""Tokenizers: exact round trips where promised, the same vocabulary every time, errors that say what to do."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchloom.errors import ConfigError, DataError
from torchloom_text.configs import BPEConfig, CharConfig, WordConfig
from torchloom_text.tokenization import BPETokenizer, CharTokenizer, WordTokenizer

TEXT = "the cat sat on the mat; the dog sat on the log.\n" * 4 + "Ein Bär aß Käse, 猫も。\n"


def trained(tokenizer, *texts):
    tokenizer.train(iter(texts or (TEXT,)))
    return tokenizer


def small_bpe(**fields):
    return BPETokenizer(BPEConfig(vocab_size=270, **fields))


BPE = trained(small_bpe())


@given(st.text(min_size=1))
def test_char_returns_any_text_of_its_own_characters_exactly(text):
    tokenizer = trained(CharTokenizer(CharConfig()), text)
    ids = tokenizer.encode(text)
    assert ids.dtype == torch.int64
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(text)) + 1


@given(st.text())
def test_bpe_returns_any_text_exactly(text):
    assert BPE.decode(BPE.encode(text)) == text


@pytest.mark.parametrize("text", ["<eos>", "a<eos>\r\n\tb ", "", "\x00\ufeff", "é vs e\u0301", "  two  spaces  "])
def test_bpe_returns_hard_texts_exactly_and_takes_no_special_token_from_text(text):
    ids = BPE.encode(text)
    assert BPE.special_id("eos") not in ids
    assert BPE.decode(ids) == text


@given(st.text())
def test_char_with_unk_encodes_any_text_and_marks_what_it_does_not_know(text):
    tokenizer = trained(CharTokenizer(CharConfig()), "abc é")
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(c if c in "abc é" else "\ufffd" for c in text)


def test_char_ids_are_special_tokens_then_characters_by_code_point():
    tokenizer = trained(CharTokenizer(CharConfig(special_tokens=["unk", "mask"])), "cab", "b")
    assert tokenizer.encode("abcz").tolist() == [2, 3, 4, 0]
    assert (tokenizer.special_id("unk"), tokenizer.special_id("mask"), tokenizer.special_id("pad")) == (0, 1, None)
    assert tokenizer.decode([2, 1, 3]) == "a<mask>b"


def test_char_without_unk_has_the_characters_alone_and_refuses_others():
    tokenizer = trained(CharTokenizer(CharConfig(special_tokens=[])), "ba")
    assert tokenizer.vocab_size == 2
    assert tokenizer.encode("ab").tolist() == [0, 1]
    with pytest.raises(DataError) as caught:
        tokenizer.encode("abé")
    assert str(caught.value) == (
        "character 'é' (U+00E9) at position 2 is not in the vocabulary; "
        "add unk to tokenizer.special_tokens, or train on text that has it"
    )


def test_word_keeps_words_met_twice_and_maps_the_rest_to_unk():
    tokenizer = trained(WordTokenizer(WordConfig()), "red, red blue", "Red blue green")
    assert tokenizer.decode(tokenizer.encode("red   green\nblue")) == "red <unk> blue"
    assert tokenizer.vocab_size == 3
    lower = trained(WordTokenizer(WordConfig(lowercase=True)), "Red red")
    assert lower.decode(lower.encode("RED")) == "red"


def test_word_vocab_size_keeps_the_most_frequent_words():
    tokenizer = trained(WordTokenizer(WordConfig(vocab_size=3, min_frequency=1)), "a a a b b c")
    assert tokenizer.decode(tokenizer.encode("a b c")) == "a b <unk>"


def test_word_without_unk_names_the_word_it_does_not_know():
    tokenizer = trained(WordTokenizer(WordConfig(special_tokens=[])), "red red blue blue")
    assert tokenizer.decode(tokenizer.encode("blue red")) == "blue red"
    with pytest.raises(DataError) as caught:
        tokenizer.encode("blue green")
    assert str(caught.value) == (
        "word 'green' at position 5 is not in the vocabulary; "
        "add unk to tokenizer.special_tokens, or train on text that has it"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: WordTokenizer(WordConfig(vocab_size=10)),
            "the training text holds words for 3 tokens only, not for the 10 asked for; set "
            "tokenizer.vocab_size=3 or lower, lower tokenizer.min_frequency=2, or give more text",
        ),
        (
            lambda: BPETokenizer(BPEConfig(vocab_size=999)),
            "the training text holds byte pairs for 263 tokens only, not for the 999 asked for; set "
            "tokenizer.vocab_size=263 or lower, lower tokenizer.min_frequency=2, or give more text",
        ),
        (
            lambda: WordTokenizer(WordConfig(min_frequency=9)),
            "no word of the training text occurs 9 times; give more text or lower tokenizer.min_frequency",
        ),
    ],
)
def test_too_little_text_for_the_vocabulary_says_how_much_there_is(make, message):
    with pytest.raises(DataError) as caught:
        make().train(["red blue", "red blue"])
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [lambda: CharTokenizer(CharConfig()), lambda: WordTokenizer(WordConfig()), small_bpe])
def test_empty_text_is_refused(make):
    with pytest.raises(
        DataError, match=r"^the training text is empty; the tokenizer finds no (characters|words) in it$"
    ):
        make().train(["", ""])


@pytest.mark.parametrize("make", [lambda: CharTokenizer(CharConfig()), lambda: WordTokenizer(WordConfig()), small_bpe])
def test_state_carries_everything_and_is_json(make):
    first, second = trained(make()), make()
    assert not second.trained
    json.loads(first.state())
    second.load_state(first.state())
    assert second.trained
    assert second.state() == first.state()
    assert torch.equal(first.encode(TEXT), second.encode(TEXT))
    assert [second.special_id(name) for name in ("unk", "eos")] == [first.special_id(name) for name in ("unk", "eos")]


def test_bpe_loads_a_tokenizer_file_instead_of_training(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(BPE.state().replace("<eos>", "<|endoftext|>"), encoding="utf-8")
    tokenizer = BPETokenizer(BPEConfig(path=str(file)))
    assert not tokenizer.trained
    tokenizer.train(["other text"])
    assert torch.equal(tokenizer.encode(TEXT), BPE.encode(TEXT))
    assert tokenizer.special_id("eos") == 0


def test_bpe_says_what_is_wrong_with_its_file(tmp_path):
    missing = tmp_path / "missing.json"
    with pytest.raises(DataError) as caught:
        BPETokenizer(BPEConfig(path=str(missing))).train([])
    assert str(caught.value) == (
        f"{missing}: cannot be read; set tokenizer.path to a tokenizer.json of Hugging Face tokenizers"
    )
    cut = tmp_path / "cut.json"
    cut.write_text(BPE.state()[:100])
    with pytest.raises(DataError, match=r"cut\.json: not a tokenizer\.json of Hugging Face tokenizers"):
        BPETokenizer(BPEConfig(path=str(cut))).train([])


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError) as caught:
        CharTokenizer(CharConfig(special_tokens=["unk", "end"]))
    assert str(caught.value) == (
        "tokenizer.special_tokens: 'end' is not a special token\n    choose among pad, unk, bos, eos, mask, cls, sep"
    )
    with pytest.raises(ConfigError) as caught:
        BPETokenizer(BPEConfig(vocab_size=256))
    assert str(caught.value) == (
        "tokenizer.vocab_size: 256 is too small for 256 bytes and 1 special tokens\n    set it to 257 or more"
    )
