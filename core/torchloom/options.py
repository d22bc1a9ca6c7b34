"""How a config dataclass states a field: default, meaning and range in one place. Torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: T | Callable[[], T],
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    unit: str = "",
    source: str = "",
    brings_tokenizer: bool = False,
) -> T:
    """Declare one field of a component's config dataclass.

    The default, the documentation and the range stand here and nowhere else: `torchloom show`, the reference, the
    schema check and the error messages all read them from the field's metadata.

    Args:
        default: The value when nothing is given; a callable (``list``, ``lambda: [1, 2]``) makes a fresh one each time.
        doc: One line that says what the field does.
        ge: Smallest value allowed, itself included.
        gt: Bound that the value must exceed.
        le: Largest value allowed, itself included.
        lt: Bound that the value must stay below.
        unit: Unit of the value ("tokens", "pixels", "seconds"), for documentation.
        source: Paper or code that the default comes from.
        brings_tokenizer: Whether the value names another run whose tokenizer this one takes, as ``architecture.init_from``
            does.

    Returns:
        A dataclass field, typed as its value so that type checkers see the field's own type.

    Example:
        >>> @dataclasses.dataclass
        ... class Config:
        ...     num_layers: int = option(4, "Number of Transformer blocks.", ge=1)
    """
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "lt": lt, "unit": unit, "source": source}
    metadata["brings_tokenizer"] = brings_tokenizer
    made: Any
    if callable(default):
        made = dataclasses.field(default_factory=default, metadata=metadata)
    else:
        made = dataclasses.field(default=default, metadata=metadata)
    return made  # type: ignore[no-any-return]
