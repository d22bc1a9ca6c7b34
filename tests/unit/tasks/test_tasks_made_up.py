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
    """Return the letters from the one that is asked for to the end of its chain."""
    start, table = one.texts
    leads = dict(table.split())
    path = [start]
    while leads[path[-1]] != path[-1]:
        path.append(leads[path[-1]])
    return path


def test_the_answer_is_where_the_chain_ends():
    assert all(followed(one)[-1] == one.label for one in lookups().divided["train"])


def test_chains_are_alike_and_the_table_in_no_order():
    dataset = lookups(chains=2, steps=2)
    for one in dataset.divided["train"]:
        leads = dict(one.texts[1].split())
        assert sorted(leads) == list("abcdef")
        ends = [letter for letter in leads if leads[letter] == letter]
        begins = set(leads) - set(leads.values())
        middles = set(leads) - set(ends) - begins
        assert (len(ends), len(begins), len(middles)) == (2, 2, 2)
        assert {leads[letter] for letter in begins} == middles
        assert {leads[letter] for letter in middles} == set(ends)
    firsts = Counter(one.texts[1][:2] for one in dataset.divided["train"])
    assert len(firsts) == 36


@pytest.mark.parametrize(("least", "most"), [(1, 6), (3, 5), (6, 6)])
def test_steps_are_drawn_evenly(least, most):
    dataset = lookups(examples=2_000, least_steps=least, steps=most)
    steps = Counter(len(followed(one)) - 1 for one in dataset.divided["train"])
    assert sorted(steps) == list(range(least, most + 1))
    even = 2_000 / len(steps)
    assert max(abs(count - even) for count in steps.values()) < 4 * even**0.5 + 1
    labels = Counter(one.label for one in dataset.divided["train"])
    assert max(labels.values()) < 1.5 * 2_000 / len(dataset.classes)


def test_a_row_is_the_letter_and_the_table():
    dataset = lookups(chains=1, steps=2, examples=20, eval_examples=2)
    batch = everything(dataset.split("train"))
    assert re.fullmatch(r"[abc]( [abc]{2}){3}", said(dataset, batch["tokens"][0]))
    assert batch["segments"][0, : batch["length"][0]].tolist() == [0, 1, 1, 1]
    assert dataset.spec.classes == ("a", "b", "c")


def test_no_question_stands_in_two_splits():
    dataset = lookups(chains=1, steps=2, examples=60, eval_examples=4)
    digests = [one.digest for name in ("train", "val", "test") for one in dataset.divided[name]]
    assert len(set(digests)) == len(digests) == 68


def test_letters_too_few_for_so_many_questions_are_refused():
    with pytest.raises(
        DataError, match=r"dataset.chains=1 and dataset.steps=2 give too few different questions for 400"
    ):
        lookups(chains=1, steps=2).prepare()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"least_steps": 7},
            "dataset.least_steps: 7 is more than dataset.steps=6\n    lower it, or raise dataset.steps",
        ),
        (
            {"chains": 4},
            "dataset.chains: 4 of 7 letters each take more than the 26 there are\n    lower it, or dataset.steps",
        ),
    ],
)
def test_steps_and_chains_that_cannot_be_drawn_are_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        lookups(**fields)
    assert str(caught.value) == message


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
    text = "a ||| ab bc cc" if make is lookups else "Which stone is in beta 1?"
    batch = everything(dataset.read([text]))
    assert "label" not in batch
    assert batch["tokens"].shape[0] == 1
