"""Conversations, and the templates that write one as text, as Hugging Face's tokenizers carry them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from torchloom.contracts.spec import ChatSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import DataError

Message = Mapping[str, str]
ROLES = ("system", "user", "assistant")
ANSWERING = ROLES[-1]
"""Whose turns a model learns to write."""

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "plain": (
        "{% for message in messages %}"
        "{{ message['role'] | capitalize + ':\n' + message['content'] }}"
        "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
        "{{ '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
    ),
}
"""Known by name: one with tokens of its own around each turn, one that needs no token but "eos"."""

SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")
"""The usual form of a template's own tokens."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a conversation that is encoded by itself.

    Attributes:
        text: What it says.
        special: Whether it is a special token.
        answer: Whether it belongs to an answer, the token that ends it included.
    """

    text: str
    special: bool
    answer: bool


class _Generation(Extension):
    """Reads ``{% generation %}``, with which some templates mark answers; here they are found without."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: Any) -> Any:
        """Return what stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A Jinja template that writes conversations, run in a sandbox.

    Source: https://huggingface.co/docs/transformers/chat_templating
    """

    def __init__(self, source: str, special_tokens: Sequence[str], *, bos_token: str = "", eos_token: str = "") -> None:
        """Read a template.

        Args:
            source: Jinja, which is given ``messages``, ``add_generation_prompt``, ``bos_token`` and ``eos_token``.
            special_tokens: Its tokens, each of which has one id. Where a message holds such a text, that stays text.
            bos_token: How the token that begins a text is written; empty if there is none.
            eos_token: How the token that ends a text is written; empty if there is none.

        Raises:
            DataError: It is not a Jinja template.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise DataError(f"not a Jinja template: {error}") from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._special = sorted({*special_tokens, bos_token, eos_token} - {""}, key=lambda one: (-len(one), one))
        self._split = re.compile("|".join(map(re.escape, self._special)) or "(?!)")

    @classmethod
    def of(cls, spec: ChatSpec) -> ChatTemplate:
        """Return the template that a spec carries."""
        forms = dict(zip(spec.special_ids, spec.special_tokens, strict=True))
        known = {f"{name}_token": forms.get(getattr(spec, f"{name}_id"), "") for name in ("bos", "eos")}
        return cls(spec.template, spec.special_tokens, **known)

    def render(self, messages: Sequence[Message], *, answering: bool = False) -> str:
        """Write a conversation.

        Args:
            messages: Each with ``role`` and ``content``.
            answering: Whether an answer is to follow: the text then ends where that begins.

        Raises:
            DataError: The template does not take such a conversation.
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=answering, **self._tokens)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(f"the template does not take this conversation: {error}") from error

    def texts(self, messages: Sequence[Message]) -> list[str]:
        """Return what of a conversation is ordinary text, in order."""
        return [text for text, special in self._parts(self.render(self._hidden(messages))) if not special]

    def pieces(self, messages: Sequence[Message], *, answering: bool = False) -> list[Piece]:
        """Write a conversation in pieces; see `render`.

        Raises:
            DataError: The template does not take it, writes an answer in another way than it asks for one, or puts no
                special token behind an answer.
        """
        hidden = self._hidden(messages)
        text = self.render(hidden, answering=answering)
        found: list[Piece] = []
        place = 0
        for number, message in enumerate(hidden):
            if message["role"] != ANSWERING:
                continue
            before, through = self.render(hidden[:number], answering=True), self.render(hidden[: number + 1])
            if not (through.startswith(before) and text.startswith(through)):
                raise DataError("the template writes an answer in another way than it asks for one")
            through = through.rstrip()
            if not any(through.endswith(one) for one in self._special) or len(through) <= len(before):
                raise DataError("the template puts no special token behind an answer, so that nothing tells its end")
            found += self._pieces(text[place : len(before)], answer=False)
            found += self._pieces(text[len(before) : len(through)], answer=True)
            place = len(through)
        return found + self._pieces(text[place:], answer=False)

    def end(self) -> str:
        """Return the special token behind an answer.

        Raises:
            DataError: There is none.
        """
        pieces = self.pieces([{"role": "user", "content": "a"}, {"role": ANSWERING, "content": "b"}])
        return [piece.text for piece in pieces if piece.answer][-1]

    def _hidden(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Return messages in which nothing looks like a special token."""
        return [{**message, "content": self._split.sub(self._mark, message["content"])} for message in messages]

    def _mark(self, match: re.Match[str]) -> str:
        # Code points that Unicode keeps free of characters. A text that has them gives a text again, and no token.
        return f"\ufdd0{self._special.index(match[0])}\ufdd1"

    def _parts(self, text: str) -> Iterator[tuple[str, bool]]:
        place = 0
        for match in [*self._split.finditer(text), None]:
            ordinary = text[place : len(text) if match is None else match.start()]
            if ordinary:
                yield re.sub("\ufdd0(\\d+)\ufdd1", self._shown, ordinary), False
            if match is not None:
                yield match[0], True
                place = match.end()

    def _shown(self, match: re.Match[str]) -> str:
        number = int(match[1])
        return self._special[number] if number < len(self._special) else match[0]

    def _pieces(self, text: str, *, answer: bool) -> list[Piece]:
        return [Piece(part, special, answer) for part, special in self._parts(text)]


def encode(
    conversations: Sequence[Sequence[Piece]], tokenizer: Tokenizer, special: Mapping[str, int]
) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return the token ids of each conversation, and which of them belong to answers.

    Args:
        conversations: From `ChatTemplate.pieces`. Each piece is encoded by itself, so that training divides a text where
            generation does: where an answer begins.
        tokenizer: Trained.
        special: Ids of the special tokens, by how they are written.

    Raises:
        DataError: A part of a text has no token.
    """
    texts = [piece.text for pieces in conversations for piece in pieces if not piece.special]
    encoded = iter(tokenizer.encode_batch(texts))
    rows = []
    for pieces in conversations:
        parts = [np.array([special[one.text]]) if one.special else np.asarray(next(encoded)) for one in pieces]
        answer = [np.full(len(part), one.answer) for part, one in zip(parts, pieces, strict=True)]
        rows.append((np.concatenate(parts).astype(np.int64), np.concatenate(answer)))
    return rows


def checked(messages: object) -> list[Message]:
    """Return messages if they are a conversation.

    Raises:
        DataError: They are not, or one has an unknown role or says nothing.
    """
    form = '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
    if not isinstance(messages, list) or not messages:
        raise DataError(f"has no messages; write them as {form}")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(f"message {number} has no text as its content; write messages as {form}")
        if message.get("role") not in ROLES:
            raise DataError(f"message {number} has the role {message.get('role')!r}; choose among {', '.join(ROLES)}")
        if not message["content"].strip():
            raise DataError(f"message {number} says nothing; give it text, or remove it")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
