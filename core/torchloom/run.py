"""One training run from a config and a folder: files, processes, resuming, testing, and the summary of how it went."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

import torchloom
from torchloom import checkpoint, continuing, plugins, schema
from torchloom.errors import ConfigError, Interrupted, Problem, TorchloomError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from torchloom.assembly import Run

CONFIG = "config.yaml"
SUMMARY = "summary.json"

MAY_CHANGE = (
    "ckpt",
    "dataset.num_workers",
    "dataset.path",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.limit_test_batches",
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.log_every_n_steps",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.num_nodes",
    "trainer.progress",
    "trainer.val_every_n_epochs",
    "trainer.val_every_n_steps",
    "logger",
    "callbacks",
    "parallel",
    "sweep",
)
"""Keys that a continued run may be given anew: limits, paths, logging, and where it runs."""


class FailedRunError(TorchloomError):
    """A run of several processes failed; the text is the first process's cause."""


def train(config: DictConfig, folder: str | Path) -> dict[str, Any]:
    """Train as a config says, in a folder.

    Args:
        config: From `torchloom.composing`. With ``ckpt`` set, a config that `continued` returned.
        folder: The run's folder; made if missing. Holds ``config.yaml``, ``metrics.csv``, ``checkpoints/``,
            ``samples/`` and ``summary.json`` afterwards.

    Returns:
        The contents of ``summary.json``.

    Raises:
        TorchloomError: A mistake that a person can mend. ``summary.json`` then names it too.
        Interrupted: The person stopped it; the newest checkpoint continues the run.
    """
    place = Path(folder)
    if not config.ckpt and checkpoint.saved(place):
        raise TorchloomError(
            f"{place}: holds the checkpoints of a run already\n"
            f"    go on with it by ckpt=last hydra.run.dir={place}, or choose another folder"
        )
    _open_folder(place, config)
    if config.trainer.devices * config.trainer.num_nodes > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return _train_in_processes(config, place)
    return work(config, place)


def work(config: DictConfig, folder: Path, **known: Any) -> dict[str, Any]:
    """Do one process's part of `train` in a folder that is laid out already; see there for arguments and errors.

    Args:
        config: The run's configuration.
        folder: Its folder.
        **known: Entries of the summary that only the process that composed the configuration knows.
    """
    summary = {**_new_summary(config), **known}
    first = int(os.environ.get("RANK", "0")) == 0
    if config.ckpt:
        # Where the weights of a continued run once came from, only its first part knew.
        with contextlib.suppress(OSError, ValueError):
            summary["start"] = read_summary(folder).get("start")
    if first:
        write_json(folder / SUMMARY, summary)
    try:
        _train_here(config, folder, summary)
    except BaseException as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        summary.update(status="interrupted" if interrupted else "failed", error=describe(error))
        with contextlib.suppress(OSError):
            # Another process's summary is not written over: the first failure is the cause of the others.
            if first or read_summary(folder)["status"] == "running":
                write_json(folder / SUMMARY, summary)
        if first:
            plugins.manager().run_finished(folder, summary)
        raise
    if first:
        write_json(folder / SUMMARY, summary)
        plugins.manager().run_finished(folder, summary)
    return summary


def continued(ckpt: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config of the run that a checkpoint belongs to, with overrides that may change in a continued run.

    Args:
        ckpt: The checkpoint.
        overrides: In Hydra's grammar.

    Raises:
        ConfigError: An override of something that must stay as it was; all of them by name.
        CheckpointError: The checkpoint cannot be used.
    """
    content = checkpoint.read(ckpt)
    saved = checkpoint.record_of(content)
    old = dict(saved.config)
    new = continuing.continue_config(old, list(overrides))
    refused = [
        Problem(
            key,
            f"cannot change in a run that is continued; it was {_value(old, key)!r}",
            "leave it out, or start a new run",
        )
        for key in continuing.changed_keys(old, schema.to_plain(new))
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_CHANGE)
    ]
    if refused:
        raise ConfigError(refused)
    with _writeable(new):
        new.ckpt = str(ckpt)
        new.compile = "true" if saved.compile else "false"
    return new


def new_folder(config: DictConfig) -> Path:
    """Return a folder under ``runs/`` that does not exist yet, named like the command line's."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    name = f"{stamp}_{config.architecture.name}"
    candidates = (Path("runs") / (name if number == 1 else f"{name}_{number}") for number in itertools.count(1))
    return next(path for path in candidates if not path.exists())


def describe(error: BaseException) -> str:
    """Return one screen about an error: a person's mistake as it is, anything else with its type and last frame."""
    if isinstance(error, TorchloomError):
        return str(error)
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "stopped by the person; the newest checkpoint continues the run"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _open_folder(folder: Path, config: DictConfig) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{CONFIG}.partial"
        partial.write_text(OmegaConf.to_yaml(OmegaConf.create(schema.to_plain(config))), encoding="utf-8")
        partial.replace(folder / CONFIG)
    except OSError as error:
        raise TorchloomError(
            f"{folder}: the run's folder cannot be written to: {error.strerror}\n"
            "    choose another with hydra.run.dir=FOLDER"
        ) from error


def _new_summary(config: DictConfig) -> dict[str, Any]:
    import torch

    from torchloom.assembly import describe_components

    components = describe_components(config)
    entries = [entry for value in components.values() for entry in (value if isinstance(value, list) else [value])]
    summary: dict[str, Any] = {
        "status": "running",
        "error": None,
        "name": _name(config),
        "components": components,
        "metrics": {},
        "tables": {},
        "steps": 0,
        "seed": config.seed,
        "versions": {
            "torchloom": torchloom.__version__,
            "torch": torch.__version__,
            "pytorch_lightning": importlib.metadata.version("pytorch-lightning"),
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "plugins": {entry["distribution"]: entry["version"] for entry in entries},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    job = _sweep_job()
    if job is not None:
        summary["job"] = job
    return summary


def _name(config: DictConfig) -> str:
    with contextlib.suppress(Exception):
        from hydra.core.hydra_config import HydraConfig

        if HydraConfig.initialized():
            experiment = HydraConfig.get().runtime.choices.get("experiment")
            if experiment:
                return str(experiment)
    return str(config.architecture.name)


def _sweep_job() -> int | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return int(HydraConfig.get().job.num)
    return None


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what a run's ``summary.json`` says."""
    return dict(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))


def _train_here(config: DictConfig, folder: Path, summary: dict[str, Any]) -> None:
    from torchloom.assembly import assemble
    from torchloom.contracts.architecture import restoring

    content = checkpoint.read(config.ckpt) if config.ckpt else None
    with _quiet():
        if content is None:
            run = assemble(config, folder)
        else:
            with restoring():
                run = assemble(config, folder, continued=checkpoint.record_of(content))
        if run.network.start is not None and run.trainer.is_global_zero:
            print(f"torchloom: architecture.init_from={run.network.start}", file=sys.stderr)
        begun = time.perf_counter()
        try:
            with _stop_behind_step(run.trainer):
                _rewind_loggers(run.trainer, content["global_step"] if content is not None else -1)
                run.trainer.fit(run.module, datamodule=run.data, ckpt_path=config.ckpt, weights_only=True)
        finally:
            _fill_summary(summary, run, time.perf_counter() - begun)
        _test(run)
        _fill_summary(summary, run, time.perf_counter() - begun)
    summary["status"] = "finished"


def _rewind_loggers(trainer: pl.Trainer, step: int) -> None:
    """Drop what was logged behind the checkpoint, which the run logs again; all of it where it begins anew."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            rewind = getattr(logger, "rewind", None)
            if rewind is not None:
                rewind(step)


def _test(run: Run) -> None:
    """Test on the best checkpoint, or on the last state where none was kept."""
    if run.data.limits["test"] == 0 or not len(run.dataset.split("test")):
        return
    best = next((path for one in _callbacks(run.trainer) if (path := getattr(one, "best_path", None))), None)
    if best is not None:
        run.module.load_state_dict(checkpoint.read(best)["state_dict"])
    run.trainer.test(run.module, datamodule=run.data, verbose=False)


def _fill_summary(summary: dict[str, Any], run: Run, seconds: float) -> None:
    from torchloom.contracts.spec import ImageSpec, TokenSpec
    from torchloom.progress import Progress
    from torchloom.starting import Start

    module, trainer, spec = run.module, run.trainer, run.network.spec
    start = dataclasses.asdict(run.network.start) if run.network.start else summary.get("start")
    parameters = list(module.model.parameters())
    training = next(one.seconds for one in _callbacks(trainer) if isinstance(one, Progress))
    rate = module.examples_seen_here * trainer.world_size / training if training else 0.0
    newest = next(iter(checkpoint.saved(Path(trainer.default_root_dir))), None)
    summary.update(
        metrics=dict(module.results),
        tables=dict(module.tables),
        steps=trainer.global_step,
        epochs=trainer.current_epoch,
        seconds=round(seconds, 3),
        throughput={"samples_per_second": round(rate, 1)},
        parameters={
            "total": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        },
        compile=module.compile_model,
        notes=run.network.architecture.notes() | ({"init_from": str(Start(**start))} if start else {}),
        start=start,
        checkpoint=str(newest.relative_to(trainer.default_root_dir)) if newest is not None else None,
    )
    if isinstance(spec, TokenSpec):
        summary["throughput"]["tokens_per_second"] = round(rate * spec.context_length, 1)
    if isinstance(spec, ImageSpec):
        summary["classes"] = list(spec.classes)


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    found: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by its connector
    return found


def _train_in_processes(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Start one worker a device on the saved config, through torch's elastic launcher; children never see Hydra."""
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from torchloom.assembly import build, trainer_settings

    problems = build("parallel", config.parallel).check(trainer_settings(config))
    if problems:
        raise ConfigError(problems)
    write_json(folder / SUMMARY, _new_summary(config))
    if config.trainer.num_nodes > 1:
        raise TorchloomError(
            f"trainer.num_nodes={config.trainer.num_nodes}: the run is prepared in {folder}; start it on every machine with\n"
            f"    torchrun --nnodes={config.trainer.num_nodes} --nproc-per-node={config.trainer.devices} "
            f"--rdzv-backend=c10d --rdzv-endpoint=HOST:PORT -m torchloom.worker {folder}"
        )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config.trainer.devices,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=folder.name or "run",
        max_restarts=0,
        monitor_interval=0.1,
    )
    environment = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // config.trainer.devices)))
    try:
        elastic_launch(launch, sys.executable)("-m", "torchloom.worker", str(folder))
    except ChildFailedError as error:
        raise FailedRunError(_cause_of_failure(folder)) from error
    except SignalException as error:
        raise Interrupted from error
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return read_summary(folder)


def _cause_of_failure(folder: Path) -> str:
    summary = read_summary(folder)
    if summary["status"] == "running":
        summary.update(status="failed", error="a process of the run was killed")
        write_json(folder / SUMMARY, summary)
    return str(summary["error"])


@contextlib.contextmanager
def _stop_behind_step(trainer: pl.Trainer) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM finish the step and write a checkpoint; a second one stops at once.

    Several processes get the signal at different steps, so they stop at once and leave their newest checkpoint.
    """
    import threading

    from torchloom._checkpoint_callback import Checkpointing

    saving = [one for one in _callbacks(trainer) if isinstance(one, Checkpointing)]
    if not saving or trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def ask(signum: int, frame: Any) -> None:
        saving[0].interrupted = True
        # Lightning, told of it first, would end the run without a checkpoint, in the midst of a validation even.
        trainer._signal_connector.received_sigterm = False
        signal.signal(signum, before[signal.Signals(signum)])

    for signum in before:
        signal.signal(signum, ask)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice and greetings out of a person's terminal."""
    import logging
    import warnings

    loggers = [
        logging.getLogger(name)
        for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|lightning)\.")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _writeable(config: DictConfig) -> Iterator[None]:
    was = OmegaConf.is_readonly(config)
    OmegaConf.set_readonly(config, False)
    try:
        yield
    finally:
        OmegaConf.set_readonly(config, was)


def _value(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
