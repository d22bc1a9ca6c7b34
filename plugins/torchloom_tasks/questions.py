"""Questions whose answers are spans of a text."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchloom.contracts.dataset import Batch, EpochKey, Split, SplitName
from torchloom.contracts.spec import QuestionSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import ConfigError, DataError, Problem
from torchloom_tasks.configs import SquadConfig
from torchloom_tasks.division import digest, divide
from torchloom_tasks.ragged import Ragged
from torchloom_tasks.tables import located, text_of
from torchloom_tasks.texts import Ids, Layout, TaskText, TextSplit, halves

_log = logging.getLogger(__name__)

_WORDS = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A true answer and the character of the context that it begins at."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the text to find its answer in, and its true answers: none where the text holds none."""

    place: str
    text: str
    context: str
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Article:
    """Questions about one subject, which stay together."""

    questions: tuple[Question, ...]

    @property
    def digest(self) -> bytes:
        """Hash of the contexts."""
        return digest(*dict.fromkeys(one.context for one in self.questions))


class WordSpans:
    """Encodes texts word by word, so that every token has a place in the text, whatever the tokenizer.

    A mark of punctuation is a word by itself. All tokens of a word, and of the white space before it, stand for the
    whole word: a span of tokens is always one of whole words. Tokenizers that divide text into words themselves give
    the same ids for a text at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, Ids] = {}

    def encode(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """Return ids ``(length,)``, and for each token the characters from and behind, ``(length, 2)``."""
        found = list(_WORDS.finditer(text))
        new = sorted({match[0] for match in found} - self._known.keys())
        for word, ids in zip(new, self._tokenizer.encode_batch(new) if new else (), strict=True):
            self._known[word] = np.asarray(ids, np.int64)
        pieces = [self._known[match[0]] for match in found]
        spans = [(match.end() - len(match[0].lstrip() or match[0]), match.end()) for match in found]
        sizes = [len(piece) for piece in pieces]
        whole: Ids = np.concatenate([*pieces, np.zeros(0, np.int64)])
        return whole, np.repeat(np.array(spans, np.int64).reshape(-1, 2), sizes, axis=0)


class QuestionSplit(Split):
    """Windows over contexts, as `torchloom.contracts.spec.QuestionSpec` has them."""

    def __init__(self, rows: TextSplit, spans: Tensor, example: Tensor, offsets: Ragged, questions: Sequence[Question]):
        """Keep windows and the questions they belong to.

        Args:
            rows: Tokens and segments of each window.
            spans: int64 ``(windows, 2)``, first and last token of the answer.
            example: int64 ``(windows,)``, ascending numbers of questions.
            offsets: For each window bytes from and behind of each token, -1 without.
            questions: In the order of their numbers.
        """
        self.tokens = rows.tokens
        self._rows, self._spans, self._example, self._offsets = rows, spans, example, offsets
        texts = list(dict.fromkeys(one.context for one in questions))
        numbers = {text: number for number, text in enumerate(texts)}
        self._context_of = torch.tensor([numbers[one.context] for one in questions], dtype=torch.int64)
        self._contexts = Ragged([_bytes(text) for text in texts], torch.uint8)
        answers = [
            "".join(f"{text}\0" for text in dict.fromkeys(answer.text for answer in one.answers)) for one in questions
        ]
        self._answers = Ragged([_bytes(text) for text in answers], torch.uint8)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return windows with the whole context of each."""
        batch = self._rows.batch(indices)
        example = self._example[indices]
        width = batch["tokens"].shape[1]
        offsets = self._offsets.rows(indices, -1, most=width).long()
        return {
            **batch,
            "start": self._spans[indices, 0],
            "end": self._spans[indices, 1],
            "example": example,
            "offsets": offsets,
            "context": self._contexts.rows(self._context_of[example], 0),
            "answers": self._answers.rows(example, 0),
        }


def windows(
    questions: Sequence[Question], tokenizer: Tokenizer, context_length: int, question_length: int, stride: int
) -> tuple[QuestionSplit, int]:
    """Lay windows over the contexts of questions.

    Returns:
        The split, and how many questions were cut to ``question_length``.

    Raises:
        ConfigError: The tokenizer lacks a special token, or the windows leave gaps.
        DataError: A question has no tokens.
    """
    missing = [name for name in ("cls", "sep") if tokenizer.special_id(name) is None]
    if missing:
        message = f"has no {' and no '.join(missing)}, which windows over a context need"
        mend = "set it to [pad,unk,cls,sep,mask]"
        raise ConfigError([Problem("tokenizer.special_tokens", message, mend)])
    layout = Layout(tokenizer, context_length, pairs=True)
    spell = WordSpans(tokenizer)
    contexts: dict[str, tuple[Ids, NDArray[np.int64], NDArray[np.int64]]] = {}
    tokens, firsts, spans, example, offsets = [], [], [], [], []
    cut = hidden = 0
    for number, one in enumerate(questions):
        asked = np.asarray(tokenizer.encode(one.text).numpy(), np.int64)
        if not len(asked):
            raise DataError(f"{one.place}: the question is empty; give it text or remove it")
        cut += len(asked) > question_length
        asked = asked[:question_length]
        room = layout.room - len(asked)
        if room < stride:
            fit = max(0, room)
            message = f"{stride} is more than the {fit} tokens of a text that fit beside a question of {len(asked)}"
            raise ConfigError([Problem("dataset.stride", message, "lower it, or raise dataset.context_length")])
        if one.context not in contexts:
            ids, characters = spell.encode(one.context)
            bytes_at = np.cumsum([0, *(len(_bytes(letter)) for letter in one.context)])
            contexts[one.context] = ids, characters, bytes_at[characters]
        ids, characters, places = contexts[one.context]
        span = _tokens_of(one.answers[0], characters) if one.answers else None
        begins = range(0, max(1, len(ids) - room + stride), stride) if len(ids) > room else (0,)
        shown = span is None
        for begin in begins:
            row, first, _ = layout.row(asked, ids[begin : begin + room])
            inside = span is not None and begin <= span[0] and span[1] < begin + room
            shown |= inside
            part = places[begin : begin + room]
            margin = np.full((first, 2), -1)
            tokens.append(row)
            firsts.append(first)
            spans.append([first + span[0] - begin, first + span[1] - begin] if span and inside else [0, 0])
            example.append(number)
            offsets.append(np.concatenate([margin, part, margin[:1]]))
        hidden += not shown
    if hidden:
        _log.warning("the answers of %d of %d questions are longer than a window", hidden, len(questions))
    pad = tokenizer.special_id("pad")
    rows = TextSplit(Ragged(tokens), firsts, None, pad_id=pad, context_length=context_length)
    span_table = torch.tensor(spans, dtype=torch.int64).view(-1, 2)
    numbers = torch.tensor(example, dtype=torch.int64)
    return QuestionSplit(rows, span_table, numbers, Ragged(offsets), questions), cut


def read_questions(
    inputs: Sequence[str], tokenizer: Tokenizer, context_length: int, question_length: int, stride: int
) -> QuestionSplit:
    """Read a person's own questions, each written ``question ||| text``.

    Raises:
        DataError: One is not.
    """
    questions = [Question(f"input {number}", *halves(text)) for number, text in enumerate(inputs, 1)]
    return windows(questions, tokenizer, context_length, question_length, stride)[0]


class Squad(TaskText[Article]):
    """SQuAD's JSON, 1.1 or 2.0: articles of paragraphs of questions. Articles are divided whole."""

    config: SquadConfig

    def divide(self) -> dict[SplitName, list[Article]]:
        """Read the files, and take shares of the training file's articles where there are no others.

        Raises:
            DataError: A file is missing, empty or broken, or an answer does not stand where it says.
        """
        config = self.config
        what = "a JSON file of SQuAD's form, or a folder with one for train, and for val and test if there are any"
        files = located(config.path, {"val": config.val_path, "test": config.test_path}, (".json",), what)
        given = {split: list(read_squad(path)) for split, path in files.items()}
        return divide(given, lambda one: one.digest, config, str(config.path))

    def texts(self, example: Article) -> Sequence[str]:
        """Return contexts and questions."""
        return [text for one in example.questions for text in (one.context, one.text)]

    def make_spec(self, vocabulary: dict[str, Any]) -> QuestionSpec:
        """Return the spec."""
        return QuestionSpec(context_length=self.config.context_length, **vocabulary)

    def rows(self, examples: Sequence[Article]) -> tuple[Split, int]:
        """Lay windows over the contexts."""
        config = self.config
        questions = [one for article in examples for one in article.questions]
        return windows(questions, self.trained(), config.context_length, config.question_length, config.stride)

    def read(self, inputs: Sequence[str]) -> Split:
        """Read questions, each written ``question ||| text``.

        Raises:
            DataError: One is not.
        """
        config = self.config
        return read_questions(inputs, self.trained(), config.context_length, config.question_length, config.stride)


def read_squad(path: Path) -> Iterator[Article]:
    """Yield the articles of a file.

    Raises:
        DataError: It is missing, empty, not of this form, or an answer does not stand where it says; names the question.
    """
    place = str(path)
    try:
        data = json.loads(text_of(path, "set dataset.path to a JSON file of SQuAD's form"))["data"]
        if not data:
            raise DataError(f"{path}: holds no articles; give a file that does")
        for number, article in enumerate(data, 1):
            questions = []
            place = f"{path}, article {number}"
            for part, paragraph in enumerate(article["paragraphs"], 1):
                place = f"{path}, article {number}, paragraph {part}"
                context = paragraph["context"]
                for index, one in enumerate(paragraph["qas"], 1):
                    place = (
                        f"{path}, article {number}, paragraph {part}, question {index}"  # until its own name is known
                    )
                    place = f"{path}, question {one['id']}"
                    answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in one["answers"])
                    answers = () if one.get("is_impossible", False) else answers
                    questions.append(checked(Question(place, one["question"].strip(), context, answers)))
            if questions:
                yield Article(tuple(questions))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); correct it") from error
    except (KeyError, TypeError, AttributeError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else "a part of it is of another type"
        raise DataError(
            f"{place}: not of SQuAD's form: {wrong}; see https://rajpurkar.github.io/SQuAD-explorer"
        ) from error


def checked(question: Question) -> Question:
    """Return a question whose answers stand in its context where they say.

    Raises:
        DataError: One does not, or a text is empty.
    """
    for name, text in (("context", question.context), ("question", question.text)):
        if not text.strip():
            raise DataError(f"{question.place}: the {name} is empty; give it text or remove it")
    for answer in question.answers:
        if not isinstance(answer.text, str) or type(answer.start) is not int:
            raise DataError(
                f"{question.place}: the answer {answer.text!r} from character {answer.start!r} on is not a text and a whole "
                "number; correct it"
            )
        stop = answer.start + len(answer.text)
        if not 0 <= answer.start < stop <= len(question.context):
            raise DataError(
                f"{question.place}: the answer {answer.text!r} from character {answer.start} on lies outside its context "
                f"of {len(question.context)} characters; correct answer_start"
            )
        found = question.context[answer.start : stop]
        if found != answer.text:
            raise DataError(
                f"{question.place}: the answer {answer.text!r} does not stand at character {answer.start}, where the "
                f"context has {found!r}; correct answer_start"
            )
    return question


def _tokens_of(answer: Answer, characters: NDArray[np.int64]) -> tuple[int, int]:
    """Return the first token and the last one that hold an answer."""
    stop = answer.start + len(answer.text)
    touching = np.flatnonzero((characters[:, 0] < stop) & (characters[:, 1] > answer.start))
    return int(touching[0]), int(touching[-1])


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
