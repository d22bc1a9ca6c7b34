"""Small random networks of transformers, their tokenizers, and the way from their folders to ours and back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models

import torchloom
from torchloom.inference import Loaded
from torchloom_huggingface.command import bring_in, give_out

VOCABULARY = 103
LENGTH = 24
SMALL = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "bos_token_id": 0, "eos_token_id": 0},
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
    },
    "bert": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
    },
    "t5": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "n_positions": LENGTH,
        "decoder_start_token_id": 0,
    },
}
CONFIGS = {
    "gpt2": transformers.GPT2Config,
    "llama": transformers.LlamaConfig,
    "bert": transformers.BertConfig,
    "t5": transformers.T5Config,
}
SPECIAL = {
    "gpt2": ["<|endoftext|>"],
    "llama": ["<unk>", "<s>", "</s>"],
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "t5": ["<pad>", "</s>", "<unk>"],
}


def published(kind: str, cls: str, **settings) -> transformers.PreTrainedModel:
    """Return a network whose weights are large enough for every one of them to show in its outputs."""
    config = CONFIGS[kind](vocab_size=VOCABULARY, **{**SMALL[kind], **settings})
    model = getattr(transformers, cls)(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def tokenizer(kind: str, size: int = VOCABULARY) -> Tokenizer:
    """Return a tokenizer of single characters, of the kind that such networks have."""
    special = SPECIAL[kind]
    characters = [chr(code) for code in (*range(32, 127), *range(192, 65000))]
    tokens = [*special, *characters[: size - len(special)]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if kind == "bert":
        made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    elif kind == "t5":
        made = Tokenizer(models.Unigram([(token, -1.0) for token in tokens], unk_id=2))
    else:
        made = Tokenizer(models.BPE(vocabulary, []))
    made.decoder = decoders.Fuse()
    made.add_special_tokens(special)
    return made


def save(model: transformers.PreTrainedModel, folder: Path, size: int = VOCABULARY) -> Path:
    """Write a network with its tokenizer as people publish them."""
    model.save_pretrained(folder)
    tokenizer(model.config.model_type, size).save(str(folder / "tokenizer.json"))
    return folder


def bring(path: Path, out: Path, tokenizer: Path | None = None) -> Loaded:
    """Import a published network and load the run."""
    arguments = {"path": str(path), "out": str(out), "tokenizer_file": None if tokenizer is None else str(tokenizer)}
    assert bring_in(OmegaConf.create(arguments)) == 0
    return torchloom.load(out, device="cpu")


def give(run: Path, out: Path) -> Path:
    """Export a run."""
    assert give_out(OmegaConf.create({"ckpt": str(run), "to": "huggingface", "out": str(out)})) == 0
    return out


def changed(folder: Path, **values) -> None:
    """Change keys of a config.json; those set to None go."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def ending(model: transformers.PreTrainedModel) -> list[int]:
    """Return the tokens at which a text ends here: that which ends one, and that which begins another."""
    ids = (model.config.eos_token_id, model.config.bos_token_id)
    return [one for one in dict.fromkeys(ids) if one is not None]
