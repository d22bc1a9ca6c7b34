"""Byte, character BPE, WordPiece and Unigram: what comes back exactly, what is learnt, files, and errors."""

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from torchloom.errors import ConfigError, DataError
from torchloom.testing.support import read_text
from torchloom_text.configs import (
    BPEConfig,
    ByteConfig,
    CharBPEConfig,
    CharConfig,
    UnigramConfig,
    WordConfig,
    WordPieceConfig,
)
from torchloom_text.tokenization import (
    SPECIAL_FORMS,
    BPETokenizer,
    ByteTokenizer,
    CharBPETokenizer,
    CharTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
)

TEXT = "the cat sat on the mat; the dog sat on the log.\n" * 4 + "Ein Bär aß Käse, 猫も。\n"
LONG = read_text()[:150_000]
ALL_SPECIAL = list(SPECIAL_FORMS)


def trained(tokenizer, *texts):
    tokenizer.train(iter(texts or (TEXT,)))
    return tokenizer


def every_kind(size):
    return [
        CharTokenizer(CharConfig()),
        ByteTokenizer(ByteConfig()),
        WordTokenizer(WordConfig()),
        BPETokenizer(BPEConfig(vocab_size=size)),
        CharBPETokenizer(CharBPEConfig(vocab_size=size)),
        WordPieceTokenizer(WordPieceConfig(vocab_size=size)),
        UnigramTokenizer(UnigramConfig(vocab_size=size)),
    ]


def names(tokenizers):
    return [type(one).__name__ for one in tokenizers]


LEARNT = [trained(one, LONG) for one in every_kind(700)]
EXACT = [
    trained(ByteTokenizer(ByteConfig(special_tokens=ALL_SPECIAL))),
    trained(BPETokenizer(BPEConfig(vocab_size=270, special_tokens=ALL_SPECIAL))),
    trained(CharBPETokenizer(CharBPEConfig(vocab_size=300, special_tokens=ALL_SPECIAL))),
    trained(UnigramTokenizer(UnigramConfig(vocab_size=290, special_tokens=ALL_SPECIAL))),
]
LOOKALIKES = st.sampled_from(
    [form for forms in SPECIAL_FORMS.values() for form in forms] + ["<0x41>", "<0xE2>", "\u2581", "##", "\uf8ff", "  "]
)


@pytest.mark.parametrize("tokenizer", EXACT, ids=names(EXACT))
@given(st.lists(st.text() | LOOKALIKES).map("".join))
def test_exact_tokenizers_return_any_text_and_take_no_special_token_from_it(tokenizer, text):
    assert tokenizer.exact
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.special_id(name) for name in ALL_SPECIAL}.intersection(ids)
    assert tokenizer.encode_batch([text, "", text])[2].tolist() == ids


def test_only_those_that_lose_nothing_promise_it():
    assert [one.exact for one in LEARNT] == [False, True, False, True, True, False, True]
    assert CharTokenizer(CharConfig(special_tokens=[])).exact
    lossy = [UnigramConfig(vocab_size=700, byte_fallback=False), UnigramConfig(vocab_size=700, normalization="nfkc")]
    assert not any(trained(UnigramTokenizer(config), LONG).exact for config in lossy)


@pytest.mark.parametrize("tokenizer", LEARNT, ids=names(LEARNT))
def test_half_a_surrogate_pair_is_no_error(tokenizer):
    ids = tokenizer.encode("a \ud83d b")
    assert tokenizer.encode_batch(["a \ud83d b"])[0].tolist() == ids.tolist()
    assert "a" in tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer", LEARNT, ids=names(LEARNT))
def test_many_texts_are_encoded_as_each_alone(tokenizer):
    texts = ["", "one", LONG[:3000], "é <eos> 猫 \U0001f40d", LONG[5000:9000]]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(text).tolist()


PRINT_STATES = """
import sys
sys.path.insert(0, {folder!r})
from test_text_tokenizers_subwords import LONG, every_kind
for tokenizer in every_kind(700):
    tokenizer.train([LONG])
    sys.stdout.buffer.write(tokenizer.state().encode())
"""


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_training_gives_the_same_vocabulary_in_every_process(parallel):
    command = [sys.executable, "-c", PRINT_STATES.format(folder=os.path.dirname(__file__))]  # noqa: PTH120
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel}
    there = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout
    assert there.decode() == "".join(tokenizer.state() for tokenizer in LEARNT)


def test_byte_ids_are_special_tokens_then_bytes():
    tokenizer = trained(ByteTokenizer(ByteConfig(special_tokens=["pad", "eos"])))
    assert tokenizer.encode("aé").tolist() == [2 + 97, 2 + 0xC3, 2 + 0xA9]
    assert tokenizer.vocab_size == 258
    assert tokenizer.decode([99, 1, 2 + 0xC3]) == "a<eos>\ufffd"


@pytest.mark.parametrize("make", [CharBPETokenizer, UnigramTokenizer])
def test_without_bytes_an_unknown_character_is_unk(make):
    config = CharBPEConfig if make is CharBPETokenizer else UnigramConfig
    tokenizer = trained(make(config(vocab_size=29, byte_fallback=False)), TEXT)
    ids = tokenizer.encode("the ☃ cat")
    assert (ids == tokenizer.special_id("unk")).sum() == 1
    assert tokenizer.decode(ids).replace("<unk>", "☃") == "the ☃ cat"


def test_normalisation_is_applied():
    tokenizer = trained(CharBPETokenizer(CharBPEConfig(vocab_size=300, normalization="nfkc")), TEXT)
    assert tokenizer.decode(tokenizer.encode("ﬁne e\u0301")) == "fine é"


def test_char_bpe_learns_what_the_bytes_of_plain_ascii_text_learn():
    """On ASCII text a character is a byte, so that both merge the same pairs if their words are the same."""
    text = LONG.encode("ascii", "ignore").decode()
    tokenizer = trained(CharBPETokenizer(CharBPEConfig(vocab_size=700, special_tokens=["unk"])), text)
    merges = json.loads(tokenizer.state())["model"]["merges"]
    reference = json.loads(trained(BPETokenizer(BPEConfig(vocab_size=600)), text).state())["model"]["merges"]
    assert merges[:30] == [[one.replace("Ġ", " ").replace("Ċ", "\n") for one in pair] for pair in reference[:30]]


def test_unigram_divides_as_the_library_does_and_is_as_short_as_bpe():
    tokenizer = LEARNT[-1]
    state = json.loads(tokenizer.state())
    reference = HFTokenizer(models.Unigram([(piece, score) for piece, score in state["model"]["vocab"]], 0, True))
    reference.pre_tokenizer = HFTokenizer.from_str(tokenizer.state()).pre_tokenizer
    assert tokenizer.encode(LONG).tolist() == reference.encode(LONG).ids
    lengths = {type(one).__name__: len(one.encode(LONG)) for one in LEARNT}
    assert lengths["UnigramTokenizer"] < 1.1 * lengths["BPETokenizer"]


def test_wordpiece_learns_as_short_a_code_as_the_library():
    reference = BertWordPieceTokenizer()
    reference.train_from_iterator([LONG], vocab_size=700, show_progress=False)
    ours = len(LEARNT[5].encode(LONG))
    assert ours == pytest.approx(len(reference.encode(LONG, add_special_tokens=False).ids), rel=0.02)


def test_wordpiece_reads_berts_vocabulary_and_encodes_as_the_library(tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "ca", "##t", "un", "##break", "##able", "!", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = trained(WordPieceTokenizer(WordPieceConfig(path=str(path))))
        reference = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
        for text in ("The CAT!", "unbreakable é snow", "a" * 200):
            assert tokenizer.encode(text).tolist() == reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.special_id("sep") not in tokenizer.encode("the cat [SEP]")
        ids = [tokenizer.special_id(name) for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")]
        assert ids == [0, 1, 2, 3, 4, 2, 3]
        assert tokenizer.vocab_size == len(vocabulary)
        assert tokenizer.decode(tokenizer.encode("the cat unbreakable!")) == "the cat unbreakable!"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[UNK]", "a", "b", "a"], "line 4 repeats 'a' of line 2; a vocab.txt of BERT has one piece a line, each once"),
        (["a", "b"], "has no <unk> or [UNK]; a vocab.txt of BERT has one piece a line"),
        (["[UNK]", "Cat"], "holds pieces with capital letters; set tokenizer.lowercase=false"),
    ],
)
def test_wordpiece_says_what_is_wrong_with_a_vocabulary(tmp_path, lines, message):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        trained(WordPieceTokenizer(WordPieceConfig(path=str(file))))
    assert str(caught.value) == f"{file}: {message}"


def test_wordpiece_with_a_cased_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\nCat\ncat", encoding="utf-8")
    tokenizer = trained(WordPieceTokenizer(WordPieceConfig(path=str(tmp_path), lowercase=False)))
    assert tokenizer.encode("Cat cat dog").tolist() == [1, 2, 0]


def test_cls_and_sep_of_our_own_are_not_begin_and_end():
    tokenizer = LEARNT[5]
    assert [tokenizer.special_id(name) for name in ("pad", "unk", "cls", "sep", "mask")] == [0, 1, 2, 3, 4]
    assert tokenizer.special_id("bos") is None
    assert tokenizer.special_id("eos") is None


@pytest.mark.parametrize("number", range(2, 7), ids=names(LEARNT)[2:])
def test_a_file_or_its_folder_takes_the_place_of_training(tmp_path, number):
    source = LEARNT[number]
    (tmp_path / "tokenizer.json").write_text(source.state(), encoding="utf-8")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        config = type(source.config)(path=str(path), special_tokens=[])
        loaded = trained(type(source)(config), "nothing to do with it")
        assert torch.equal(loaded.encode(LONG[:5000]), source.encode(LONG[:5000]))
        assert loaded.exact == source.exact
        assert loaded.special_id("unk") == source.special_id("unk")


def test_a_file_of_another_kind_names_the_tokenizer_to_choose(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(LEARNT[6].state(), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        trained(BPETokenizer(BPEConfig(path=str(file))))
    assert str(caught.value) == (f"{file}: holds a tokenizer of the kind Unigram, not BPE; choose tokenizer=unigram")


def test_a_published_design_promises_only_what_it_keeps(tmp_path):
    """One with SentencePiece's mark turns the mark itself into a space, and one that adds a space first returns it."""
    marked = HFTokenizer(
        models.BPE({**{f"<0x{byte:02X}>": byte for byte in range(256)}, "▁": 256}, [], byte_fallback=True)
    )
    marked.pre_tokenizer = pre_tokenizers.Metaspace()
    prefixed = HFTokenizer.from_str(LEARNT[3].state())
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    lowered = HFTokenizer.from_str(LEARNT[3].state())
    lowered.normalizer = normalizers.Lowercase()
    added = HFTokenizer.from_str(LEARNT[3].state())
    added.add_tokens(["Ġé"])
    for number, hf in enumerate((marked, prefixed, lowered, added)):
        file = tmp_path / f"{number}.json"
        hf.save(str(file))
        assert not trained(BPETokenizer(BPEConfig(path=str(file)))).exact


def test_ids_stay_below_vocab_size_where_a_file_leaves_out_some(tmp_path):
    hf = HFTokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    hf.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.save(str(tmp_path / "tokenizer.json"))
    tokenizer = trained(WordTokenizer(WordConfig(path=str(tmp_path))))
    assert tokenizer.encode("b").tolist() == [7]
    assert tokenizer.vocab_size == 8


def test_a_text_that_a_file_has_no_token_for_is_an_error(tmp_path):
    HFTokenizer(models.Unigram([("a", -1.0)])).save(str(tmp_path / "tokenizer.json"))
    tokenizer = trained(UnigramTokenizer(UnigramConfig(path=str(tmp_path))))
    with pytest.raises(DataError, match=r"^a part of the text has no token, and there is no unknown token \("):
        tokenizer.encode("b")


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (
            CharBPETokenizer(CharBPEConfig(vocab_size=999)),
            "the training text holds pairs for 271 tokens only, not for the 999 asked for; set "
            "tokenizer.vocab_size=271 or lower, lower tokenizer.min_frequency=2, or give more text",
        ),
        (
            UnigramTokenizer(UnigramConfig(vocab_size=999)),
            "the training text holds pieces for 265 tokens only, not for the 999 asked for; set "
            "tokenizer.vocab_size=265 or lower, or give more text",
        ),
        (
            WordPieceTokenizer(WordPieceConfig(vocab_size=999)),
            "the training text holds pieces of words for 24 tokens only, not for the 999 asked for; set "
            "tokenizer.vocab_size=24 or lower, lower tokenizer.min_frequency=2, or give more text",
        ),
        (
            CharBPETokenizer(CharBPEConfig(vocab_size=260)),
            "the training text has 7 different characters for the 2 tokens that are left for them; set "
            "tokenizer.vocab_size=265 or higher, or choose tokenizer=bpe",
        ),
        (
            UnigramTokenizer(UnigramConfig(vocab_size=260)),
            "the training text has more different characters than the 2 tokens that are left for them; raise "
            "tokenizer.vocab_size=260, or choose tokenizer=bpe",
        ),
        (
            WordPieceTokenizer(WordPieceConfig(vocab_size=10)),
            "the training text has 6 different characters, which take 17 of the 10 tokens asked for; set "
            "tokenizer.vocab_size=17 or higher",
        ),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_text_says_what_would(tokenizer, message):
    with pytest.raises(DataError) as caught:
        tokenizer.train(["red blue", "red blue"])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: WordPieceTokenizer(WordPieceConfig(special_tokens=["pad"])),
            "tokenizer.special_tokens: ['pad'] has no unk, which wordpiece cannot do without\n"
            "    add unk, or choose tokenizer=bpe",
        ),
        (
            lambda: UnigramTokenizer(UnigramConfig(special_tokens=["eos"])),
            "tokenizer.special_tokens: ['eos'] has no unk, which unigram cannot do without\n"
            "    add unk, or choose tokenizer=bpe",
        ),
        (
            lambda: CharBPETokenizer(CharBPEConfig(special_tokens=[], byte_fallback=False)),
            "tokenizer.special_tokens: [] has no unk, which stands for unknown characters without "
            "tokenizer.byte_fallback\n    add unk, or set tokenizer.byte_fallback",
        ),
        (
            lambda: CharBPETokenizer(CharBPEConfig(vocab_size=200)),
            "tokenizer.vocab_size: 200 leaves nothing beside 258 special tokens and bytes\n    set it to 259 or more",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message
