"""Published checkpoints from files: Hugging Face's folders, and llama2.c's two binary files."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from torch import Tensor

from torchloom.errors import CheckpointError
from torchloom_huggingface.layouts import LAYOUTS, Layout, Settings, State

TOKENIZERS = {"gpt2": "bpe", "llama": "char_bpe", "bert": "wordpiece", "t5": "unigram"}
"""Our tokenizer that each network's is of the kind of."""


_TENSORFLOW = {"gamma": "weight", "beta": "bias"}


@dataclass
class Published:
    """A checkpoint that somebody published.

    Attributes:
        layout: Of the network.
        config: Its config.json.
        settings: Of our architecture.
        length: Longest sequence.
        weights: Their tensors.
        tokenizer: Component name, and the tokenizer as Hugging Face's JSON or the path of a vocabulary; None if there is
            none.
    """

    layout: Layout
    config: Settings
    settings: Settings
    length: int
    weights: State
    tokenizer: tuple[str, str | Path] | None

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return int(self.config["vocab_size"])

    @property
    def promises_head(self) -> bool:
        """Whether its config.json names a model with the head of our objective."""
        return self.layout.classes[self.layout.objective] in (self.config.get("architectures") or ())

    def token_id(self, name: str) -> int | None:
        """Return the special token that its config.json gives by a name; None if it is none of the vocabulary."""
        token = self.config.get(f"{name}_token_id")
        return token if isinstance(token, int) and 0 <= token < self.vocab_size else None


def read(path: Path, tokenizer: Path | None) -> Published:
    """Read a checkpoint.

    Args:
        path: Folder, or llama2.c's ``.bin``.
        tokenizer: File of the tokenizer, where it does not lie beside the weights.

    Raises:
        CheckpointError: It is not there, cut short, or of a layout that is not known.
        UnsupportedError: The network does what none here does.
    """
    if path.is_dir():
        return _read_folder(path, tokenizer)
    if path.is_file() and path.suffix == ".bin":
        return _read_llama2c(path, tokenizer)
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; give a folder with config.json and model.safetensors")
    raise CheckpointError(
        f"{path}: holds no published checkpoint; give a folder with config.json and model.safetensors, or a llama2.c .bin file"
    )


def tensor(state: State, key: str, prefix: str) -> Tensor | None:
    """Return a tensor by its key, which may have a prefix in the file that it does not have here, or the other way round."""
    for name in (key, prefix + key, key.removeprefix(prefix)):
        if name in state:
            return state[name]
    return None


def _read_folder(folder: Path, tokenizer: Path | None) -> Published:
    config = _json(folder / "config.json")
    layout = LAYOUTS.get(config.get("model_type", ""))
    if layout is None:
        raise CheckpointError(
            f"{folder / 'config.json'}: model_type={config.get('model_type')!r} is not known here; known are "
            f"{', '.join(sorted(LAYOUTS))}"
        )
    weights: State = {}
    for name in _files(folder):
        try:
            weights |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / name}: cannot be read as safetensors: {error}") from error
    weights = {_modern(key): value for key, value in weights.items()}
    try:
        settings, length = layout.settings(config, weights)
        config["vocab_size"]
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'}: has no {error.args[0]}") from error
    found = tokenizer or next((one for one in (folder / "tokenizer.json", folder / "vocab.txt") if one.is_file()), None)
    return Published(
        layout, config, settings, length, weights, None if found is None else (_kind(found, layout), found)
    )


def _kind(file: Path, layout: Layout) -> str:
    """Return the name of our tokenizer that a file is of the kind of, which need not be the usual one of its network."""
    usual = TOKENIZERS[layout.model_type]
    if file.suffix != ".json":
        return usual
    model = _json(file).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind == "BPE":
        return usual if usual in ("bpe", "char_bpe") else "bpe"
    return {"WordPiece": "wordpiece", "Unigram": "unigram"}.get(str(kind), usual)


def _files(folder: Path) -> list[str]:
    """Return the names of the files of weights: one, or the shards that an index lists."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{index}: has no weight_map, which names the file of each tensor; download it again")
        names = sorted(set(map(str, shards.values())))
        outside = next((name for name in names if Path(name).name != name), None)
        if outside is not None:
            raise CheckpointError(f"{index}: names {outside!r}, which lies in another folder; download it again")
        return names
    if not (folder / "model.safetensors").is_file() and (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(
            f"{folder}: holds pytorch_model.bin, a pickle, but no model.safetensors; write it anew by transformers' "
            "save_pretrained"
        )
    return ["model.safetensors"]


def _modern(key: str) -> str:
    """Return the name of a tensor, which in BERT's own files is TensorFlow's."""
    module, _, name = key.rpartition(".")
    return f"{module}.{_TENSORFLOW[name]}" if name in _TENSORFLOW else key


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: holds no JSON of names and values: {error}") from error
    return content


def _read_llama2c(path: Path, tokenizer: Path | None) -> Published:
    """Read llama2.c's version 0: seven numbers, then the weights of a Llama in single precision.

    Source: https://github.com/karpathy/llama2.c, export.py, legacy_export.
    """
    content = path.read_bytes()
    header = struct.calcsize("<7i")
    if len(content) < header:
        raise CheckpointError(f"{path}: is cut short: {len(content)} bytes")
    width, hidden, layers, heads, kv_heads, vocab_size, length = struct.unpack_from("<7i", content)
    if min(width, hidden, layers, heads, kv_heads, length) < 1 or vocab_size == 0 or width % heads:
        raise CheckpointError(f"{path}: its first numbers are not those of a llama2.c file")
    tied, vocab_size = vocab_size > 0, abs(vocab_size)
    size = width // heads
    keys = kv_heads * size
    values = np.frombuffer(content, "<f4", offset=header)
    at = 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        count = int(np.prod(shape))
        if at + count > len(values):
            raise CheckpointError(f"{path}: is cut short: {len(content)} bytes are fewer than its header tells of")
        taken = torch.from_numpy(values[at : at + count].copy()).view(*shape)
        at += count
        return taken

    weights: State = {"model.embed_tokens.weight": take(vocab_size, width)}
    stacked = {
        "input_layernorm": take(layers, width),
        "self_attn.q_proj": _halves(take(layers, width, width), heads),
        "self_attn.k_proj": _halves(take(layers, keys, width), kv_heads),
        "self_attn.v_proj": take(layers, keys, width),
        "self_attn.o_proj": take(layers, width, width),
        "post_attention_layernorm": take(layers, width),
        "mlp.gate_proj": take(layers, hidden, width),
        "mlp.down_proj": take(layers, width, hidden),
        "mlp.up_proj": take(layers, hidden, width),
    }
    for name, tensors in stacked.items():
        weights |= {f"model.layers.{index}.{name}.weight": one for index, one in enumerate(tensors)}
    weights["model.norm.weight"] = take(width)
    take(2, length, size // 2)  # the angles of RoPE, which follow from their formula
    if not tied:
        weights["lm_head.weight"] = take(vocab_size, width)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": length,
        "tie_word_embeddings": tied,
    }
    layout = LAYOUTS["llama"]
    settings, longest = layout.settings(config, weights)
    read_tokenizer = None if tokenizer is None else (TOKENIZERS["llama"], _llama2c_tokenizer(tokenizer, vocab_size))
    return Published(layout, config, settings, longest, weights, read_tokenizer)


def _halves(weights: Tensor, heads: int) -> Tensor:
    """Put RoPE's pairs, which llama2.c has side by side, into the two halves of a head."""
    layers, rows, width = weights.shape
    return weights.view(layers, heads, rows // heads // 2, 2, width).transpose(2, 3).reshape(layers, rows, width)


def _llama2c_tokenizer(path: Path, vocab_size: int) -> str:
    """Read llama2.c's tokenizer: for each token its score, and its text with spaces as they are.

    Source: https://github.com/karpathy/llama2.c, tokenizer.py, export.
    """
    content = path.read_bytes()
    pieces: list[tuple[str, float]] = []
    at = 4  # behind the length of the longest
    try:
        for _ in range(vocab_size):
            score, length = struct.unpack_from("<fi", content, at)
            at += 8
            pieces.append((content[at : at + length].decode("utf-8", "strict"), score))
            at += length
        if at != len(content):
            raise ValueError(f"{len(content)} bytes, of which its tokens take {at}")
    except (struct.error, ValueError) as error:
        raise CheckpointError(
            f"{path}: is not the tokenizer of a llama2.c model of {vocab_size} tokens: {error}"
        ) from error
    special = ["<unk>", "<s>", "</s>"]
    texts = (
        special
        + [text.replace(" ", "\u2581") if number >= 259 else text for number, (text, _) in enumerate(pieces)][3:]
    )
    vocabulary = {text: number for number, text in enumerate(texts)}
    scores = {text: score for text, (_, score) in zip(texts, pieces, strict=True)}
    merges = []
    for text in texts[259:]:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((-scores[text], vocabulary[text], cut, left, right))
    model = models.BPE(
        vocabulary, [(left, right) for *_, left, right in sorted(merges)], unk_token="<unk>", byte_fallback=True
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    state: str = made.to_str()
    return state
