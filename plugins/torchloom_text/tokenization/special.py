"""Special tokens: their names, and how they are written."""

from __future__ import annotations

from torchloom.errors import ConfigError, Problem
from torchloom_text.configs import TokenizerConfig

SPECIAL_FORMS = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "unk": ("<unk>", "[UNK]"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
    "mask": ("<mask>", "[MASK]"),
    "cls": ("<cls>", "[CLS]", "<s>"),
    "sep": ("<sep>", "[SEP]", "</s>"),
}
"""How special tokens are written: ours first, then as published tokenizers have them.

BERT's ``[CLS]`` and ``[SEP]``, as RoBERTa's ``<s>`` and ``</s>``, begin and end a text too: they answer to two names.
"""


def checked_special(config: TokenizerConfig) -> list[str]:
    """Return the names of the special tokens asked for.

    Raises:
        ConfigError: One is unknown or named twice.
    """
    names = list(config.special_tokens)
    wrong = [name for name in names if name not in SPECIAL_FORMS]
    if wrong or len(set(names)) < len(names):
        message = f"{wrong[0]!r} is not a special token" if wrong else f"{names} names one twice"
        raise ConfigError([Problem("tokenizer.special_tokens", message, f"choose among {', '.join(SPECIAL_FORMS)}")])
    return names
