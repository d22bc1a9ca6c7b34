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


def followed(one):
    """Return the letters that lead from the question's to its end, and where each letter leads."""
    start, table = one.texts
    leads = dict(zip("abcdefghijklmnopqrstuvwxyz", table.lower().split(), strict=False))
    way = [start]
    while leads[way[-1]] != way[-1]:
        way.append(leads[way[-1]])
    return way, leads


def test_the_answer_is_where_the_table_leads_and_one_cannot_see_which_end_it_is():
    for name, steps in (("train", {1, 2, 3}), ("test", {1, 2, 3})):
        found = set()
        for one in lookups(letters=9).divided[name]:
            way, leads = followed(one)
            assert way[-1] == one.label
            found.add(len(way) - 1)
            assert len(leads) == 9
            assert sum(letter == end for letter, end in leads.items()) >= 2
        assert found == steps


def test_letters_lie_in_chains_of_as_many_steps_as_there_are_at_most():
    for one in lookups(letters=11).divided["test"]:
        _, leads = followed(one)
        ends = [letter for letter, end in leads.items() if letter == end]
        reached = Counter(leads.values())
        assert len(ends) == 3  # of 4, 4 and 3 letters
        assert sorted(reached[end] for end in ends) == [2, 2, 2]
        assert all(reached[letter] <= 1 for letter in leads if letter not in ends)


@pytest.mark.parametrize(("least", "most"), [(1, 5), (3, 5), (5, 5)])
def test_steps_are_drawn_evenly_and_in_training_few_more_often(least, most):
    dataset = lookups(letters=12, steps=most, least_steps=least, examples=2_000, eval_examples=2_000)
    counts = {}
    for name in ("train", "test"):
        counts[name] = Counter(len(followed(one)[0]) - 1 for one in dataset.divided[name])
        assert sorted(counts[name]) == list(range(least, most + 1))
        labels = Counter(one.label for one in dataset.divided[name])
        assert max(labels.values()) < 1.5 * 2_000 / 12
    kinds = range(least, most + 1)
    for steps in kinds:
        share = sum(1 / (upper - least + 1) for upper in kinds if upper >= steps) / len(kinds)
        assert counts["train"][steps] == pytest.approx(2_000 * share, abs=4 * (2_000 * share) ** 0.5)
        assert counts["test"][steps] == pytest.approx(2_000 / len(kinds), abs=4 * (2_000 / len(kinds)) ** 0.5)


def test_a_row_is_the_letter_and_the_table():
    dataset = lookups(letters=4, steps=1, examples=20, eval_examples=2)
    batch = everything(dataset.split("train"))
    assert re.fullmatch(r"[a-d]( [A-D]){4}", said(dataset, batch["tokens"][0]))
    assert batch["segments"][0, : batch["length"][0]].tolist() == [0, 1, 1, 1, 1]
    assert dataset.spec.classes == ("a", "b", "c", "d")
    assert dataset.spec.vocab_size == 2 + 8  # padding, unknown, letters and capitals


def test_no_question_stands_in_two_splits():
    splits = lookups(letters=4, steps=1, examples=40, eval_examples=8).divided
    digests = {name: {one.digest for one in splits[name]} for name in splits}
    assert len(digests["val"]) == len(digests["test"]) == 8
    assert not digests["train"] & (digests["val"] | digests["test"])
    assert not digests["val"] & digests["test"]


def test_letters_too_few_for_so_many_questions_are_refused():
    with pytest.raises(
        DataError, match=r"dataset.letters=4 gives too few different questions for 100 each of validation"
    ):
        lookups(letters=4, steps=1).prepare()


def test_steps_that_cannot_be_drawn_are_refused():
    with pytest.raises(ConfigError) as caught:
        lookups(least_steps=4, letters=7)
    assert [str(problem) for problem in caught.value.problems] == [
        "dataset.least_steps: 4 is more than dataset.steps=3\n    lower it, or raise dataset.steps",
        "dataset.letters: 7 are too few for two chains of 3 steps, and one end needs no steps\n"
        "    choose 8 or more, or lower dataset.steps",
    ]


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
    text = "a ||| B C C D E F G H" if make is lookups else "Which stone is in beta 1?"
    batch = everything(dataset.read([text]))
    assert "label" not in batch
    assert batch["tokens"].shape[0] == 1
