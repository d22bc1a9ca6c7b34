"""What the tests of task datasets share."""

import os
from pathlib import Path

import pytest
import torch

from torchloom_text.configs import WordConfig
from torchloom_text.tokenization import WordTokenizer

SPECIAL = ["pad", "unk", "cls", "sep", "mask"]


def words(*special, **fields):
    """Return an untrained word tokenizer that knows every word of its training text."""
    return WordTokenizer(WordConfig(special_tokens=list(special) or SPECIAL, min_frequency=1, **fields))


def data(name):
    """Return a folder of real data, or skip."""
    if "TORCHLOOM_DATA" not in os.environ:
        pytest.skip("TORCHLOOM_DATA is not set")
    return Path(os.environ["TORCHLOOM_DATA"]) / name


def everything(split, key=None):
    return split.batch(torch.arange(len(split)), key)


def said(dataset, row):
    """Return a row of tokens as text, special tokens and all but padding."""
    return " ".join(dataset.tokenizer.decode(row).replace("<pad>", "").split())
