"""Stories made up: right by the world that they are told in, and like bAbI's own in words, lengths and answers."""

import random
import re
from collections import Counter

import pytest
import torch
from task_parts import data, everything, said, words

from torchloom.contracts.dataset import EpochKey
from torchloom.errors import DataError
from torchloom_tasks.babi import Babi, World, make, read_babi
from torchloom_tasks.configs import BabiConfig


def babi(*special, **fields):
    fields = {"examples": 200, "eval_examples": 50, **fields}
    return Babi(BabiConfig(**fields), words(*special))


def real(task):
    """Return all of bAbI's own questions of a task: the small training file, the test, and the large training file."""
    paths = sorted(data("babi").glob(f"qa{task}_*.txt")) + sorted(data("babi10k").glob(f"qa{task}_*_train.txt"))
    return [one for path in paths for story in read_babi(path) for one in story]


def vocabulary(tasks):
    return {word for one in tasks for word in re.findall(r"\w+|[.?]", " ".join([*one.story, one.question, one.answer]))}


@pytest.mark.parametrize("task", [1, 2, 3])
def test_the_world_answers_every_question_of_the_real_files(task):
    """And from the very statements that the files name."""
    asked = real(task)
    assert len(asked) == {1: 12_000, 2: 12_000, 3: 2_000}[task]
    wrong = []
    for one in asked:
        world = World()
        for statement in one.story:
            world.tell(statement)
        answer, support = world.ask(one.question)
        if answer != one.answer or set(support) != set(one.support):
            wrong.append(one)
    assert wrong == []


@pytest.mark.parametrize("task", [1, 2, 3])
def test_stories_made_up_are_like_the_real_ones(task):
    theirs, ours = real(task), make(task, 4_000, random.Random(0), set())
    assert vocabulary(ours) == vocabulary(theirs)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        lengths = [sorted(len(one.story) for one in tasks)[int(quantile * len(tasks))] for tasks in (theirs, ours)]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.15, abs=2)
    shares = []
    for tasks in (theirs, ours):
        verbs = Counter(statement.split(" ", 1)[1].split(" the ")[0] for one in tasks for statement in one.story)
        there = sum("there." in statement for one in tasks for statement in one.story)
        total = sum(verbs.values())
        shares.append({**{verb: count / total for verb, count in verbs.items()}, "there": there / total})
    assert shares[1] == pytest.approx(shares[0], abs=0.015)
    answers = Counter(one.answer for one in ours)
    assert max(answers.values()) < 0.2 * len(ours)


@pytest.mark.parametrize("task", [1, 2, 3])
def test_a_story_is_told_step_by_step(task):
    """Each answer is found again by following one thing or person through the story alone."""
    for one in make(task, 300, random.Random(task), set()):
        assert one.answer in one.story[one.support[-1]]
        assert len(one.support) == task
        if task == 1:
            who = one.question[:-1].split()[-1]
            last = [statement for statement in one.story if statement.startswith(f"{who} ")][-1]
            assert one.answer == last[:-1].split()[-1]


def test_the_real_files_are_read_with_their_stories():
    first = read_babi(next(data("babi").glob("qa2_*_train.txt")))[0]
    assert [one.question for one in first][:2] == ["Where is the football?", "Where is the football?"]
    assert first[1].answer == "garden"
    assert [first[1].story[number] for number in first[1].support] == [
        "Mary dropped the football.",
        "Mary went back to the garden.",
    ]


def test_training_made_up_is_tested_on_the_real_file_and_holds_none_of_it():
    dataset = babi(test_path=str(data("babi")), examples=3_000)
    dataset.prepare()
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [3_000, 50, 1_000]
    held = {one.digest for name in ("val", "test") for one in dataset.divided[name]}
    assert not held & {one.digest for one in dataset.divided["train"]}
    batch = everything(dataset.split("test"))
    assert not (batch["tokens"] == dataset.spec.unk_id).any()
    assert said(dataset, batch["tokens"][0]) == (
        "<cls> John travelled to the hallway . Mary journeyed to the bathroom . <sep> Where is John ? <sep>"
    )
    assert dataset.spec.classes[batch["label"][0]] == "hallway"


def test_the_real_files_serve_alone():
    dataset = babi(path=str(data("babi")), val_fraction=0.1)
    sizes = [len(dataset.split(name)) for name in ("train", "val", "test")]
    assert sizes[2] == 1_000
    assert 95 <= sizes[1] <= 100
    assert 880 <= sizes[0] <= 900


def test_stories_hang_on_the_seed_alone():
    one, same, other = babi(task=2), babi(task=2), babi(task=2, seed=1)
    assert one.divided == same.divided
    assert one.divided["train"] != other.divided["train"]


@pytest.mark.parametrize("task", [1, 2, 3])
def test_spans_say_the_answer(task):
    dataset = babi(task=task, format="spans", context_length=64, stride=32)
    batch = everything(dataset.split("train"))
    shown = set()
    for row in range(len(batch["end"])):
        start, end = batch["start"][row], batch["end"][row]
        if end:
            begin, stop = batch["offsets"][row, start, 0], batch["offsets"][row, end, 1]
            text = bytes(batch["context"][row, begin:stop].tolist())
            assert text == bytes(batch["answers"][row].tolist()).rstrip(b"\0")
            shown.add(batch["example"][row].item())
    assert shown == set(range(200))


@pytest.mark.parametrize("format", ["classes", "spans"])
def test_training_begins_with_short_stories_mostly_and_comes_to_all(format):
    split = babi(curriculum=2, format=format, context_length=80).split("train")
    alike = babi(format=format, context_length=80).split("train")
    lengths = everything(alike)["length"].sort().values
    for epoch, power in enumerate([4, 2]):
        read = everything(split, EpochKey(0, epoch))["length"].sort().values
        # Half of what is read is no longer than the share of the shortest whose power is a half; the longest are read too.
        assert read[99] <= lengths[int(0.5**power * 200)] < lengths[99]
        assert read[-1] >= lengths[int((199 / 200) ** power * 200)]
    assert torch.equal(everything(split, EpochKey(0, 2))["tokens"], everything(alike)["tokens"])
    assert torch.equal(everything(split)["tokens"], everything(alike)["tokens"])


def test_short_stories_in_place_of_long_ones_are_of_like_length_still():
    split = babi(curriculum=2, group_lengths=True).split("train")
    order = split.lengths.argsort(stable=True)
    read = split.batch(order, EpochKey(0, 1))
    assert torch.equal(read["length"], read["length"].sort().values)
    places = [int((place / 200) ** 2 * 200) for place in range(200)]
    for name, values in split.batch(order[places]).items():
        assert torch.equal(read[name], values)


def test_of_a_story_too_long_the_end_is_kept(caplog):
    dataset = babi(task=3, context_length=32)
    batch = everything(dataset.split("train"))
    assert batch["length"].max() == 32
    assert dataset.cut["train"] > 150
    story = " ".join(dataset.divided["train"][0].story)
    row = said(dataset, batch["tokens"][0]).split(" <sep> ")[0]
    assert "".join(story.split()).endswith("".join(row.removeprefix("<cls>").split()))


def test_read_takes_a_story_and_a_question():
    dataset = babi()
    batch = everything(dataset.read(["Mary moved to the garden. ||| Where is Mary?"]))
    assert said(dataset, batch["tokens"][0]) == "<cls> Mary moved to the garden . <sep> Where is Mary ? <sep>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 Mary moved\n2 Where is Mary?\tgarden\n", "line 2: not a line of bAbI: a number, a statement or a question, "
         "its answer, and lines"),
        ("1 Mary moved to the garden.\n2 Where is Mary? \tgarden\t3\n", "line 2: supporting lines 3 are not all "
         "statements before it"),
        ("2 Where is Mary? \tgarden\t \n", "line 1: a file of bAbI begins with line 1 of a story"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "qa1_x_train.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        babi(path=str(path)).prepare()
    assert str(caught.value) == f"{path}, {message}"


def test_a_folder_without_the_task_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        babi(path=str(tmp_path), task=2).prepare()
    assert str(caught.value) == (
        f"{tmp_path}: holds no qa2_*_train.txt; set dataset.path to a folder that does, or a file"
    )


def test_an_answer_that_training_lacks_is_named(tmp_path):
    test = tmp_path / "qa1_test.txt"
    test.write_text("1 Mary moved to the cellar.\n2 Where is Mary? \tcellar\t1\n")
    with pytest.raises(DataError) as caught:
        babi(test_path=str(test)).split("test")
    assert str(caught.value) == (
        f"{test}, line 2: the answer 'cellar' is none of training's: bathroom, bedroom, garden, hallway, kitchen, office"
    )
