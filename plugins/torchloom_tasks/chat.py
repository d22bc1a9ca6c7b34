"""Conversations: a person's own, or made up about short stories."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from torchloom.contracts.chat import SPECIAL, TEMPLATES, ChatTemplate, Message, checked, encode
from torchloom.contracts.dataset import Batch, EpochKey, Split, SplitName
from torchloom.contracts.spec import ChatSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.babi import Storyteller
from torchloom_tasks.configs import ChatConfig
from torchloom_tasks.division import digest, divide
from torchloom_tasks.ragged import Ragged
from torchloom_tasks.tables import located, objects, text_of
from torchloom_tasks.texts import TaskText

T = TypeVar("T")
_log = logging.getLogger(__name__)

_FILE = "a JSONL file, or a folder with one for train, and for val and test if there are any"
_USUAL = ("bos", "eos")
"""Special tokens of the tokenizer's own that templates write, as ``bos_token`` and ``eos_token``."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, and their place for error messages."""

    place: str
    messages: tuple[Message, ...]

    @property
    def digest(self) -> bytes:
        """Hash of all that is said, and by whom."""
        return digest(*(message[key] for message in self.messages for key in ("role", "content")))


class ChatSplit(Split):
    """Rows of token ids, as `torchloom.contracts.spec.ChatSpec` has them."""

    def __init__(self, tokens: Ragged, answer: Ragged, spec: ChatSpec) -> None:
        self._tokens, self._answer, self._spec = tokens, answer, spec

    def __len__(self) -> int:
        return len(self._tokens)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return rows as long as the longest of them needs."""
        most = self._spec.context_length + 1
        return {
            "tokens": self._tokens.rows(indices, self._spec.pad_id or 0, most=most).long(),
            "length": self._tokens.lengths[indices],
            "answer": self._answer.rows(indices, 0, most=most),
        }


class Chat(TaskText[Conversation]):
    """Conversations written by a template, with what the assistant says marked. Copies of one stay in one split."""

    config: ChatConfig

    def divide(self) -> dict[SplitName, list[Conversation]]:
        """Read the files, and take shares of the training file where there are no others; or make conversations up.

        Raises:
            DataError: A file is missing, empty or broken, or a conversation in it cannot be used; names the line.
        """
        config = self.config
        _ = self._source  # a wrong template is told before data is read
        if config.path is None and config.val_path is None and config.test_path is None:
            return self._made_up()
        files = located(config.path, {"val": config.val_path, "test": config.test_path}, (".jsonl",), _FILE)
        given = {split: _read(path) for split, path in files.items()}
        return divide(given, lambda one: one.digest, config, str(config.path))

    def texts(self, example: Conversation) -> Sequence[str]:
        """Return what is said, with what the template adds that is no special token."""
        return self._written(example, ChatTemplate(self._source, self._forms).texts)

    def trained(self) -> Tokenizer:
        """Return the tokenizer, trained on the training split, with the template's special tokens."""
        tokenizer = super().trained()
        tokenizer.add(self._forms)
        return tokenizer

    def make_spec(self, vocabulary: dict[str, Any]) -> ChatSpec:
        """Return the spec.

        Raises:
            ConfigError: The template is none, or nothing in it tells where an answer ends.
        """
        tokenizer = self.trained()
        special = dict(zip(self._forms, tokenizer.add(self._forms), strict=True))
        own = {name: vocabulary[f"{name}_id"] for name in _USUAL if vocabulary[f"{name}_id"] is not None}
        special |= {tokenizer.decode([index]): index for index in own.values()}
        spec = ChatSpec(
            context_length=self.config.context_length,
            template=self._source,
            special_tokens=tuple(special),
            special_ids=tuple(special.values()),
            **vocabulary,
        )
        try:
            end = ChatTemplate.of(spec).end()
        except DataError as error:
            mend = "choose dataset.template=chatml, or one that writes <|im_end|> or {{ eos_token }} behind each answer"
            if "eos" not in own:
                mend += "; the tokenizer has no eos, which tokenizer.special_tokens can add"
            raise ConfigError([Problem("dataset.template", str(error), mend)]) from error
        fields = {name: value for name, value in vars(spec).items() if name != "end_id"}
        return ChatSpec(**fields, end_id=special[end])

    def rows(self, examples: Sequence[Conversation]) -> tuple[Split, int]:
        """Encode conversations. What is too long loses its end; if no answer is left of it, it is left out and counted.

        Raises:
            ConfigError: The template is none, or nothing in it tells where an answer ends.
            DataError: A conversation is too long, where that is refused, or the template does not take it.
        """
        spec = self.spec
        assert isinstance(spec, ChatSpec)
        template, most = ChatTemplate.of(spec), spec.context_length + 1
        pieces = [self._written(one, template.pieces) for one in examples]
        special = dict(zip(spec.special_tokens, spec.special_ids, strict=True))
        tokens, answers, cut = [], [], 0
        for one, (ids, answer) in zip(examples, encode(pieces, self.trained(), special), strict=True):
            if len(ids) > most and self.config.too_long == "refuse":
                raise DataError(
                    f"{one.place}: has {len(ids)} tokens, more than the {most} of "
                    f"dataset.context_length={spec.context_length}; raise that, or set dataset.too_long=cut"
                )
            cut += len(ids) > most
            if answer[1:most].any():
                tokens.append(ids[:most])
                answers.append(answer[:most])
        if len(tokens) < len(examples):
            count = len(examples) - len(tokens)
            _log.warning("%d of %d conversations have no answer in their first %d tokens", count, len(examples), most)
        if examples and not tokens:
            raise DataError(
                f"{examples[0].place}: neither this conversation nor another has an answer in its first {most} tokens; "
                "raise dataset.context_length"
            )
        return ChatSplit(Ragged(tokens), Ragged(answers, torch.bool), spec), cut

    @cached_property
    def _source(self) -> str:
        name = self.config.template
        if name in TEMPLATES:
            return TEMPLATES[name]
        path = Path(name).expanduser()
        if not path.is_file():
            message = f"{name!r} is no file, and none of the templates {', '.join(TEMPLATES)}"
            raise ConfigError([Problem("dataset.template", message, "choose one of these, or a file with a template")])
        source: Any = text_of(path, "check the path")
        if path.suffix == ".json":
            try:
                source = json.loads(source).get("chat_template")
            except (ValueError, AttributeError) as error:
                raise DataError(f"{path}: not a JSON object; give a template, or a tokenizer_config.json") from error
            if isinstance(source, list):  # several, by name
                source = {one["name"]: one["template"] for one in source}.get("default")
            if not isinstance(source, str):
                raise DataError(f"{path}: has no chat_template; give a file that holds one")
        try:
            ChatTemplate(source, ())
        except DataError as error:
            raise DataError(f"{path}: {error}; correct it") from error
        return str(source)

    @property
    def _forms(self) -> list[str]:
        return self.config.special_tokens or list(dict.fromkeys(SPECIAL.findall(self._source)))

    def _written(self, one: Conversation, write: Callable[[Sequence[Message]], list[T]]) -> list[T]:
        try:
            return write(one.messages)
        except DataError as error:
            raise DataError(f"{one.place}: {error}; correct it, or choose another dataset.template") from error

    def _made_up(self) -> dict[SplitName, list[Conversation]]:
        """Make up conversations about people who go from place to place."""
        made: dict[SplitName, list[Conversation]] = {}
        taken: set[bytes] = set()
        for name, count in (
            ("test", self.config.eval_examples),
            ("val", self.config.eval_examples),
            ("train", self.config.examples),
        ):
            rng, found = random.Random(f"{self.config.seed} {name}"), dict[bytes, Conversation]()
            while len(found) < count:
                one = _told(rng)
                if one.digest not in taken:
                    found[one.digest] = one
            taken.update(found)
            made[name] = list(found.values())  # type: ignore[index]
        return made


def _told(rng: random.Random) -> Conversation:
    """Tell a story bit by bit, with a question behind each bit."""
    messages: list[Message] = []
    said = 0
    for task in Storyteller(1, rng).questions():
        content = " ".join((*task.story[said:], task.question))
        said = len(task.story)
        messages += [
            {"role": "user", "content": content},
            {"role": "assistant", "content": f"In the {task.answer}."},
        ]
    return Conversation("a conversation made up", tuple(messages))


def _read(path: Path) -> list[Conversation]:
    found = []
    for place, record in objects(path, text_of(path, f"set dataset.path to {_FILE}")):
        try:
            messages = checked(record.get("messages"))
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        if all(message["role"] != "assistant" for message in messages):
            raise DataError(f"{place}: nothing is said by the assistant, so there is nothing to learn; remove the line")
        found.append(Conversation(place, tuple(messages)))
    if not found:
        raise DataError(f"{path}: holds no conversations; give a file that does")
    return found
