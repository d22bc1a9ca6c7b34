"""Tokenizers: characters, bytes, words, and four ways to divide words, these being thin covers over Hugging Face's."""

from torchloom_text.tokenization.plain import ByteTokenizer, CharTokenizer
from torchloom_text.tokenization.special import SPECIAL_FORMS
from torchloom_text.tokenization.subwords import BPETokenizer, CharBPETokenizer, UnigramTokenizer
from torchloom_text.tokenization.words import WordPieceTokenizer, WordTokenizer

__all__ = [
    "SPECIAL_FORMS",
    "BPETokenizer",
    "ByteTokenizer",
    "CharBPETokenizer",
    "CharTokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
]
