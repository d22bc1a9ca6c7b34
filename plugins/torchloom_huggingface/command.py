"""The commands ``import`` and ``export``."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from torchloom import assembly, checkpoint, run
from torchloom.composing import compose
from torchloom.contracts.architecture import restoring
from torchloom.contracts.spec import Seq2SeqSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import CheckpointError, ConfigError, Problem, UnsupportedError
from torchloom.inference import load
from torchloom.schema import to_plain
from torchloom_huggingface.layouts import LAYOUTS, Layout, Settings, State
from torchloom_huggingface.reading import Published, read, tensor

_SPECIAL = ("pad", "unk", "bos", "eos", "mask", "cls", "sep")


def bring_in(config: DictConfig) -> int:
    """Make a run's folder of a published checkpoint, and print it.

    Args:
        config: Keys of `ImportConfig`.

    Returns:
        Exit code 0.

    Raises:
        CheckpointError: It cannot be read, or is not what its config says.
        ConfigError: The folder is there already.
    """
    out = Path(config.out).expanduser()
    if checkpoint.saved(out):
        raise ConfigError([Problem("out", f"{out} holds the checkpoints of a run already", "choose another folder")])
    tokenizer = None if config.tokenizer is None else Path(config.tokenizer).expanduser()
    published = read(Path(config.path).expanduser(), tokenizer)
    told = _write_run(published, out, config.path)
    print(f"torchloom: {told}", file=sys.stderr)
    print(out.resolve())
    return 0


def give_out(config: DictConfig) -> int:
    """Write a trained model in Hugging Face's layout, and print the folder.

    Args:
        config: Keys of `ExportConfig`.

    Returns:
        Exit code 0.

    Raises:
        UnsupportedError: The layout has no place for this network.
        ConfigError: The folder holds something already.
    """
    out = Path(config.out).expanduser()
    if out.exists() and any(out.iterdir()):
        raise ConfigError([Problem("out", f"{out} holds something already", "choose another folder")])
    loaded = load(config.ckpt, device="cpu")
    settings = dict(to_plain(loaded.config.architecture))
    layout = _layout_of(settings)
    if settings.get("lora"):
        raise UnsupportedError("adapters have no place in that layout; export the model that they were put into")
    state = loaded.model.state_dict()
    _complete(settings, state)
    spec = loaded.spec
    assert isinstance(spec, TokenSpec | Seq2SeqSpec)
    length = spec.context_length if isinstance(spec, TokenSpec) else spec.source_length
    written = layout.config(settings, spec.vocab_size, length)
    objective = loaded.config.objective.name
    head = layout.classes.get(objective)
    written |= {"model_type": layout.model_type, "architectures": [head or f"{layout.model_type.capitalize()}Model"]}
    for name in ("pad", "bos", "eos"):
        token = getattr(spec, f"{name}_id", None)
        if token is not None:
            written[f"{name}_token_id"] = token
    if layout.model_type == "t5":
        written["decoder_start_token_id"] = spec.bos_id if spec.bos_id is not None else spec.pad_id
    rules = [rule for rule in layout.rules(settings) if head or not rule.ours.startswith("head.")]
    weights = {key: value for rule in rules for key, value in rule.write(state)}

    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    if loaded.tokenizer is not None:
        _write_tokenizer(loaded.tokenizer, partial)
    if out.exists():
        out.rmdir()
    partial.replace(out)
    print(out.resolve())
    return 0


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    state = tokenizer.state()
    try:
        theirs = "model" in json.loads(state)
    except ValueError:
        theirs = False
    if theirs:
        (folder / "tokenizer.json").write_text(state, encoding="utf-8")
    else:
        print("torchloom: the tokenizer is not of Hugging Face's kind and was left out", file=sys.stderr)


def _layout_of(settings: Settings) -> Layout:
    """Return the layout that holds one of our networks."""
    name = settings["name"]
    if name == "decoder":
        return LAYOUTS["gpt2" if settings["positions"] == "learned" else "llama"]
    found = next((layout for layout in LAYOUTS.values() if layout.architecture == name), None)
    if found is None:
        raise UnsupportedError(f"no layout of Hugging Face's is known for architecture={name}")
    for key, off in (("experts", 0), ("recurrence", "none")):
        if settings.get(key, off) != off:
            raise UnsupportedError(f"architecture.{key}={settings[key]} has no place in that layout")
    return found


def _complete(settings: Settings, state: State) -> None:
    """Fill in what the settings leave to be worked out."""
    down = next(value for key, value in state.items() if key.endswith("feed_forward.down.weight"))
    settings["ffn_dim"] = down.shape[1]
    settings["num_kv_heads"] = settings["num_kv_heads"] or settings["num_heads"]


def _write_run(published: Published, out: Path, source: str) -> str:
    layout = published.layout
    words = [f"architecture={layout.architecture}", f"objective={layout.objective}"]
    words += [f"architecture.{key}={_word(value)}" for key, value in published.settings.items()]
    seq2seq = layout.objective == "seq2seq"
    if seq2seq:
        words += [
            "dataset=parallel_text",
            f"dataset.source_length={published.length}",
            f"dataset.target_length={published.length}",
        ]
    else:
        words += ["dataset=text_files", f"dataset.context_length={published.length}"]
    words.append(f"tokenizer={published.tokenizer[0] if published.tokenizer else 'bpe'}")
    config = compose(words)
    tokenizer = None
    if published.tokenizer is not None:
        tokenizer = _tokenizer(config, published.tokenizer[1])
        if tokenizer.vocab_size > published.vocab_size:
            raise CheckpointError(
                f"{source}: its tokenizer has {tokenizer.vocab_size} tokens, but its network {published.vocab_size}"
            )
    special = {} if tokenizer is None else {f"{name}_id": tokenizer.special_id(name) for name in _SPECIAL}
    spec: Spec
    if seq2seq:
        known = {key: special.get(key) for key in ("pad_id", "unk_id", "bos_id", "eos_id")}
        spec = Seq2SeqSpec(published.vocab_size, published.length, published.length, **known)
    else:
        known = {key: special.get(key) for key in TokenSpec.__dataclass_fields__ if key.endswith("_id")}
        spec = TokenSpec(published.vocab_size, published.length, **known)
    with restoring():
        network = assembly.make_network(config, spec, tokenizer)
    told = _fill(network.model, published, source)
    record = assembly.make_record(config, network, compiled=False)
    content = {
        "state_dict": {f"model.{key}": value for key, value in network.model.state_dict().items()},
        "global_step": 0,
        "epoch": 0,
        "pytorch-lightning_version": version("pytorch-lightning"),
        checkpoint.KEY: {**record.to_dict(), "meter": {"sums": {}, "weight": 0.0}, "results": {}},
    }
    place = checkpoint.path_of(out, 0)
    place.parent.mkdir(parents=True, exist_ok=True)
    (out / run.CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(to_plain(config))), encoding="utf-8")
    partial = place.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(place)
    return told


def _fill(model: torch.nn.Module, published: Published, source: str) -> str:
    """Put their tensors into our model, and say which were taken."""
    state = model.state_dict()
    prefix = published.layout.prefix
    used: set[str] = set()
    random: list[str] = []
    for rule in published.layout.rules(published.settings):
        found = {key: tensor(published.weights, key, prefix) for key in rule.theirs}
        missing = [key for key, value in found.items() if value is None]
        if missing and rule.ours.startswith("head."):
            random.append(rule.ours)
            continue
        if missing:
            raise CheckpointError(f"{source}: holds no {missing[0]!r}, which its config.json promises")
        made = rule.read({key: value for key, value in found.items() if value is not None})
        if made.shape != state[rule.ours].shape:
            raise CheckpointError(
                f"{source}: {' and '.join(rule.theirs)} make {tuple(made.shape)} for {rule.ours}, which is "
                f"{tuple(state[rule.ours].shape)} by its config.json"
            )
        state[rule.ours].copy_(made)
        used.update(rule.theirs)
    names = {name for key in used for name in (key, prefix + key, key.removeprefix(prefix))}
    left = sorted(set(published.weights) - names)
    told = f"{len(used)} tensors taken"
    if random:
        told += f"; the head of {published.layout.objective} is not among them and stays random"
    return told + (f"; left behind: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}" if left else "")


def _tokenizer(config: DictConfig, file: str | Path) -> Tokenizer:
    """Return a tokenizer from Hugging Face's JSON, or from a file of a kind that its component reads."""
    node = config.tokenizer.copy()
    if isinstance(file, Path):
        node.path = str(file)
        made: Tokenizer = assembly.build("tokenizer", node)
        if not made.trained:
            made.train([])
        return made
    made = assembly.build("tokenizer", node)
    made.load_state(file)
    return made


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
