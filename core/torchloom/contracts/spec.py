"""What a dataset says about its examples, so that nothing about them is configured twice."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from torchloom.errors import CheckpointError


@dataclass(frozen=True)
class Spec:
    """Base of all specs: a frozen record of plain values that travels inside checkpoints.

    A plugin adds a spec by subclassing; the class is found again by its name. ``name`` is the word used in messages.
    """

    name: ClassVar[str] = "examples"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values only, with the class name under ``"spec"``."""
        return {"spec": type(self).__name__, **dataclasses.asdict(self)}

    def unlike(self, other: Spec) -> tuple[str, str]:
        """Return in words what this spec has, and what another has in its place: ``("num_classes=3", "num_classes=2")``."""
        if type(self) is not type(other):
            return self.name, other.name
        pairs = [
            (f"{key}={mine}", f"{key}={getattr(other, key)}")
            for key, mine in vars(self).items()
            if mine != getattr(other, key)
        ]
        mine, theirs = zip(*pairs, strict=True) if pairs else ((), ())
        return ", ".join(mine), ", ".join(theirs)


def spec_from_dict(values: dict[str, Any]) -> Spec:
    """Rebuild a spec from `Spec.to_dict`.

    Raises:
        CheckpointError: No loaded module defines a spec of that name.
    """
    fields = dict(values)
    wanted = fields.pop("spec")
    for cls in _subclasses(Spec):
        if cls.__name__ == wanted:
            fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            return cls(**fields)
    raise CheckpointError(f"the checkpoint's data is described by {wanted!r}, which no loaded plugin defines")


def _subclasses(cls: type[Spec]) -> list[type[Spec]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += _subclasses(child)
    return found


@dataclass(frozen=True)
class ImageSpec(Spec):
    """Labelled images; a batch holds ``image`` and, where ``num_classes`` is not 0, ``label``.

    Batch:
        ``image``: float32 ``(batch, channels, height, width)``, values in ``[0, 1]``; an architecture normalises.
        ``label``: int64 ``(batch,)``, in ``[0, num_classes)``.
    """

    name: ClassVar[str] = "images"

    channels: int
    height: int
    width: int
    num_classes: int = 0
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenSpec(Spec):
    """Running text as token ids.

    Batch:
        ``tokens``: int64 ``(batch, context_length + 1)``: windows of one token more than a model sees, so that a causal
        objective has ``context_length`` inputs and as many targets; others use the first ``context_length``.
        ``length`` (optional): int64 ``(batch,)``, real tokens in each row; the rest is ``pad_id``.
        ``documents`` (optional): int64 ``(batch, context_length + 1)``, a number for each token that differs from one
        document of the row to the next: what stands in one says nothing of another. Where documents are told apart by
        ``eos_id`` alone, that token counts as the first of the document behind it: it is the last target of one and
        the first input of the next.
    """

    name: ClassVar[str] = "text"

    vocab_size: int
    context_length: int
    pad_id: int | None = None
    unk_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    mask_id: int | None = None


@dataclass(frozen=True)
class LabelledTextSpec(TokenSpec):
    """Texts, or pairs of texts, with one class each.

    Batch:
        ``tokens``: int64 ``(batch, seq)`` with ``seq`` at most ``context_length``: ``[cls] a [sep]``, for pairs
        ``[cls] a [sep] b [sep]``, as far as the tokenizer has these special tokens.
        ``length``: int64 ``(batch,)``, real tokens of each row.
        ``segments`` (pairs only): int64 ``(batch, seq)``: 0 for the first text, 1 for the second.
        ``label``: int64 ``(batch,)``, in ``[0, num_classes)``.
    """

    name: ClassVar[str] = "labelled text"

    num_classes: int = 0
    classes: tuple[str, ...] = ()
    pairs: bool = False


@dataclass(frozen=True)
class SentencePairSpec(TokenSpec):
    """Pairs of pieces of running text, half of which follow one another in their document.

    Batch:
        ``tokens``, ``length``, ``segments`` as in `LabelledTextSpec`.
        ``label``: int64 ``(batch,)``: 1 where the second piece follows the first, 0 where it is from elsewhere.
    """

    name: ClassVar[str] = "sentence pairs"


@dataclass(frozen=True)
class QuestionSpec(TokenSpec):
    """Questions whose answers are spans of a context. A long context gives several overlapping windows.

    Batch:
        ``tokens``, ``length``, ``segments`` as in `LabelledTextSpec`: the question, then a window of the context.
        ``start``, ``end``: int64 ``(batch,)``, first and last token of the answer in ``tokens``; both 0, the place of
        ``[cls]``, where this window does not hold it.
        ``example``: int64 ``(batch,)``, number of the question that a window belongs to.
        ``offsets``: int64 ``(batch, seq, 2)``, for each token of the context the bytes of ``context`` it stands for, from
        and behind; -1 for all others.
        ``context``: uint8 ``(batch, bytes)``, UTF-8 text of the whole context, filled up with 0.
        ``answers``: uint8 ``(batch, bytes)``, UTF-8 texts of the true answers, a 0 behind each; all 0 if there is none.
    """

    name: ClassVar[str] = "questions"


@dataclass(frozen=True)
class ChatSpec(TokenSpec):
    """Conversations, one a row, written by a template.

    Batch:
        ``tokens``: int64 ``(batch, seq)`` with ``seq`` at most ``context_length + 1``.
        ``length``: int64 ``(batch,)``, real tokens of each row.
        ``answer``: bool ``(batch, seq)``: whether a token belongs to an answer, the token that ends it included.

    Attributes:
        template: Source of the template, for `torchloom.contracts.chat.ChatTemplate`.
        special_tokens: How the special tokens are written that it may use.
        special_ids: Their ids.
        end_id: The token behind an answer.
    """

    name: ClassVar[str] = "conversations"

    template: str = ""
    special_tokens: tuple[str, ...] = ()
    special_ids: tuple[int, ...] = ()
    end_id: int | None = None


@dataclass(frozen=True)
class Seq2SeqSpec(Spec):
    """Pairs of texts of which the second is to be made from the first; one vocabulary for both.

    Batch:
        ``source``: int64 ``(batch, source_seq)``, at most ``source_length`` long; ``source_length``: int64 ``(batch,)``.
        ``target``: int64 ``(batch, target_seq + 1)``, at most ``target_length + 1`` long, beginning with ``bos_id`` (or
        ``pad_id`` where there is none) and ending with ``eos_id``; ``target_length``: int64 ``(batch,)``, all of it.
    """

    name: ClassVar[str] = "text pairs"

    vocab_size: int
    source_length: int
    target_length: int
    pad_id: int | None = None
    unk_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None


@dataclass(frozen=True)
class SeriesSpec(Spec):
    """Sequences of vectors: measurements over time, or frames of sound.

    Batch:
        ``series``: float32 ``(batch, seq, channels)``, ``seq`` at most ``context_length``.
        ``length`` (optional): int64 ``(batch,)``, real positions of each row.
        ``future`` (with ``horizon``): float32 ``(batch, horizon, channels)``, what comes next.
        ``mean``, ``std`` (optional): float32 ``(batch, channels)``: a value in its own unit is ``value * std + mean``.
        ``label`` (with ``num_classes``): int64 ``(batch,)``.
    """

    name: ClassVar[str] = "series"

    channels: int
    context_length: int
    horizon: int = 0
    num_classes: int = 0
    classes: tuple[str, ...] = ()
