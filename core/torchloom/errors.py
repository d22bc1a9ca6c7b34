"""The errors a person meets: each names the thing, the place and the mend, and fits on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
        place: Where it stands: a dotted key (``architecture.num_layers``), an override, a file.
        message: What is wrong, naming the offending value.
        mend: What to do about it; empty only when the message already says so.
    """

    place: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n    {self.mend}" if self.mend else text


class TorchloomError(Exception):
    """A mistake that a person can mend; the command line shows its text without a traceback."""


class ConfigError(TorchloomError, ValueError):
    """One or more problems in a configuration, all reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "" if count == 1 else f"{count} problems in the configuration:\n"
        super().__init__(head + "\n".join(f"{'' if count == 1 else '  '}{problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class UnknownComponentError(TorchloomError, LookupError):
    """No component of that kind has that name."""


class DuplicateComponentError(TorchloomError, ValueError):
    """Two distributions supply a component of one name and the choice does not say which."""


class PluginError(TorchloomError, RuntimeError):
    """A plugin that is needed could not be loaded, or breaks the rules for plugins."""


class MissingDependencyError(TorchloomError, ImportError):
    """A component needs a package that is not installed."""


class DataError(TorchloomError, ValueError):
    """Data that cannot be used: missing, empty, cut short or corrupt. Names the file and the place in it."""


class CheckpointError(TorchloomError, ValueError):
    """A checkpoint that cannot be used: missing, cut short, or of another configuration."""


class UnsupportedError(TorchloomError, ValueError):
    """A combination that a component refuses rather than compute something else; says what to use."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The run was asked to stop and has; its newest checkpoint continues it."""
