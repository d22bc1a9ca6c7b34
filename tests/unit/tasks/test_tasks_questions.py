"""Questions: windows that lose nothing, spans that stand for the answer, and answers that do not stand where they say."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from task_parts import SPECIAL, data, everything, said, words

from torchloom.errors import ConfigError, DataError
from torchloom_tasks.configs import SquadConfig
from torchloom_tasks.questions import Answer, Question, Squad, WordSpans, windows
from torchloom_text.configs import BPEConfig, CharConfig, WordPieceConfig
from torchloom_text.tokenization import BPETokenizer, CharTokenizer, WordPieceTokenizer

CONTEXT = "Ada Lovelace (1815–1852) wrote the first program.  It was for Babbage's engine."


def article(context=CONTEXT, text="Ada Lovelace", start=0, **fields):
    question = {"id": "q1", "question": "Who wrote it?", "answers": [{"text": text, "answer_start": start}], **fields}
    return {"title": "t", "paragraphs": [{"context": context, "qas": [question]}]}


def write(path, *articles):
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return path


def squad(path, tokenizer=None, **fields):
    fields = {"val_fraction": 0.0, "test_fraction": 0.0, "context_length": 64, "stride": 8, **fields}
    return Squad(SquadConfig(path=str(path), **fields), tokenizer or words())


def predicted(batch, row):
    """Return the text that a perfect model would give."""
    start, end = batch["start"][row], batch["end"][row]
    begin, stop = batch["offsets"][row, start, 0], batch["offsets"][row, end, 1]
    return bytes(batch["context"][row, begin:stop].tolist()).decode()


def test_a_question_and_its_text(tmp_path):
    dataset = squad(write(tmp_path / "a.json", article(text="1852", start=CONTEXT.index("1852"))))
    batch = everything(dataset.split("train"))
    assert said(dataset, batch["tokens"][0]).startswith("<cls> Who wrote it ? <sep> Ada Lovelace ( 1815 – 1852 )")
    assert predicted(batch, 0) == "1852"
    first = 6
    assert batch["segments"][0, :first].sum() == 0
    assert (batch["segments"][0, first : batch["length"][0]] == 1).all()
    assert (batch["offsets"][0, :first] == -1).all()
    assert batch["offsets"][0, batch["length"][0] - 1 :].eq(-1).all()
    assert bytes(batch["context"][0].tolist()).decode() == CONTEXT
    assert bytes(batch["answers"][0].tolist()) == b"1852\0"


@pytest.mark.parametrize(
    "tokenizer",
    [
        words(),
        CharTokenizer(CharConfig(special_tokens=SPECIAL)),
        BPETokenizer(BPEConfig(special_tokens=SPECIAL, vocab_size=262)),
        WordPieceTokenizer(WordPieceConfig(vocab_size=60)),
    ],
    ids=["word", "char", "bpe", "wordpiece"],
)
@pytest.mark.parametrize("answer", ["Ada", "1815", "1815–1852", "program", "Babbage's engine", "Babbage"])
def test_a_span_stands_for_its_answer_whatever_the_tokenizer(tmp_path, tokenizer, answer):
    path = write(tmp_path / "a.json", article(text=answer, start=CONTEXT.index(answer)))
    batch = everything(squad(path, tokenizer, context_length=200).split("train"))
    assert predicted(batch, 0) == answer


def test_words_are_encoded_as_the_whole_text_is():
    tokenizer = WordPieceTokenizer(WordPieceConfig(vocab_size=60))
    tokenizer.train([CONTEXT])
    assert WordSpans(tokenizer).encode(CONTEXT)[0].tolist() == tokenizer.encode(CONTEXT).tolist()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 60),
    stride=st.integers(1, 9),
    place=st.integers(0, 59),
    length=st.integers(1, 3),
)
def test_windows_cover_a_long_text_and_show_each_answer(size, stride, place, length):
    """Every token is in a window, neighbours begin ``stride`` apart, and a short answer is whole in one of them."""
    spoken = [f"w{number}" for number in range(size)]
    place, length = min(place, size - 1), min(length, size - min(place, size - 1))
    context, answer = " ".join(spoken), " ".join(spoken[place : place + length])
    tokenizer = words()
    tokenizer.train([context + " q ?"])
    question = Question("x", "q?", context, (Answer(answer, len(" ".join([*spoken[:place], ""])) if place else 0),))
    split, cut = windows([question], tokenizer, 17, 8, stride)  # 12 tokens of the text a window
    batch = everything(split)
    assert cut == 0
    seen = [[word for word in said_by(tokenizer, row).split() if word in spoken] for row in batch["tokens"]]
    assert {word for window in seen for word in window} == set(spoken)
    assert [window[0] for window in seen] == [spoken[number * stride] for number in range(len(seen))]
    assert len(split) == (1 if size <= 12 else 1 + -(-(size - 12) // stride))
    shown = [predicted(batch, row) for row in range(len(split)) if batch["end"][row]]
    assert set(shown) <= {answer}
    if length + stride <= 13:
        assert shown


def said_by(tokenizer, row):
    return tokenizer.decode(row)


def test_a_question_without_an_answer_points_at_cls(tmp_path):
    batch = everything(squad(write(tmp_path / "a.json", article(is_impossible=True))).split("train"))
    assert (batch["start"].item(), batch["end"].item()) == (0, 0)
    assert batch["answers"].eq(0).all()


def test_windows_without_the_answer_point_at_cls_and_name_their_question(tmp_path):
    path = write(tmp_path / "a.json", article(), article(CONTEXT.upper(), "ADA", 0))
    batch = everything(squad(path, context_length=16, stride=4).split("train"))
    assert len(batch["example"].unique()) == 2
    for example in (0, 1):
        mine = batch["end"][batch["example"] == example]
        assert mine[0] > 0
        assert mine[-1] == 0


def test_xquad_as_it_comes():
    dataset = squad(
        data("squad/xquad.en.json"),
        WordPieceTokenizer(WordPieceConfig(vocab_size=2048)),
        val_fraction=0.1,
        test_fraction=0.1,
        context_length=192,
        stride=64,
    )
    contexts = {
        name: {question.context for one in dataset.divided[name] for question in one.questions}
        for name in ("train", "val", "test")
    }
    assert sum(map(len, contexts.values())) == 240
    assert not contexts["train"] & (contexts["val"] | contexts["test"])
    questions = [question for one in dataset.divided["train"] for question in one.questions]
    batch = everything(dataset.split("train"))
    found = {}
    for row in range(len(batch["start"])):
        if batch["end"][row]:
            found.setdefault(batch["example"][row].item(), predicted(batch, row))
    assert len(found) > 0.99 * len(questions)
    # Whole words: an answer that begins or ends inside one comes back with all of it.
    exact = [found[number] == questions[number].answers[0].text for number in found]
    assert sum(exact) > 0.98 * len(exact)
    assert all(questions[number].answers[0].text in text for number, text in found.items())


def test_articles_are_divided_whole(tmp_path):
    many = [article(f"Text {number}. {CONTEXT}", "Text", 0) for number in range(10)]
    many[0]["paragraphs"] *= 5
    dataset = squad(write(tmp_path / "a.json", *many), val_fraction=0.2, test_fraction=0.2)
    assert [len(dataset.divided[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert sum(len(one.questions) for split in dataset.divided.values() for one in split) == 14


def test_read_takes_a_question_and_a_text(tmp_path):
    dataset = squad(write(tmp_path / "a.json", article()))
    batch = everything(dataset.read(["Who wrote it? ||| It was Ada."]))
    assert said(dataset, batch["tokens"][0]) == "<cls> Who wrote it ? <sep> It was Ada . <sep>"
    assert batch["end"].tolist() == [0]


# Bad input


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"text": "Lovelace", "start": 3},
            "question q1: the answer 'Lovelace' does not stand at character 3, where the context has ' Lovelac'; "
            "correct answer_start",
        ),
        (
            {"text": "Ada", "start": 900},
            "question q1: the answer 'Ada' from character 900 on lies outside its context of 79 characters; "
            "correct answer_start",
        ),
        ({"text": "", "start": 0}, "question q1: the answer '' from character 0 on lies outside its context of 79 "
         "characters; correct answer_start"),
        ({"start": "4"}, "question q1: the answer 'Ada Lovelace' from character '4' on is not a text and a whole "
         "number; correct it"),
        ({"context": " ", "text": " "}, "question q1: the context is empty; give it text or remove it"),
        ({"question": ""}, "question q1: the question is empty; give it text or remove it"),
    ],
)  # fmt: skip
def test_answers_that_do_not_stand_where_they_say_are_named(tmp_path, made, message):
    path = write(tmp_path / "a.json", article(**made))
    with pytest.raises(DataError) as caught:
        squad(path).prepare()
    assert str(caught.value) == f"{path}, {message}"


def test_a_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(DataError, match=r"a\.json, article 1: not of SQuAD's form: 'paragraphs' is missing"):
        squad(path).prepare()
    for missing, place in (
        ("context", "article 1, paragraph 1"),
        ("id", "article 1, paragraph 1, question 1"),
        ("answers", "question q1"),
    ):
        made = article()
        paragraph = made["paragraphs"][0]
        (paragraph if missing == "context" else paragraph["qas"][0]).pop(missing)
        with pytest.raises(DataError, match=rf"a\.json, {place}: not of SQuAD's form: '{missing}' is missing"):
            squad(write(path, made)).prepare()
    path.write_text('{"data": [')
    with pytest.raises(DataError, match=r"a\.json, line 1: not JSON \(Expecting value\); correct it"):
        squad(path).prepare()


def test_special_tokens_are_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError) as caught:
        squad(write(tmp_path / "a.json", article()), words("unk")).split("train")
    assert str(caught.value) == (
        "tokenizer.special_tokens: has no cls and no sep, which windows over a context need\n"
        "    set it to [pad,unk,cls,sep,mask]"
    )


def test_windows_with_gaps_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        squad(write(tmp_path / "a.json", article()), context_length=12, stride=8).split("train")
    assert str(caught.value) == (
        "dataset.stride: 8 is more than the 5 tokens of a text that fit beside a question of 4\n"
        "    lower it, or raise dataset.context_length"
    )


def test_a_batch_is_no_wider_than_it_needs(tmp_path):
    split = squad(write(tmp_path / "a.json", article("Ada.", "Ada", 0), article())).split("train")
    assert split.batch(torch.tensor([0]))["tokens"].shape[1] == 16
    assert everything(split)["tokens"].shape[1] == 32
