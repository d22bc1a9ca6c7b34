"""Trained models from checkpoints: loading, evaluating, predicting, generating."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from torchloom import assembly, checkpoint, continuing, registry
from torchloom.configs import DatasetConfig
from torchloom.contracts.architecture import restoring
from torchloom.contracts.dataset import Dataset, Split, SplitName
from torchloom.contracts.objective import GenerateRequest, Model, Objective, Samples
from torchloom.contracts.spec import Spec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.data import Loader
from torchloom.errors import CheckpointError, ConfigError, DataError, Problem
from torchloom.module import Meter
from torchloom.schema import to_plain

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass
class Loaded:
    """A trained model with everything needed to use it.

    Attributes:
        model: Architecture and head, in evaluation mode.
        objective: What it was trained on.
        spec: What its inputs look like.
        tokenizer: Text to ids and back, for models of text.
        config: The resolved config it was trained with, overrides applied; a distilled student's objective is its task.
        step: Optimiser steps it was trained for.
    """

    model: Model
    objective: Objective
    spec: Spec
    tokenizer: Tokenizer | None
    config: DictConfig
    step: int

    def generate(self, prompt: str | Sequence[str] = (), **settings: Any) -> Samples:
        """Make samples.

        Args:
            prompt: Beginning of the text, or several.
            **settings: Fields of `torchloom.contracts.objective.GenerateRequest`; ``seed`` makes its generator.

        Raises:
            UnsupportedError: The objective generates nothing.
        """
        seed = settings.pop("seed", None)
        if seed is not None:
            settings["generator"] = torch.Generator().manual_seed(seed)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        with torch.no_grad():
            return self.objective.generate(self.model, GenerateRequest(prompts=prompts, **settings), self.tokenizer)

    def evaluate(self, split: SplitName = "test") -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the model on a split of its dataset.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Scalars by name such as ``test/accuracy``, and tables (a confusion matrix) likewise.

        Raises:
            DataError: The data is missing, or the split empty.
        """
        meter = Meter()
        metrics = {name: metric.to(self.device) for name, metric in self.objective.metrics().items()}
        with torch.no_grad():
            for batch in self.batches(split):
                self._measure(batch, meter, metrics)
        values = meter.means(split, reduce=False)
        tables = {}
        for name, metric in metrics.items():
            result = metric.compute()
            if result.ndim == 0:
                values[f"{split}/{name}"] = float(result)
            else:
                tables[f"{split}/{name}"] = result.tolist()
        return values, tables

    def batches(self, split: SplitName) -> Iterator[dict[str, torch.Tensor]]:
        """Yield a split's examples as the objective makes them, in order, on the model's device.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Raises:
            DataError: The data is missing, or the split empty.
        """
        return self._batches(self.objective.examples(self._dataset().split(split)), split)

    def predict(self, inputs: Sequence[str] | None = None, split: SplitName = "test") -> list[dict[str, Any]]:
        """Return one record an example.

        Args:
            inputs: A person's own files or texts, as the dataset reads them; a split of the dataset unless given.
            split: Which split.

        Raises:
            DataError: The data is missing, or an input cannot be read.
            UnsupportedError: The dataset or the objective cannot do it.
        """
        dataset = self._dataset(prepare=inputs is None)
        source = self.objective.examples(dataset.split(split) if inputs is None else dataset.read(inputs))
        records: list[dict[str, Any]] = []
        with torch.no_grad():
            for batch in self._batches(source, split):
                outputs = self.model(**self.objective.inputs(batch))
                records += self.objective.predictions(outputs, batch, self.tokenizer)
        return records

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    def _measure(self, batch: dict[str, torch.Tensor], meter: Meter, metrics: dict[str, Metric]) -> None:
        from torchloom.contracts.objective import ManualObjective

        if isinstance(self.objective, ManualObjective):
            meter.add_loss(self.objective.evaluate(self.model, batch))
            return
        outputs = self.model(**self.objective.inputs(batch))
        meter.add_loss(self.objective.loss(outputs, batch))
        self.objective.update_metrics(metrics, outputs, batch)

    def _dataset(self, *, prepare: bool = True) -> Dataset:
        with_tokenizer = () if self.tokenizer is None else (self.tokenizer,)
        dataset: Dataset = assembly.build("dataset", self.config.dataset, *with_tokenizer)
        if prepare:
            dataset.prepare()
            if dataset.spec != self.spec:
                given, trained = dataset.spec.unlike(self.spec)
                raise DataError(
                    f"dataset={self.config.dataset.name}: gives {given}, but the model was trained on {trained}; give data "
                    "like that, and leave out what changes it"
                )
        return dataset

    def _batches(self, split: Split, name: str) -> Iterator[dict[str, torch.Tensor]]:
        if not len(split):
            raise DataError(f"the {name} split of dataset={self.config.dataset.name} is empty; choose another split")
        config: DatasetConfig = self.config.dataset
        loader = Loader(
            split, config.eval_batch_size or config.batch_size, training=False, num_workers=config.num_workers
        )
        for batch in loader:
            yield {key: value.to(self.device) for key, value in batch.items()}


def load(path: str | Path, overrides: Sequence[str] = (), *, device: str | None = None) -> Loaded:
    """Rebuild a trained model from a checkpoint alone: neither its data nor its run folder is needed.

    Args:
        path: A checkpoint file, or a run folder, whose best checkpoint is taken, else the newest whole one.
        overrides: Changes to its config in Hydra's grammar, such as ``dataset.path=...`` or ``attention=math``.
        device: Where to put it; a GPU if there is one, unless given.

    Raises:
        CheckpointError: Missing, cut short, or of another architecture than its config says.
        ConfigError: An override that does not fit, or one of the tokenizer, which the checkpoint brings.
    """
    file = checkpoint.best(path)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    content = checkpoint.read(file, device=target)
    record = checkpoint.record_of(content)
    config = continuing.continue_config(record.config, list(overrides))
    changed = continuing.changed_keys(record.config, config) if overrides and record.tokenizer is not None else []
    if any(key.startswith("tokenizer.") for key in changed):
        message = f"the checkpoint brings its own, {record.config['tokenizer']['name']}, and knows no other"
        raise ConfigError([Problem("tokenizer", message, "leave out what changes it")])
    spec = assembly.restored_spec(record)
    tokenizer = None
    if config.get("tokenizer") is not None and record.tokenizer is not None:
        made: Tokenizer = assembly.build("tokenizer", config.tokenizer)
        made.load_state(record.tokenizer)
        tokenizer = made
    weights = {
        key.removeprefix("model."): value for key, value in content["state_dict"].items() if key.startswith("model.")
    }
    trained = registry.current().get("objective", config.objective.name)
    settings, weights = registry.current().load(trained).released(to_plain(config.objective), weights)
    config.objective = settings
    with restoring():
        network = assembly.make_network(config, spec, tokenizer)
    try:
        network.model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(_misfit(file, config, network.model, weights)) from error
    return Loaded(
        network.model.to(target).eval(), network.objective, spec, tokenizer, config, int(content["global_step"])
    )


def _misfit(path: Path, config: DictConfig, model: Model, weights: dict[str, torch.Tensor]) -> str:
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    differing = sorted(set(expected) ^ set(found)) + sorted(
        key for key in set(expected) & set(found) if expected[key] != found[key]
    )
    first = differing[0]
    return (
        f"{path}: its weights are not those of architecture={config.architecture.name} as configured; "
        f"{len(differing)} tensors differ, first {first}: "
        f"the architecture has {expected.get(first, 'none')}, the checkpoint {found.get(first, 'none')}\n"
        "    leave out overrides of architecture, or use the checkpoint that belongs to them"
    )
