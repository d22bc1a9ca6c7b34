"""Stories in which people move and carry things, with questions about where they are."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split, SplitName
from torchloom.contracts.spec import QuestionSpec, Spec
from torchloom.errors import DataError
from torchloom_tasks.configs import BabiConfig
from torchloom_tasks.division import digest, divide
from torchloom_tasks.labelled import Labelled, labelled_rows, labelled_spec, read_labelled
from torchloom_tasks.questions import Answer, Question, QuestionSplit, read_questions, windows
from torchloom_tasks.tables import text_of
from torchloom_tasks.texts import TaskText, TextSplit

ACTORS = ("Daniel", "John", "Mary", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
GO = ("journeyed", "moved", "travelled", "went", "went back")
GET = ("got", "grabbed", "picked up", "took")
DROP = ("discarded", "dropped", "left", "put down")

_STATEMENT = re.compile(r"(\w+) ([\w ]+?) (?:to )?the (\w+)(?: there)?\.")
_WHERE = re.compile(r"Where is (?:the )?(\w+)\?")
_BEFORE = re.compile(r"Where was the (\w+) before the (\w+)\?")
_HELD_OUT: tuple[SplitName, ...] = ("test", "val")


@dataclass(frozen=True, slots=True)
class Task:
    """One question with what has been said before it.

    Attributes:
        place: For messages.
        story: Statements, in order.
        question: Ends in a question mark.
        answer: One word.
        support: Numbers of the statements that the answer follows from.
    """

    place: str
    story: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...] = ()

    @property
    def digest(self) -> bytes:
        """Hash of story and question."""
        return digest(*self.story, self.question)

    def as_question(self) -> Question:
        """Return it with the place of its answer: where the statements that support it said it last.

        Raises:
            DataError: None of them says it.
        """
        start = 0
        found: int | None = None
        for number, statement in enumerate(self.story):
            match = re.search(rf"\b{re.escape(self.answer)}\b", statement) if number in self.support else None
            if match:
                found = start + match.start()
            start += len(statement) + 1
        if found is None:
            raise DataError(
                f"{self.place}: no supporting statement says the answer {self.answer!r}; set dataset.format=classes"
            )
        return Question(self.place, self.question, " ".join(self.story), (Answer(self.answer, found),))


@dataclass
class _Carried:
    """What is known of a thing: who has it, whether moved since, and the places it was at with the statements that say so."""

    holder: str | None = None
    places: list[tuple[str, int]] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    last: int = 0


class World:
    """What the statements of a story say. Nothing is known of what came before it."""

    def __init__(self) -> None:
        self.people: dict[str, tuple[str, int]] = {}
        self.things = {name: _Carried() for name in THINGS}
        self.said = 0

    def tell(self, statement: str) -> None:
        """Take in the next statement.

        Raises:
            DataError: It is none of the forms known.
        """
        match = _STATEMENT.fullmatch(statement)
        who, verb, what = match.groups() if match else ("", "", "")
        number, self.said = self.said, self.said + 1
        if verb in GO:
            self.people[who] = what, number
            for thing in self.things.values():
                if thing.holder == who:
                    thing.moves.append(number)
                    self._be(thing, what, number)
        elif verb in GET:
            thing = self.things[what]
            thing.holder, thing.moves, thing.last = who, [], number
            if who in self.people:
                self._be(thing, *self.people[who])
        elif verb in DROP:
            self.things[what].holder = None
            self.things[what].last = number
        else:
            raise DataError(f"{statement!r} is no statement of bAbI's tasks 1 to 3")

    @staticmethod
    def _be(thing: _Carried, place: str, number: int) -> None:
        if thing.places and thing.places[-1][0] == place:
            thing.places.pop()  # it is there still, by what is said last
        thing.places.append((place, number))

    def ask(self, question: str) -> tuple[str, tuple[int, ...]]:
        """Answer a question.

        Returns:
            The place, and the statements that it follows from, the one that names it last.

        Raises:
            DataError: It is none of the forms known, or the story does not say.
        """
        try:
            if match := _WHERE.fullmatch(question):
                if match[1] in self.people:
                    place, number = self.people[match[1]]
                    return place, (number,)
                thing = self.things[match[1]]
                place, number = thing.places[-1]
                return place, (thing.last, number)
            if match := _BEFORE.fullmatch(question):
                thing = self.things[match[1]]
                index = max(number for number, (place, _) in enumerate(thing.places) if place == match[2])
                if index > 0:
                    place, number = thing.places[index - 1]
                    return place, (thing.last, thing.places[index][1], number)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"{question!r} cannot be answered from the story") from error
        raise DataError(f"{question!r} cannot be answered from the story")


class Storyteller:
    """Makes up stories whose statements and questions are distributed as in bAbI v1.2.

    The chances were measured on its files: a statement's kind and person are drawn alike, and drawn again where that
    person can do no such thing; a question follows every second statement, if there is one to ask of what is known.
    """

    def __init__(self, task: int, rng: random.Random) -> None:
        """Begin a story, with everybody and everything somewhere that it does not say."""
        self.task, self.rng = task, rng
        self.world = World()
        self.story: list[str] = []
        self._where = {name: rng.choice(PLACES) for name in ACTORS + THINGS}

    def questions(self) -> Iterator[Task]:
        """Yield five questions, in the order of the story."""
        asked = 0
        while asked < 5:
            self._say()
            self._say()
            question = self._question()
            if question is not None:
                answer, support = self.world.ask(question)
                yield Task("a story made up", tuple(self.story), question, answer, support)
                asked += 1

    def _say(self) -> None:
        rng = self.rng
        while True:
            kind = rng.choice((GO, GET, DROP)) if self.task > 1 else GO
            who = rng.choice(ACTORS)
            here = self._where[who]
            held = [name for name in THINGS if self.world.things[name].holder == who]
            free = [name for name in THINGS if not self.world.things[name].holder and self._where[name] == here]
            what = {GO: PLACES, GET: free, DROP: held}[kind]
            chosen = rng.choice(what) if what else here
            if chosen != here:
                break
        if kind is GO:
            self._where.update(dict.fromkeys([who, *held], chosen))
            statement = f"{who} {rng.choice(GO)} to the {chosen}."
        else:
            chance = 1.0 if kind is GET and self.task == 2 else 0.2
            there = " there" if rng.random() < chance else ""
            statement = f"{who} {rng.choice(kind)} the {chosen}{there}."
        self.story.append(statement)
        self.world.tell(statement)

    def _question(self) -> str | None:
        rng, world = self.rng, self.world
        if self.task == 1:
            return f"Where is {rng.choice(sorted(world.people))}?"
        dropped, held = (0.81, 0.65) if self.task == 2 else (0.65, 0.17)
        for name in rng.sample(THINGS, len(THINGS)):
            thing = world.things[name]
            if rng.random() >= (held if thing.holder else dropped):
                continue
            if self.task == 2 and thing.places and (not thing.holder or thing.moves):
                return f"Where is the {name}?"
            if self.task == 3 and len(thing.moves) >= 2:
                # Asked of two moves in a row while somebody carries it, if the place was not come to again.
                index = len(thing.places) - rng.randint(1, len(thing.moves) - 1)
                place = thing.places[index][0]
                if place not in [later for later, _ in thing.places[index + 1 :]]:
                    return f"Where was the {name} before the {place}?"
        return None


def make(task: int, count: int, rng: random.Random, taken: set[bytes]) -> list[Task]:
    """Make up questions, none of which has a digest that is taken."""
    found: list[Task] = []
    while len(found) < count:
        found += (one for one in Storyteller(task, rng).questions() if one.digest not in taken)
    return found[:count]


def read_babi(path: Path) -> list[list[Task]]:
    """Read a file of bAbI: the questions of each story.

    Raises:
        DataError: It is missing, empty or of another form; names the line.
    """
    stories: list[list[Task]] = []
    said: dict[int, str] = {}
    for number, line in enumerate(
        text_of(path, "set it to a file such as qa1_single-supporting-fact_test.txt").splitlines(), 1
    ):
        place = f"{path}, line {number}"
        match = re.fullmatch(r"(\d+) ([^\t]+)(?:\t([^\t]+)\t([\d ]+))?", line)
        if not match:
            raise DataError(f"{place}: not a line of bAbI: a number, a statement or a question, its answer, and lines")
        own, text = int(match[1]), match[2].strip()
        if own == 1:
            said = {}
            stories.append([])
        if match[3] is None:
            said[own] = text
            continue
        order = list(said)
        try:
            support = tuple(order.index(int(one)) for one in match[4].split())
        except ValueError as error:
            raise DataError(f"{place}: supporting lines {match[4]} are not all statements before it") from error
        if not stories:
            raise DataError(f"{place}: a file of bAbI begins with line 1 of a story")
        stories[-1].append(Task(place, tuple(said.values()), text, match[3].strip(), support))
    if not any(stories):
        raise DataError(f"{path}: holds no questions; give a file of bAbI")
    return [story for story in stories if story]


class Growing(Split):
    """A split whose short examples training reads more often than its long ones, less so from epoch to epoch.

    An example's place in the order of lengths, between 0 and 1, is raised to a power that halves with each epoch and is 1
    behind the first ``epochs``: with three of them the power is 8, 4, 2, and of the shortest fifth come 82%, 67%, 45% of
    the examples that are read, then its own 20%. Long ones stay in sight, so what is learnt of short ones is not learnt
    at their cost. In evaluation each is read once. Batches of examples of like length stay such.

    Source: Bengio et al., 2009, Curriculum Learning.
    """

    augmented = True

    def __init__(self, split: TextSplit | QuestionSplit, epochs: int) -> None:
        """Keep the split and put its examples in order of their tokens."""
        self._split, self._epochs = split, epochs
        self._order = split.tokens.lengths.argsort(stable=True)
        self._rank = self._order.argsort()
        self.lengths = split.lengths

    def __len__(self) -> int:
        return len(self._split)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return examples; in one of the first epochs mostly short ones in place of long ones."""
        if key is not None and key.epoch < self._epochs:
            place = (self._rank[indices].double() / len(self)) ** 2 ** (self._epochs - key.epoch)
            indices = self._order[(place * len(self)).long()]
        return self._split.batch(indices, key)


class Babi(TaskText[Task]):
    """Stories made up, or bAbI's own files, with an answer of one word or one place in the story.

    The test may be bAbI's own with training made up. No question of it, nor of validation, stands in training.
    """

    config: BabiConfig

    def divide(self) -> dict[SplitName, list[Task]]:
        """Make up questions, or read the files; a share of a training file's stories is for validation.

        Raises:
            DataError: A file is missing or of another form.
        """
        config = self.config
        given: dict[SplitName, list[Task]] = {}
        if config.test_path is not None:
            given["test"] = _flat(read_babi(_file(config.test_path, "test_path", config.task, "test")))
        if config.path is not None:
            train = _file(config.path, "path", config.task, "train")
            if "test" not in given and Path(config.path).expanduser().is_dir():
                given["test"] = _flat(read_babi(_file(config.path, "path", config.task, "test")))
            stories: dict[SplitName, list[list[Task]]] = {"train": read_babi(train)}
            stories.update({name: [[one] for one in tasks] for name, tasks in given.items()})
            parts = divide(stories, lambda story: digest(*story[-1].story, *_asked(story)), config, str(train))
            given = {name: _flat(found) for name, found in parts.items()}
        taken: set[bytes] = set()
        for name in (*_HELD_OUT, "train"):
            if name in given:
                given[name] = [one for one in given[name] if one.digest not in taken]
            else:
                count = config.examples if name == "train" else config.eval_examples
                given[name] = make(config.task, count, random.Random(f"{config.seed} {name}"), taken)
            taken.update(one.digest for one in given[name])
        return given

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The answers of training, sorted."""
        return tuple(sorted({one.answer for one in self.divided["train"]}))

    def texts(self, example: Task) -> Sequence[str]:
        """Return story and question."""
        return " ".join(example.story), example.question

    def make_spec(self, vocabulary: dict[str, Any]) -> Spec:
        """Return the spec of the format."""
        if self.config.format == "spans":
            return QuestionSpec(context_length=self.config.context_length, **vocabulary)
        return labelled_spec(self.config, self.classes, True, vocabulary)

    def rows(self, examples: Sequence[Task]) -> tuple[Split, int]:
        """Encode stories and questions; the oldest part of a story is cut that is too long for a row.

        Raises:
            DataError: An answer is none of training's, or, as a span, said by no statement that supports it.
        """
        config = self.config
        if config.format == "spans":
            questions = [one.as_question() for one in examples]
            return windows(questions, self.trained(), config.context_length, config.context_length, config.stride)
        labelled = []
        for one in examples:
            if one.answer not in self.classes:
                raise DataError(
                    f"{one.place}: the answer {one.answer!r} is none of training's: {', '.join(self.classes)}"
                )
            labelled.append(Labelled(one.place, (" ".join(one.story), one.question), one.answer))
        labels = [self.classes.index(one.answer) for one in examples]
        return labelled_rows(labelled, labels, self.trained(), config, pairs=True, keep="end")

    def split(self, name: SplitName) -> Split:
        """Load one split; that of training begins with its shortest stories if that is asked for.

        Raises:
            DataError: The data is missing or wrong, or an example too long where that is refused.
        """
        split = super().split(name)
        if name != "train" or not self.config.curriculum:
            return split
        assert isinstance(split, TextSplit | QuestionSplit)
        return Growing(split, self.config.curriculum)

    def read(self, inputs: Sequence[str]) -> Split:
        """Read stories, each written ``story ||| question``; for format=spans ``question ||| story``.

        Raises:
            DataError: One is not.
        """
        config, tokenizer = self.config, self.trained()
        if config.format == "spans":
            return read_questions(inputs, tokenizer, config.context_length, config.context_length, config.stride)
        return read_labelled(inputs, tokenizer, config, pairs=True, keep="end")


def _asked(story: Sequence[Task]) -> list[str]:
    return [one.question for one in story]


def _flat(stories: Sequence[Sequence[Task]]) -> list[Task]:
    return [one for story in stories for one in story]


def _file(path: str, option: str, task: int, split: str) -> Path:
    given = Path(path).expanduser()
    if not given.exists():
        raise DataError(
            f"{given}: no such file or folder; set dataset.{option} to a file of bAbI, or the folder of all"
        )
    if given.is_file():
        return given
    found = sorted(given.glob(f"qa{task}_*_{split}.txt"))
    if not found:
        raise DataError(
            f"{given}: holds no qa{task}_*_{split}.txt; set dataset.{option} to a folder that does, or a file"
        )
    return found[0]
