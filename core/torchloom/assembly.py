"""From a checked config to a run that can start: dataset, spec, kernel, architecture, objective, module, Trainer."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.profilers import PassThroughProfiler
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

import torchloom
from torchloom import plugins
from torchloom.checkpoint import Record
from torchloom.component import Kind
from torchloom.configs import TrainerConfig
from torchloom.contracts.architecture import Architecture, is_restoring
from torchloom.contracts.attention import Attention
from torchloom.contracts.dataset import Dataset
from torchloom.contracts.objective import ManualObjective, Model, Objective
from torchloom.contracts.parallel import Parallel
from torchloom.contracts.spec import Spec, spec_from_dict
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.contracts.training import Callback, Logger, Optimizer, Scheduler
from torchloom.data import DataModule, mix
from torchloom.errors import ConfigError, Problem
from torchloom.module import TorchloomModule
from torchloom.registry import Registry, current
from torchloom.schema import to_config, to_plain
from torchloom.starting import Start, settings_of, take_head, take_tokenizer, take_weights
from torchloom.starting import prepare as prepare_start

DEFAULT_EPOCHS = 10
_STEPS_WORTH_COMPILING_ON_CPU = 50_000
"""A cold compilation took 20 to 68 s and gained 1.5 to 5 ms a step where this was measured (two x86-64 cores)."""


@dataclass
class Network:
    """What a config and a spec make, without any data: enough to load weights into and to generate from."""

    config: DictConfig
    spec: Spec
    tokenizer: Tokenizer | None
    kernel: Attention | None
    architecture: Architecture
    objective: Objective
    model: Model
    start: Start | None = None


@dataclass
class Run:
    """Everything of one process of a run, ready for ``trainer.fit(module, datamodule=data)``."""

    network: Network
    dataset: Dataset
    data: DataModule
    module: TorchloomModule
    trainer: pl.Trainer


def assemble(config: DictConfig, folder: Path, *, continued: Record | None = None) -> Run:
    """Assemble a run.

    Args:
        config: Composed and checked.
        folder: The run's folder, which exists.
        continued: What the checkpoint says that the run goes on from; the dataset must turn out to give its spec.

    Raises:
        ConfigError: Components that do not fit together; all problems at once.
        DataError: Data that is missing or unusable.
        UnsupportedError: A component refuses this hardware or combination.
    """
    trainer_config = trainer_settings(config)
    parallel: Parallel = build("parallel", config.parallel)
    problems = parallel.check(trainer_config)
    if problems:
        raise ConfigError(problems)
    seed_everything(config.seed)
    dataset, tokenizer = make_dataset(config)
    take_tokenizer(config, tokenizer, continued)
    dataset.prepare()
    network = make_network(config, dataset.spec, tokenizer, None if continued is None else restored_spec(continued))
    data = make_data(config, network, dataset, parallel, trainer_config)
    module = make_module(config, network, data, trainer_config)
    trainer = make_trainer(config, folder, network.objective, parallel, trainer_config, data)
    if network.kernel is not None:
        network.kernel.check(trainer.strategy.root_device)
    return Run(network, dataset, data, module, trainer)


def build(kind: str, node: DictConfig, *arguments: Any, **keywords: Any) -> Any:
    """Build a component from its config node, by its registered name."""
    registry = current()
    component = registry.get(kind, node.name)
    return registry.load(component)(to_config(component, node), *arguments, **keywords)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, before anything is initialised."""
    random.seed(seed)
    np.random.seed(mix(seed) & 0xFFFFFFFF)
    torch.manual_seed(seed)


def trainer_settings(config: DictConfig) -> TrainerConfig:
    """Return the Trainer's settings as a typed record."""
    settings: TrainerConfig = to_config(current().get("trainer", config.trainer.name), config.trainer)
    if settings.max_epochs is None and settings.max_steps is None:
        settings.max_epochs = DEFAULT_EPOCHS
    return settings


def make_dataset(config: DictConfig) -> tuple[Dataset, Tokenizer | None]:
    """Build the dataset with its tokenizer; reads no data yet."""
    if config.get("tokenizer") is None:
        return build("dataset", config.dataset), None
    tokenizer: Tokenizer = build("tokenizer", config.tokenizer)
    return build("dataset", config.dataset, tokenizer), tokenizer


def restored_spec(record: Record) -> Spec:
    """Return the spec that a checkpoint was trained on.

    Raises:
        CheckpointError: No loaded plugin defines specs of that name.
    """
    # The dataset's module may define the spec.
    current().load(current().get("dataset", record.config["dataset"]["name"]))
    return spec_from_dict(record.spec)


def make_network(config: DictConfig, spec: Spec, tokenizer: Tokenizer | None, expected: Spec | None = None) -> Network:
    """Build architecture, objective and head for data of a spec.

    Raises:
        ConfigError: They do not fit each other; all problems at once.
    """
    if expected is not None and spec != expected:
        raise ConfigError(
            [
                Problem(
                    f"dataset={config.dataset.name}",
                    f"gives {spec}, but the checkpoint was trained on {expected}",
                    "give the data that the run was started with",
                )
            ]
        )
    _check_specs(config, spec)
    kernel: Attention | None = build("attention", config.attention) if config.get("attention") is not None else None
    architecture: Architecture = build("architecture", config.architecture, spec, kernel)
    if tokenizer is not None:
        architecture.take_tokenizer(tokenizer)
    settings = settings_of(architecture)
    start = None
    if settings.init_from is not None and not is_restoring():
        start = take_weights(architecture, settings.init_from, settings.init_blocks)
    prepare_start(architecture, settings)
    objective: Objective = build("objective", config.objective, spec)
    objective.tokenizer = tokenizer
    problems = _misfits(config, architecture, objective, kernel)
    if problems:
        raise ConfigError(problems)
    if config.trainer.activation_checkpointing:
        for block in architecture.blocks():
            _recompute_activations(block)
    model = Model(architecture, objective.head(architecture), objective.protocol)
    if start is not None and objective.inherits:
        take_head(model, objective, start)
    return Network(config, spec, tokenizer, kernel, architecture, objective, model, start)


def _check_specs(config: DictConfig, spec: Spec) -> None:
    registry = current()
    problems = []
    for kind in ("architecture", "objective"):
        chosen = registry.get(kind, config[kind].name)
        if not issubclass(type(spec), registry.load(chosen).accepts):
            fitting = _names(registry, kind, lambda cls: issubclass(type(spec), cls.accepts))
            problems.append(
                Problem(
                    f"{kind}={chosen.name}",
                    f"takes {_wanted(registry.load(chosen).accepts)}, but dataset {config.dataset.name!r} gives {spec.name}",
                    f"choose one of {kind}={','.join(fitting)}, or another dataset",
                )
            )
    if problems:
        raise ConfigError(problems)


def _wanted(accepts: tuple[type[Spec], ...]) -> str:
    return " or ".join(cls.name for cls in accepts) or "nothing"


def _names(registry: Registry, kind: str, fits: Callable[[Any], bool]) -> list[str]:
    """Return the names of components whose class fits; those that cannot be imported are left out."""
    found = []
    for name in registry.names(kind):
        try:
            if fits(registry.load(registry.get(kind, name))):
                found.append(name)
        except Exception:
            continue
    return found


def _misfits(
    config: DictConfig, architecture: Architecture, objective: Objective, kernel: Attention | None
) -> list[Problem]:
    registry = current()
    problems = []
    place = f"objective={config.objective.name}"
    if objective.protocol not in architecture.protocols:
        fitting = _names(registry, "architecture", lambda cls: objective.protocol in cls.protocols)
        problems.append(
            Problem(
                place,
                f"needs the protocol {objective.protocol!r}, which architecture {config.architecture.name!r} does not "
                f"follow (it has {', '.join(sorted(architecture.protocols)) or 'none'})",
                f"choose one of architecture={','.join(fitting)}",
            )
        )
    if objective.needs_causal and not architecture.causal:
        problems.append(
            Problem(
                place,
                f"predicts what comes next, but architecture {config.architecture.name!r} looks both ways",
                "choose a causal architecture such as architecture=decoder",
            )
        )
    if kernel is not None and kernel.requires:
        missing = kernel.requires - getattr(architecture, "offers", frozenset())
        if missing:
            problems.append(
                Problem(
                    f"attention={config.attention.name}",
                    f"needs {', '.join(sorted(missing))}, which architecture {config.architecture.name!r} does not offer",
                    "choose another kernel, such as attention=sdpa",
                )
            )
    settings = config.trainer
    if settings.activation_checkpointing and not architecture.blocks():
        problems.append(
            Problem(
                "trainer.activation_checkpointing",
                f"architecture {config.architecture.name!r} has no repeated blocks to recompute",
                "leave it out",
            )
        )
    if objective.manual:
        for key, off in (("accumulate_grad_batches", 1), ("gradient_clip", None)):
            if settings[key] != off:
                problems.append(
                    Problem(
                        f"trainer.{key}", f"objective {config.objective.name!r} takes its own steps", "leave it out"
                    )
                )
    # An objective may look into the parts of an architecture only where its protocol is there.
    return problems or list(objective.check(architecture))


def _recompute_activations(block: nn.Module) -> None:
    # The bound method is replaced, not the module wrapped, so that checkpoint keys stay the same.
    block.forward = partial(recompute, block.forward, use_reentrant=False)


def make_data(
    config: DictConfig, network: Network, dataset: Dataset, parallel: Parallel, settings: TrainerConfig
) -> DataModule:
    """Wrap the dataset for the processes of this run.

    Raises:
        ConfigError: The batch cannot be divided among them.
    """
    world = parallel.data_parallel(settings)
    if dataset.config.batch_size % world:
        raise ConfigError(
            [
                Problem(
                    "dataset.batch_size",
                    f"{dataset.config.batch_size} examples cannot be divided among {world} processes",
                    f"choose a multiple of {world}",
                )
            ]
        )
    stage = network.architecture.frozen_stage()
    return DataModule(
        dataset,
        settings,
        seed=config.seed,
        world=world,
        rank=int(os.environ.get("RANK", "0")) % world,
        frozen_stage=stage,
        examples=network.objective.examples,
    )


def make_module(config: DictConfig, network: Network, data: DataModule, settings: TrainerConfig) -> TorchloomModule:
    """Put network, optimizers and schedule into the LightningModule."""
    objective, model = network.objective, network.model
    optimizers: dict[str, tuple[Optimizer, list[nn.Parameter]]] = {}
    if isinstance(objective, ManualObjective):
        for role in objective.roles:
            node = cast(DictConfig, config.optimizer.copy())
            node.update(objective.optimizer_overrides(role))
            optimizers[role] = (build("optimizer", node), list(objective.parameters(model, role)))
    else:
        optimizers["model"] = (build("optimizer", config.optimizer), list(model.parameters()))
    scheduler: Scheduler = build("scheduler", config.scheduler)
    compile_model = decide_compile(config, settings, len(data.loader("train")), manual=objective.manual)
    return TorchloomModule(
        model,
        objective,
        make_record(config, network, compile_model),
        network.spec,
        network.tokenizer,
        optimizers,
        scheduler,
        seed=config.seed,
        compile=compile_model,
        log_every_n_steps=settings.log_every_n_steps,
        accumulate=settings.accumulate_grad_batches,
        nominal_weight=float(data.dataset.config.batch_size),
    )


def decide_compile(config: DictConfig, settings: TrainerConfig, batches: int, *, manual: bool) -> bool:
    """Decide whether to compile; the choice never depends on a clock, so that a continued run takes the same one."""
    choice = str(config.compile).lower()
    if manual:
        # WGAN-GP differentiates a gradient, and torch.compile has no double backward.
        if choice == "true":
            warnings.warn(
                f"objective {config.objective.name!r} takes its own steps and runs uncompiled",
                RuntimeWarning,
                stacklevel=2,
            )
        return False
    if choice != "auto":
        return choice == "true"
    if settings.accelerator == "gpu" or (settings.accelerator == "auto" and torch.cuda.is_available()):
        return True
    return planned_steps(settings, batches) >= _STEPS_WORTH_COMPILING_ON_CPU


def planned_steps(settings: TrainerConfig, batches: int) -> int:
    """Return the optimiser steps of a whole run, given the batches of an epoch."""
    an_epoch = -(-batches // settings.accumulate_grad_batches)
    limits = [settings.max_steps] if settings.max_steps is not None else []
    if settings.max_epochs is not None:
        limits.append(settings.max_epochs * an_epoch)
    return min(limits)


def make_record(config: DictConfig, network: Network, compiled: bool) -> Record:
    """Write down what a checkpoint says of the model."""
    return Record(
        version=torchloom.__version__,
        config={**to_plain(config), "objective": {**to_plain(config.objective), **to_plain(network.objective.config)}},
        spec=network.spec.to_dict(),
        tokenizer=network.tokenizer.state() if network.tokenizer is not None else None,
        components=describe_components(config),
        compile=compiled,
    )


def describe_components(config: DictConfig) -> dict[str, Any]:
    """Return name, distribution and version of each chosen component, by group (a list where several may be chosen)."""
    registry = current()

    def entry(kind: Kind, node: Any) -> dict[str, str]:
        supplier = registry.supplier(registry.get(kind.name, node.name))
        return {"name": node.name, "distribution": supplier.distribution, "version": supplier.version}

    described: dict[str, Any] = {}
    for kind in registry.kinds.values():
        node = config.get(kind.group) if kind.configurable else None
        if node is not None:
            many = [entry(kind, one) for one in node.values()] if kind.many else None
            described[kind.group] = many if many is not None else entry(kind, node)
    return described


def make_trainer(
    config: DictConfig,
    folder: Path,
    objective: Objective,
    parallel: Parallel,
    settings: TrainerConfig,
    data: DataModule,
) -> pl.Trainer:
    """Make the Lightning Trainer, with everything switched off that costs time each step and is not asked for."""
    from torchloom.progress import Progress

    built = [
        cast(Callback, build("callback", node)).build(folder, objective.monitor) for node in _chosen(config.callbacks)
    ]
    callbacks: list[pl.Callback] = [Progress(settings.progress), *built]
    loggers = [cast(Logger, build("logger", node)).build(folder) for node in _chosen(config.logger)]
    arguments: dict[str, Any] = {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.num_nodes,
        "strategy": parallel.strategy(settings),
        "precision": settings.precision,
        # Epochs are handed on as steps: a Trainer limited by epochs does not go on exactly from within one.
        "max_epochs": -1,
        "max_steps": planned_steps(settings, len(data.loader("train"))),
        "check_val_every_n_epoch": settings.val_every_n_epochs,
        "limit_val_batches": 1.0 if len(data.loader("val")) else 0,
        "log_every_n_steps": settings.log_every_n_steps,
        "deterministic": settings.deterministic,
        "logger": loggers or False,
        "callbacks": callbacks,
        "default_root_dir": folder,
        "enable_checkpointing": any(isinstance(one, pl.callbacks.Checkpoint) for one in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "profiler": _NoProfiler(),
    }
    if not objective.manual:
        arguments["accumulate_grad_batches"] = settings.accumulate_grad_batches
        arguments["gradient_clip_val"] = settings.gradient_clip
    if settings.val_every_n_steps is not None:
        arguments["val_check_interval"] = settings.val_every_n_steps * settings.accumulate_grad_batches
        arguments["check_val_every_n_epoch"] = None
    plugins.manager().configure_trainer(arguments, config)
    return pl.Trainer(**arguments)


class _NoProfiler(PassThroughProfiler):
    """Profiles nothing, and takes no time for it: Lightning's own makes a generator for each of 35 questions a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing, always the same."""
        return self._nothing


def _chosen(node: Mapping[str, Any] | None) -> list[Any]:
    return list(node.values()) if node else []
