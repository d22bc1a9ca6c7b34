"""The commands ``import`` and ``export``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from torchloom import assembly, checkpoint, run
from torchloom.composing import compose
from torchloom.contracts.architecture import restoring
from torchloom.contracts.spec import ChatSpec, Seq2SeqSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import CheckpointError, ConfigError, Problem, UnsupportedError
from torchloom.inference import Loaded, load
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
        ConfigError: The folder holds something already or cannot be made, or there is no such tokenizer's file.
        DataError: The tokenizer cannot be read.
        UnsupportedError: The network does what none here does.
    """
    out = Path(config.out).expanduser()
    _refuse_filled(out)
    tokenizer = None if config.tokenizer_file is None else Path(config.tokenizer_file).expanduser()
    if tokenizer is not None and not tokenizer.is_file():
        raise ConfigError([Problem("tokenizer_file", f"{tokenizer} is no file", "name the tokenizer's own file")])
    published = read(Path(config.path).expanduser(), tokenizer)
    with _filling(out) as folder:
        told = _write_run(published, folder, config.path)
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
        CheckpointError: It is missing or cut short.
        ConfigError: The folder holds something already or cannot be made.
        UnsupportedError: The layout has no place for this network.
    """
    out = Path(config.out).expanduser()
    _refuse_filled(out)
    loaded = load(config.ckpt, device="cpu")
    settings, weights = _exported(loaded)
    with _filling(out) as folder:
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if loaded.tokenizer is not None:
            _write_tokenizer(loaded.tokenizer, loaded.spec, folder)
    print(out.resolve())
    return 0


def _refuse_filled(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError([Problem("out", f"{out} holds something already", "choose another folder")])


@contextmanager
def _filling(out: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes its place once all is written."""
    out = out.absolute()
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        message = f"{out} cannot be made: {error.strerror or error}"
        raise ConfigError([Problem("out", message, "choose a folder that can be written to")]) from error
    try:
        yield partial
        if out.exists():
            out.rmdir()
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exported(loaded: Loaded) -> tuple[Settings, State]:
    """Return the config.json of a model of ours, and its tensors as they have them."""
    objective = loaded.config.objective.name
    settings = dict(to_plain(loaded.config.architecture))
    if settings.get("lora"):
        raise UnsupportedError(
            f"architecture.lora={settings['lora']}: adapters have no place in that layout; export a model without"
        )
    layout = _layout_of(settings)
    state = loaded.model.state_dict()
    _complete(settings, state)
    spec = loaded.spec
    assert isinstance(spec, TokenSpec | Seq2SeqSpec)
    length = spec.context_length if isinstance(spec, TokenSpec) else max(spec.source_length, spec.target_length)
    config = layout.config(settings, spec.vocab_size, length)
    head = layout.classes.get(objective)
    config |= {"model_type": layout.model_type, "architectures": [head or layout.bare]}
    for name in ("pad", "bos", "eos"):
        config[f"{name}_token_id"] = getattr(spec, f"{name}_id")
    if isinstance(spec, ChatSpec):
        config["eos_token_id"] = spec.end_id  # where transformers ends an answer
    if layout.objective == "seq2seq":
        known = (spec.bos_id, spec.pad_id, spec.eos_id)
        config["decoder_start_token_id"] = next((token for token in known if token is not None), None)
    rules = [rule for rule in layout.rules(settings, config) if head or not rule.ours.startswith("head.")]
    _refuse_left(layout, state, {rule.ours for rule in rules}, head is not None)
    if head is None:
        print(f"torchloom: the head of {objective} has no place in that layout and was left out", file=sys.stderr)
    return config, {key: value for rule in rules for key, value in rule.write(state)}


def _refuse_left(layout: Layout, state: State, written: set[str], with_head: bool) -> None:
    """Refuse a network with tensors that would be lost."""
    memory = {state[key].data_ptr() for key in written}
    for key, value in state.items():
        tied = value.data_ptr() in memory
        if key not in written and not tied and (with_head or not key.startswith("head.")):
            raise UnsupportedError(f"{key} has no place in the layout of {layout.model_type}")


def _write_tokenizer(tokenizer: Tokenizer, spec: Spec, folder: Path) -> None:
    state = tokenizer.state()
    try:
        theirs = "model" in json.loads(state)
    except ValueError:
        theirs = False
    if not theirs:
        print("torchloom: the tokenizer is not of Hugging Face's kind and was left out", file=sys.stderr)
        return
    (folder / "tokenizer.json").write_text(state, encoding="utf-8")
    special = {name: tokenizer.special_id(name) for name in _SPECIAL}
    tokens = {f"{name}_token": tokenizer.decode([token]) for name, token in special.items() if token is not None}
    if isinstance(spec, ChatSpec):
        tokens["chat_template"] = spec.template
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _layout_of(settings: Settings) -> Layout:
    """Return the layout that holds one of our networks."""
    name = settings["name"]
    if name == "decoder":
        return LAYOUTS["gpt2" if settings["positions"] == "learned" else "llama"]
    found = next((layout for layout in LAYOUTS.values() if layout.architecture == name), None)
    if found is None:
        raise UnsupportedError(f"no layout of Hugging Face's is known for architecture={name}")
    return found


def _complete(settings: Settings, state: State) -> None:
    """Fill in what the settings leave to be worked out."""
    down = next((value for key, value in state.items() if key.endswith("feed_forward.down.weight")), None)
    settings["ffn_dim"] = settings["ffn_dim"] if down is None else down.shape[1]
    settings["num_kv_heads"] = settings["num_kv_heads"] or settings["num_heads"]
    settings["head_dim"] = settings["head_dim"] or settings["d_model"] // settings["num_heads"]


def _write_run(published: Published, folder: Path, source: str) -> str:
    """Write config and checkpoint of a published network, and return what was taken of it."""
    config = compose(_words(published))
    tokenizer = None
    if published.tokenizer is not None:
        tokenizer = _tokenizer(config, published.tokenizer[1])
        if tokenizer.vocab_size > published.vocab_size:
            raise CheckpointError(
                f"{source}: its tokenizer has {tokenizer.vocab_size} tokens, but its network {published.vocab_size}; "
                "name the one that belongs to it: tokenizer_file=FILE"
            )
    spec = _spec(published, tokenizer)
    if published.layout.objective == "mlm" and getattr(spec, "mask_id", None) is None:
        raise CheckpointError(
            f"{source}: no tokenizer with a mask token lies beside it, and objective=mlm needs one; name it: "
            "tokenizer_file=FILE"
        )
    with restoring():
        network = assembly.make_network(config, spec, tokenizer)
    told = _fill(network.model, published, source)
    if tokenizer is None:
        told += (
            "; no tokenizer lies beside it, so it takes no text: name one with tokenizer_file=FILE to import it with"
        )
    record = assembly.make_record(config, network, compiled=False)
    content = {
        "state_dict": {f"model.{key}": value for key, value in network.model.state_dict().items()},
        "global_step": 0,
        "epoch": 0,
        "pytorch-lightning_version": version("pytorch-lightning"),
        checkpoint.KEY: {**record.to_dict(), "meter": {"sums": {}, "weight": 0.0}, "results": {}},
    }
    place = checkpoint.path_of(folder, 0)
    place.parent.mkdir(parents=True)
    (folder / run.CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(to_plain(config))), encoding="utf-8")
    torch.save(content, place)
    return told


def _words(published: Published) -> list[str]:
    """Return the command line that would build such a network."""
    layout, length = published.layout, published.length
    if layout.objective == "seq2seq":
        data = ["dataset=parallel_text", f"dataset.source_length={length}", f"dataset.target_length={length}"]
    else:
        data = ["dataset=text_files", f"dataset.context_length={length}"]
    return [
        f"architecture={layout.architecture}",
        f"objective={layout.objective}",
        f"tokenizer={published.tokenizer[0] if published.tokenizer else 'bpe'}",
        *data,
        *(f"architecture.{key}={_word(value)}" for key, value in published.settings.items()),
    ]


def _spec(published: Published, tokenizer: Tokenizer | None) -> Spec:
    """Return what its inputs look like; special tokens are the tokenizer's, without one its config.json's."""
    if tokenizer is not None:
        special = {name: tokenizer.special_id(name) for name in _SPECIAL}
    else:
        special = {name: published.token_id(name) for name in _SPECIAL}
    if published.layout.objective != "seq2seq":
        known = {f"{name}_id": special[name] for name in ("pad", "unk", "bos", "eos", "mask")}
        return TokenSpec(published.vocab_size, published.length, **known)
    # Its decoder's first token need not be the one that the tokenizer begins texts with.
    start, pad = published.token_id("decoder_start"), special["pad"]
    return Seq2SeqSpec(
        published.vocab_size,
        published.length,
        published.length,
        pad_id=pad,
        unk_id=special["unk"],
        bos_id=None if start == pad else start,
        eos_id=special["eos"],
    )


def _fill(model: torch.nn.Module, published: Published, source: str) -> str:
    """Put their tensors into our model, and say which were taken."""
    state = model.state_dict()
    prefix = published.layout.prefix
    used: set[str] = set()
    rules = published.layout.rules(published.settings, published.config)
    head = [key for rule in rules if rule.ours.startswith("head.") for key in rule.theirs]
    headless = not published.promises_head and all(tensor(published.weights, key, prefix) is None for key in head)
    for rule in rules:
        if headless and rule.ours.startswith("head."):
            continue
        found = {key: tensor(published.weights, key, prefix) for key in rule.theirs}
        missing = [key for key, value in found.items() if value is None]
        if missing:
            raise CheckpointError(f"{source}: holds no {missing[0]!r}, which its config.json promises")
        broken = [key for key, value in found.items() if value is not None and not value.isfinite().all()]
        if broken:
            raise CheckpointError(f"{source}: {broken[0]!r} holds numbers that are not finite; download it again")
        made, wanted = rule.read({key: value for key, value in found.items() if value is not None}), state[rule.ours]
        if made.shape != wanted.shape:
            raise CheckpointError(
                f"{source}: {' and '.join(rule.theirs)} make {tuple(made.shape)} for {rule.ours}, which is "
                f"{tuple(wanted.shape)} by its config.json"
            )
        wanted.copy_(made)
        used.update(rule.theirs)
    names = {name for key in used for name in (key, prefix + key, key.removeprefix(prefix))}
    left = sorted(set(published.weights) - names)
    told = f"{len(used)} tensors taken"
    if headless and head:
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
