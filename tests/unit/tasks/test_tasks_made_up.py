"""Tables to follow and facts to look up: right by hand, no shortcut by what answers are frequent, nothing shared."""

import re
from collections import Counter

import pytest
from task_parts import everything, said, words

from torchloom.errors import ConfigError, DataError
from torchloom_tasks.configs import FactsConfig, LookupsConfig
from torchloom_tasks.made_up import STONES, Facts, Lookups


def lookups(**fields):
    return Lookups(LookupsConfig(**{"examples": 400, "eval_examples": 100, **fields}), words("pad", "unk"))


def facts(**fields):
    return Facts(FactsConfig(**{"examples": 400, "eval_examples": 100, **fields}), words("pad", "unk", "cls", "sep"))


def test_the_answer_is_where_the_steps_lead():
    for one in lookups(letters=9, steps=6).divided["train"]:
        question, table = one.texts
        letter, steps = question.split()
        leads = dict(table.split())
        for _ in range(int(steps)):
            letter = leads[letter]
        assert letter == one.label
        assert len(leads) == 9


def test_all_letters_lie_in_one_circle_and_the_table_in_no_order():
    circles, firsts = set(), set()
    for one in lookups(letters=5).divided["train"]:
        leads = dict(one.texts[1].split())
        seen = ["a"]
        while leads[seen[-1]] != "a":
            seen.append(leads[seen[-1]])
        assert sorted(seen) == list("abcde")
        circles.add("".join(seen))
        firsts.add(one.texts[1][:2])
    assert len(circles) == 24
    assert len(firsts) == 20


@pytest.mark.parametrize(("least", "most"), [(1, 6), (3, 5), (6, 6)])
def test_steps_are_drawn_evenly_and_in_training_few_more_often(least, most):
    dataset = lookups(letters=12, steps=most, least_steps=least, examples=2_000, eval_examples=2_000)
    counts = {}
    for name in ("train", "test"):
        counts[name] = Counter(int(one.texts[0].split()[1]) for one in dataset.divided[name])
        assert sorted(counts[name]) == list(range(least, most + 1))
        labels = Counter(one.label for one in dataset.divided[name])
        assert max(labels.values()) < 1.5 * 2_000 / 12
    kinds = range(least, most + 1)
    for steps in kinds:
        share = sum(1 / (upper - least + 1) for upper in kinds if upper >= steps) / len(kinds)
        assert counts["train"][steps] == pytest.approx(2_000 * share, abs=4 * (2_000 * share) ** 0.5)
        assert counts["test"][steps] == pytest.approx(2_000 / len(kinds), abs=4 * (2_000 / len(kinds)) ** 0.5)


def test_a_row_is_the_question_and_the_table():
    dataset = lookups(letters=3, steps=2, examples=20, eval_examples=2)
    batch = everything(dataset.split("train"))
    assert re.fullmatch(r"[abc] [12]( [abc]{2}){3}", said(dataset, batch["tokens"][0]))
    assert batch["segments"][0, : batch["length"][0]].tolist() == [0, 0, 1, 1, 1]
    assert dataset.spec.classes == ("a", "b", "c")


def test_no_question_stands_in_two_splits():
    dataset = lookups(letters=3, steps=2, examples=40, eval_examples=4)
    digests = [one.digest for name in ("train", "val", "test") for one in dataset.divided[name]]
    assert len(set(digests)) == len(digests) == 48


def test_letters_too_few_for_so_many_questions_are_refused():
    with pytest.raises(DataError, match=r"dataset.letters=3 gives too few different questions for 400 of training"):
        lookups(letters=3, steps=2).prepare()


def test_steps_that_cannot_be_drawn_are_refused():
    with pytest.raises(ConfigError) as caught:
        lookups(least_steps=4)
    assert str(caught.value) == (
        "dataset.least_steps: 4 is more than dataset.steps=3\n    lower it, or raise dataset.steps"
    )


def test_the_file_tells_every_answer_and_each_once(tmp_path):
    path = tmp_path / "new" / "facts.txt"
    dataset = facts(corpus=str(path))
    dataset.prepare()
    told = dict(re.fullmatch(r"In (.+) there is (\w+)\.", line).groups() for line in path.read_text().splitlines())
    every = [one for name in ("train", "val", "test") for one in dataset.divided[name]]
    asked = {re.fullmatch(r"Which stone is in (.+)\?", one.texts[0])[1]: one.label for one in every}
    assert told == asked
    assert len(asked) == len(every) == 600
    assert [one.name for one in path.parent.iterdir()] == ["facts.txt"]


def test_every_word_of_the_facts_of_training_has_a_token():
    dataset = facts()
    tokenizer = dataset.trained()
    text = "In there is . " + " ".join(STONES)
    assert tokenizer.special_id("unk") not in tokenizer.encode(text).tolist()
    batch = everything(dataset.split("test"))
    assert said(dataset, batch["tokens"][0]).startswith("<cls> Which stone is in ")
    # Names and numbers are known from other facts; the few that are not are unknown words.
    assert (batch["tokens"] == dataset.spec.unk_id).float().mean() < 0.01


def test_facts_hang_on_the_seed_alone_and_on_nothing_else():
    one, same, other = facts(), facts(), facts(seed=1)
    assert one.divided == same.divided
    assert one.divided["test"] != other.divided["test"]
    answers = Counter(fact.label for name in one.divided for fact in facts(examples=4_000).divided[name])
    assert set(answers) == set(STONES)
    assert max(answers.values()) < 1.5 * min(answers.values())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"dataset.corpus=.*facts.txt: cannot be written: "):
        facts(corpus=str(tmp_path / "file" / "facts.txt")).prepare()


@pytest.mark.parametrize("make", [lookups, facts])
def test_a_question_of_ones_own(make):
    dataset = make()
    text = "a 2 ||| ab bc ca" if make is lookups else "Which stone is in beta 1?"
    batch = everything(dataset.read([text]))
    assert "label" not in batch
    assert batch["tokens"].shape[0] == 1
