"""Tasks made up so that a network needs what plain ones lack: steps beyond its layers, or knowledge beyond its weights."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import pairwise, product
from math import ceil
from pathlib import Path
from string import ascii_lowercase

from torchloom.contracts.dataset import SplitName
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import FactsConfig, LookupsConfig
from torchloom_tasks.division import SPLITS
from torchloom_tasks.labelled import Labelled, LabelledText

NAMES = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
STONES = (
    *("agate", "amber", "basalt", "beryl", "coral", "flint", "garnet", "granite"),
    *("jade", "jet", "marble", "onyx", "opal", "pearl", "quartz", "slate"),
)


class Lookups(LabelledText):
    """Follow a table to its end: ``a ||| B C C`` is ``c``, for ``a`` leads to ``b``, ``b`` to ``c``, and ``c`` to itself.

    The table tells in capitals where the first letter leads, the second, and so on. Letters lie in chains, drawn anew for
    each question, with an end each; whoever sees the ends and cannot follow must guess among them. A network that looks
    up once a layer must guess where there are more steps than it has layers. Validation and test have chains of
    ``steps`` steps, and ask for all numbers of steps alike; the chains of a table for training have any number up to it,
    so that one step is learnt first and more on top of it.
    """

    config: LookupsConfig

    def __init__(self, config: LookupsConfig, tokenizer: Tokenizer | None = None) -> None:
        """Keep the settings.

        Raises:
            ConfigError: No number of steps lies between the least and the most, so many steps leave one end alone, or
                there is no tokenizer.
        """
        super().__init__(config, tokenizer)
        problems = []
        if config.least_steps > config.steps:
            message = f"{config.least_steps} is more than dataset.steps={config.steps}"
            problems.append(Problem("dataset.least_steps", message, "lower it, or raise dataset.steps"))
        if config.letters < 2 * (config.steps + 1):
            message = f"{config.letters} are too few for two chains of {config.steps} steps, and one end needs no steps"
            problems.append(
                Problem("dataset.letters", message, f"choose {2 * (config.steps + 1)} or more, or lower dataset.steps")
            )
        if problems:
            raise ConfigError(problems)

    @property
    def classes(self) -> tuple[str, ...]:
        """The letters."""
        return tuple(ascii_lowercase[: self.config.letters])

    @property
    def pairs(self) -> bool:
        """The letter to begin with, and the table."""
        return True

    def texts(self, example: Labelled) -> Sequence[str]:
        """Return the letter and the table, and all letters and capitals, which the tokenizer is to know."""
        return (*example.texts, " ".join(self.classes), " ".join(self.classes).upper())

    def divide(self) -> dict[SplitName, list[Labelled]]:
        """Make up all questions, each split from a seed of its own; none stands in two splits.

        Training may ask one twice: of short chains there are few questions, and they are not to be fewer than long ones.

        Raises:
            DataError: So few letters do not give so many questions for validation and test.
        """
        made: dict[SplitName, list[Labelled]] = {name: [] for name in SPLITS}
        held_out: set[bytes] = set()
        for name in reversed(SPLITS):
            rng = random.Random(f"{self.config.seed} {name}")
            failures = 0
            while len(made[name]) < _count(self.config, name):
                most = self.config.steps
                if name == "train":
                    most = rng.randint(self.config.least_steps, most)
                one = self._question(rng, most, rng.randint(self.config.least_steps, most))
                failures = failures + 1 if one.digest in held_out else 0
                if failures > 1_000:
                    raise DataError(
                        f"dataset.letters={self.config.letters} gives too few different questions for "
                        f"{self.config.eval_examples} each of validation and test; raise it, or lower dataset.eval_examples"
                    )
                if not failures:
                    made[name].append(one)
                    if name != "train":
                        held_out.add(one.digest)
        return made

    def _question(self, rng: random.Random, most: int, steps: int) -> Labelled:
        """Ask for ``steps`` in a table whose chains have ``most``, but for the last, of the letters that are left."""
        letters = rng.sample(self.classes, len(self.classes))
        chains = [letters[at : at + most + 1] for at in range(0, len(letters), most + 1)]
        leads = {second: first for chain in chains for first, second in pairwise([chain[0], *chain])}
        chain = rng.choice([chain for chain in chains if len(chain) > steps])
        table = " ".join(leads[letter].upper() for letter in self.classes)
        return Labelled("a table made up", (chain[steps], table), chain[0])


class Facts(LabelledText):
    """Questions whose answers stand in a file.

    ``Which stone is in beta 7?`` is ``jade`` by its line ``In beta 7 there is jade.`` Every fact is drawn by itself, so that
    nothing but the file tells the answers of validation and test.
    """

    config: FactsConfig

    @property
    def classes(self) -> tuple[str, ...]:
        """The stones."""
        return STONES

    @property
    def pairs(self) -> bool:
        """A question alone."""
        return False

    def texts(self, example: Labelled) -> Sequence[str]:
        """Return the question and the fact, whose words the tokenizer is to know too."""
        return (*example.texts, _told(example))

    def divide(self) -> dict[SplitName, list[Labelled]]:
        """Make up facts, and the question that asks for each."""
        rng = random.Random(self.config.seed)
        counts = {name: _count(self.config, name) for name in SPLITS}
        total = sum(counts.values())
        numbers = range(ceil(total / len(NAMES)))
        places = iter(rng.sample([f"{name} {number}" for name, number in product(NAMES, numbers)], total))
        made: dict[SplitName, list[Labelled]] = {}
        for split, count in counts.items():
            made[split] = [_asked(next(places), rng.choice(STONES)) for _ in range(count)]
        return made

    def prepare(self) -> None:
        """Make up the facts, and write them to the file.

        Raises:
            DataError: It cannot be written.
        """
        super().prepare()
        if self.config.corpus is None:
            return
        path = Path(self.config.corpus).expanduser()
        text = "".join(f"{_told(one)}\n" for name in SPLITS for one in self.divided[name])
        scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(path)
        except OSError as error:
            raise DataError(f"dataset.corpus={path}: cannot be written: {error.strerror}") from error


def _told(fact: Labelled) -> str:
    return f"In {fact.place} there is {fact.label}."


def _asked(place: str, stone: str) -> Labelled:
    return Labelled(place, (f"Which stone is in {place}?",), stone)


def _count(config: LookupsConfig | FactsConfig, split: SplitName) -> int:
    return config.examples if split == "train" else config.eval_examples
