"""Where training starts: from another run's backbone, with parts of it frozen, with adapters in place of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from torchloom import checkpoint, registry
from torchloom.checkpoint import Record
from torchloom.configs import ArchitectureConfig
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import Model, Objective
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import CheckpointError, ConfigError, MissingDependencyError, Problem
from torchloom.schema import to_config, to_plain

BACKBONE = "model.architecture."
HEAD = "model.head."
"""What the keys of their weights begin with in a checkpoint."""


@dataclass
class Start:
    """Where a backbone's weights came from, key by key.

    Attributes:
        source: The checkpoint.
        taken: Keys whose tensors were taken as they are.
        resized: Keys of tables of which as many rows were taken as both have, with both sizes.
        left: Keys of the checkpoint that are not the backbone's: the head of another objective.
    """

    source: str
    taken: list[str] = field(default_factory=list)
    resized: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.source}: {len(self.taken)} tensors taken, {len(self.resized)} resized, {len(self.left)} left behind"
        )


def settings_of(architecture: Architecture) -> ArchitectureConfig:
    """Return the fields that say where an architecture starts; their defaults if its config has none."""
    config = architecture.config
    return config if isinstance(config, ArchitectureConfig) else ArchitectureConfig()


def take_tokenizer(config: DictConfig, tokenizer: Tokenizer | None, continued: Record | None = None) -> None:
    """Give the tokenizer of the run that this one starts from, or learns from, to it, before it learns its own.

    Args:
        config: The run's configuration; options that say so of themselves name such runs.
        tokenizer: The run's tokenizer, if it has one.
        continued: What the checkpoint says that the run goes on from, which knows the tokenizer already.

    Raises:
        CheckpointError: There is no such run.
        ConfigError: It was trained with another kind of tokenizer, or one is there where the other has none, or two
            runs that are named have different ones.
    """
    states: dict[str, tuple[str, str]] = {}
    for place, source in _named(config):
        record = continued or _record(place, source)
        node = record.config.get("tokenizer")
        if (node is None or record.tokenizer is None) != (tokenizer is None):
            has = "text" if record.tokenizer is not None else "no text"
            message = f"{source} was trained on {has}, and dataset {config.dataset.name!r} is not like that"
            raise ConfigError([Problem(place, message, "choose a run on data of the same kind")])
        if tokenizer is None or node is None or record.tokenizer is None:
            continue
        if node["name"] != config.tokenizer.name:
            message = f"is not what {source} was trained with"
            mend = f"choose tokenizer={node['name']}; it takes that run's"
            raise ConfigError([Problem(f"tokenizer={config.tokenizer.name}", message, mend)])
        if continued is None:
            _check_file(config, source, record.tokenizer)
        states[place] = source, record.tokenizer
    for place, (source, state) in states.items():
        first, (origin, known) = next(iter(states.items()))
        if state != known:
            message = f"{source} was trained with another vocabulary than {first}={origin}"
            raise ConfigError([Problem(place, message, "choose two runs of one vocabulary")])
        if tokenizer is not None:
            tokenizer.load_state(state)


def _named(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the options that name a run whose tokenizer is taken, and the run."""
    known = registry.current()
    for kind in ("architecture", "objective"):
        node = config[kind]
        for field_ in fields(known.config_class(known.get(kind, node.name))):
            source = node.get(field_.name) if field_.metadata.get("brings_tokenizer") else None
            if source is not None:
                yield f"{kind}.{field_.name}", source


def _check_file(config: DictConfig, source: str, state: str) -> None:
    """Refuse a tokenizer's file that holds another one than a run was trained with."""
    path = config.tokenizer.get("path")
    if path is None:
        return
    known = registry.current()
    component = known.get("tokenizer", config.tokenizer.name)
    given: Tokenizer = known.load(component)(to_config(component, config.tokenizer))
    given.train([])  # reads its file
    if given.state() != state:
        message = f"{path} holds another tokenizer than {source} was trained with"
        raise ConfigError([Problem("tokenizer.path", message, "leave it out; that run's is taken")])


def _record(place: str, source: str) -> Record:
    try:
        return checkpoint.record_of(checkpoint.read(checkpoint.best(source)))
    except CheckpointError as error:
        mend = "a published checkpoint is made a run of by torchloom import"
        raise CheckpointError(f"{place}={source}: {error}\n    {mend}") from error


def take_weights(architecture: Architecture, source: str, blocks: Sequence[int] = ()) -> Start:
    """Load the weights of another run's backbone.

    A table of tokens or positions that has more or fewer rows than the other gives and gets those that both have.

    Args:
        architecture: Newly built; changed in place.
        source: A run's folder (its best checkpoint, else its newest), or a checkpoint.
        blocks: Which of its blocks, from 1, this one's are taken from; each from its own if there are none.

    Raises:
        CheckpointError: It is not there, or not of an architecture like this one; names what differs.
        ConfigError: The blocks that are named do not go with those of the two.
    """
    content = checkpoint.read(checkpoint.best(source))
    weights: dict[str, Tensor] = content["state_dict"]
    start = Start(source)
    own = architecture.state_dict()
    found = {key.removeprefix(BACKBONE): value for key, value in weights.items() if key.startswith(BACKBONE)}
    start.left = [key.removeprefix("model.") for key in weights if not key.startswith(BACKBONE)]
    if blocks:
        found, dropped = _chosen(architecture, source, found, blocks)
        start.left += [f"architecture.{key}" for key in dropped]
    start.left.sort()
    tables = {f"{name}.weight" for name, module in architecture.named_modules() if isinstance(module, nn.Embedding)}
    differing = sorted(own.keys() ^ found.keys())
    for key in own.keys() & found.keys():
        mine, theirs = own[key], found[key]
        if mine.shape == theirs.shape:
            own[key] = theirs
            start.taken.append(key)
        elif key in tables and mine.shape[1:] == theirs.shape[1:]:
            rows = min(len(mine), len(theirs))
            own[key] = torch.cat((theirs[:rows].to(mine), mine[rows:]))
            start.resized[key] = (len(theirs), len(mine))
        else:
            differing.append(key)
    if differing:
        raise CheckpointError(_misfit(source, content, architecture, own, found, differing))
    architecture.load_state_dict(own)
    start.taken.sort()
    return start


def take_head(model: Model, objective: Objective, start: Start) -> None:
    """Load the other run's head too, if its objective has the same; of another vocabulary the rows that both have.

    An output layer that shares the embedding's matrix has its weights already.

    Args:
        model: Its backbone comes from ``start``; its head, newly made, is changed in place.
        objective: What it will be trained on.
        start: Where the backbone came from; what is taken is moved there from what was left behind.
    """
    content = checkpoint.read(checkpoint.best(start.source))
    if model.head is None or checkpoint.record_of(content).config["objective"]["name"] not in objective.inherits:
        return
    embedding = model.architecture.input_embedding()
    name = next((name for name, one in model.architecture.named_modules() if one is embedding), None)
    own = model.head.state_dict()
    for key, mine in own.items():
        theirs = content["state_dict"].get(HEAD + key)
        shared = embedding is not None and mine.data_ptr() == embedding.weight.data_ptr()
        if shared and theirs is not None and torch.equal(theirs, content["state_dict"][f"{BACKBONE}{name}.weight"]):
            start.left.remove(f"head.{key}")  # it was shared there too, and came with the embedding
        if shared or theirs is None or mine.shape[1:] != theirs.shape[1:]:
            continue
        rows = min(len(mine), len(theirs))
        own[key] = torch.cat((theirs[:rows].to(mine), mine[rows:]))
        start.left.remove(f"head.{key}")
        if len(mine) == len(theirs):
            start.taken.append(f"head.{key}")
        else:
            start.resized[f"head.{key}"] = (len(theirs), len(mine))
    model.head.load_state_dict(own)


def _chosen(
    architecture: Architecture, source: str, found: dict[str, Tensor], blocks: Sequence[int]
) -> tuple[dict[str, Tensor], list[str]]:
    """Put the blocks that are named in the places of this network's, and return the keys of the others too."""
    own = architecture.blocks()
    names = {id(module): name for name, module in architecture.named_modules()}
    stem = names[id(own[0])].removesuffix("0") if own else ""
    if not own or [names[id(block)] for block in own] != [f"{stem}{index}" for index in range(len(own))]:
        message = f"picks from one stack of blocks, which {type(architecture).__name__} does not have"
        raise ConfigError([Problem("architecture.init_blocks", message, "leave it out")])
    theirs = {key: int(key.removeprefix(stem).partition(".")[0]) + 1 for key in found if key.startswith(stem)}
    depth = max(theirs.values(), default=0)
    if len(blocks) != len(own) or max(blocks) > depth:
        message = f"{list(blocks)} is not a choice of {len(own)} from the {depth} blocks of {source}"
        raise ConfigError([Problem("architecture.init_blocks", message, f"name {len(own)} of them, from 1")])
    picked = {key: value for key, value in found.items() if key not in theirs}
    for index, number in enumerate(blocks):
        for key in (one for one in theirs if theirs[one] == number):
            picked[f"{stem}{index}{key.removeprefix(f'{stem}{number - 1}')}"] = found[key]
    return picked, [key for key, number in theirs.items() if number not in blocks]


def prepare(architecture: Architecture, settings: ArchitectureConfig) -> None:
    """Freeze what shall not learn and put adapters in.

    Raises:
        ConfigError: More blocks are to be frozen than there are, there is nothing that adapters could be put into, or
            blocks are named of no run.
        MissingDependencyError: Adapters need peft, which is not installed.
    """
    if settings.init_blocks and settings.init_from is None:
        message = "names blocks of another run, and there is none"
        raise ConfigError([Problem("architecture.init_blocks", message, "name it too: architecture.init_from=RUN")])
    if settings.freeze:
        _freeze(architecture, settings.freeze)
    if settings.lora:
        _adapt(architecture, settings)


def _freeze(architecture: Architecture, count: int) -> None:
    blocks = list(architecture.blocks())
    if count == -1:
        architecture.freeze([architecture])
    elif count > len(blocks):
        message = f"{count} blocks cannot be frozen of {len(blocks)}"
        raise ConfigError([Problem("architecture.freeze", message, "choose fewer, or -1 for the whole backbone")])
    else:
        architecture.freeze([*architecture.input_stage(), *blocks[:count]])


def _adapt(architecture: Architecture, settings: ArchitectureConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            "architecture.lora needs peft, which is not installed\n    pip install 'torchloom[lora]'"
        ) from error
    inside = {id(one) for block in architecture.blocks() for one in block.modules()}
    targets = [name for name, one in architecture.named_modules() if isinstance(one, nn.Linear) and id(one) in inside]
    if not targets:
        message = f"adapters stand beside linear layers, and the blocks of {type(architecture).__name__} have none"
        raise ConfigError([Problem("architecture.lora", message, "leave it out, or choose a Transformer")])
    adapters = LoraConfig(
        r=settings.lora, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout, target_modules=targets
    )
    inject_adapter_in_model(adapters, architecture)


def _misfit(
    source: str,
    content: dict[str, Any],
    architecture: Architecture,
    own: dict[str, Tensor],
    found: dict[str, Tensor],
    differing: list[str],
) -> str:
    saved = checkpoint.record_of(content).config["architecture"]
    known = registry.current()
    same = known.has("architecture", saved["name"]) and isinstance(
        architecture, known.load(known.get("architecture", saved["name"]))
    )
    mine = _flat(to_plain(architecture.config)) if same else {}
    theirs, starting = _flat(saved), vars(ArchitectureConfig())
    unlike = {key: theirs[key] for key in mine if key in theirs and mine[key] != theirs[key] and key not in starting}
    first = differing[0]
    lines = [
        f"architecture.init_from={source}: its backbone is another network; {len(differing)} tensors differ, first "
        f"{first}: {_shape(found, first)} there, {_shape(own, first)} here"
    ]
    if unlike:
        keys = " ".join(f"architecture.{key}={_word(value)}" for key, value in unlike.items())
        lines.append(f"    build it as that run's architecture={saved['name']} was: {keys}")
    else:
        lines.append(f"    choose architecture={saved['name']}, which that run trained")
    return "\n".join(lines)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{key}.{one}": found for one, found in inner.items()} if inner else {key: value}
    return flat


def _word(value: Any) -> str:
    """Return a value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _shape(tensors: dict[str, Tensor], key: str) -> str:
    return str(tuple(tensors[key].shape)) if key in tensors else "none"
