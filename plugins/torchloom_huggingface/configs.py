"""Keys of the commands. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from torchloom.options import option


@dataclass
class ImportConfig:
    """Make a run's folder of a published checkpoint, to generate from, evaluate, and start other runs with.

    Example:
        torchloom import path=GPT2 out=runs/gpt2
        torchloom import path=FILE tokenizer_file=TOKENIZER out=runs/stories
        torchloom train objective=sentiment dataset=sentiment architecture=encoder architecture.init_from=runs/bert
    """

    path: str = option(
        MISSING, "Folder with config.json and model.safetensors as Hugging Face lays them out, or a llama2.c .bin file."
    )
    out: str = option(MISSING, "Folder to make; it is laid out as a run's.")
    tokenizer_file: str | None = option(
        None, "Tokenizer's file, where it does not lie beside the weights under its usual name."
    )


@dataclass
class ExportConfig:
    """Write a trained model in a layout that others read.

    Example:
        torchloom export ckpt=last to=huggingface out=MODEL
    """

    ckpt: str = option(MISSING, "Checkpoint file; 'last' is the newest whole one of the newest run.")
    to: Literal["huggingface"] = option("huggingface", "Layout to write.")
    out: str = option(MISSING, "Folder to make.")
