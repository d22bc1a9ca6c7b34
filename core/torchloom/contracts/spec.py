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
    """

    name: ClassVar[str] = "text"

    vocab_size: int
    context_length: int
    pad_id: int | None = None
    unk_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    mask_id: int | None = None
