"""Distillation: a student learns what a trained teacher answers, beside the true answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchmetrics import Metric

from torchloom import assembly
from torchloom.contracts.architecture import Architecture
from torchloom.contracts.dataset import Batch, EpochKey, Split
from torchloom.contracts.objective import LossSum, Objective
from torchloom.contracts.spec import ImageSpec, Seq2SeqSpec, SeriesSpec, Spec, TokenSpec
from torchloom.contracts.tokenizer import Tokenizer
from torchloom.errors import CheckpointError, ConfigError, Problem
from torchloom.inference import Loaded, load
from torchloom.schema import to_plain
from torchloom_objectives.classification import Classification
from torchloom_objectives.clm import CLM
from torchloom_objectives.configs import DistillationConfig
from torchloom_objectives.masking import IGNORED
from torchloom_objectives.mlm import MLM
from torchloom_objectives.seq2seq import Seq2Seq

TAUGHT = Classification | CLM | MLM | Seq2Seq
"""Objectives whose outputs are logits, one row for each of their targets."""
_LENGTHS = ("context_length", "source_length", "target_length")
_HEAD = "head."


class Answer(NamedTuple):
    """What a student gives in training.

    Attributes:
        logits: As the task's own head gives them, ``(batch, ..., classes)``.
        states: Outputs of the blocks that are matched, as wide as the teacher's, each ``(batch, seq, width)``.
    """

    logits: Tensor
    states: list[Tensor]


class Distillation(Objective):
    """The teacher's own objective, learnt from its answers and from the true ones.

    With logits ``z`` of the student, ``v`` of the teacher and temperature ``T``, the loss of one item is::

        (1 - soft_weight) * hard + soft_weight * T² * KL(softmax(v / T) || softmax(z / T)) + hidden_weight * distance

    where ``hard`` is the objective's own loss; the square keeps the gradient's size whatever the temperature. ``distance``
    is the squared difference between outputs of the student's blocks and the teacher's, a mean over the width, the real
    positions of the example and the blocks matched.

    In evaluation the student is measured as the teacher was: by the objective alone. The teacher is no part of the model;
    what it was trained on is written into ``config.task``, and a trained student is loaded as a model of that.

    Source: Hinton et al., 2015, arXiv:1503.02531, section 2; Jiao et al., 2020 (TinyBERT), arXiv:1909.10351, section 3.1.
    """

    accepts: ClassVar[tuple[type[Spec], ...]] = (ImageSpec, TokenSpec, SeriesSpec, Seq2SeqSpec)
    config: DistillationConfig

    def __init__(self, config: DistillationConfig, spec: Spec) -> None:
        """Load the teacher and take over its objective.

        Raises:
            CheckpointError: There is no such teacher, or it is no checkpoint of torchloom's.
            ConfigError: It teaches nothing that can be learnt so, or on other data; all problems at once.
        """
        self.teacher = load_teacher(config.teacher)
        saved = to_plain(self.teacher.config.objective)
        super().__init__(replace(config, task={**saved, **config.task}), spec)
        problems = [*_unfit_task(self.config.task, saved, self.teacher, spec), *_unlike(self.teacher, spec)]
        if problems:
            raise ConfigError(problems)
        self.task = cast("TAUGHT", assembly.build("objective", OmegaConf.create(self.config.task), spec))
        self.protocol, self.needs_causal, self.monitor = self.task.protocol, self.task.needs_causal, self.task.monitor
        self._student: Architecture | None = None
        self._pairs: list[tuple[int, int]] = []
        self._kept: dict[int, Tensor] = {}

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The data's tokenizer, which the task knows too."""
        return self.task.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | None) -> None:
        self.task.tokenizer = tokenizer

    @classmethod
    def released(cls, settings: dict[str, Any], weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return a trained student as a model of its task, which knows of no teacher."""
        inside, projection = f"{_HEAD}task.", f"{_HEAD}projection."
        return settings["task"], {
            key.replace(inside, _HEAD, 1): value for key, value in weights.items() if not key.startswith(projection)
        }

    def check(self, architecture: Architecture) -> Sequence[Problem]:
        """Refuse what the task refuses, another vocabulary than the teacher's, and blocks that cannot be matched."""
        problems = list(self.task.check(architecture))
        theirs = self.teacher.tokenizer
        if self.tokenizer is not None and theirs is not None and self.tokenizer.state() != theirs.state():
            message = f"{self.config.teacher} was trained with another vocabulary than the student's"
            problems.append(Problem("objective.teacher", message, "choose a teacher and a student of one vocabulary"))
        if self.config.hidden_weight:
            problems += self._match(architecture)
        return problems

    def head(self, architecture: Architecture) -> nn.Module:
        """Return the task's head, which in training gives the states of the matched blocks too."""
        self._student = architecture
        head, width = self.task.head(architecture), self.teacher.model.architecture.width
        projection = None
        if self._pairs and architecture.width != width:
            projection = nn.Linear(architecture.width, width, bias=False)
        return StudentHead(head, architecture, [own for own, _ in self._pairs], projection)

    def examples(self, split: Split) -> Split:
        """Return what the task makes of a split, which the teacher must see as it is, not as a frozen stage leaves it."""
        return _Seen(self.task.examples(split))

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the task's inputs."""
        return self.task.inputs(batch)

    def loss(self, outputs: Answer | Tensor, batch: Batch) -> LossSum:
        """Return the loss of a batch: of the student's answer in training, in evaluation the task's own.

        Args:
            outputs: What the head gave.
            batch: The batch; the teacher reads it too.
        """
        if not isinstance(outputs, Answer):
            return self.task.loss(outputs, batch)
        config = self.config
        hard = self.task.loss(outputs.logits, batch)
        taught, states = self._teach(batch)
        counted = self.task.targets(batch) != IGNORED
        own, theirs = (one[counted] if one.ndim > counted.ndim else one for one in (outputs.logits, taught))
        soft = soft_loss(own, theirs, config.temperature)
        total = (1 - config.soft_weight) * hard.total + config.soft_weight * soft
        metrics = {**hard.metrics, "hard_loss": hard.total, "soft_loss": soft}
        if states:
            # An example's distance counts as often as its targets do, so that sums over parts of a batch add up.
            times = counted.flatten(1).sum(1) if counted.ndim > 1 else counted
            distance = (times * distances(outputs.states, states, batch.get("length"))).sum()
            total, metrics["hidden_loss"] = total + config.hidden_weight * distance, distance
        return LossSum(total, hard.weight, metrics)

    def metrics(self) -> dict[str, Metric]:
        """Return the task's metrics."""
        return self.task.metrics()

    def update_metrics(self, metrics: dict[str, Metric], outputs: Tensor, batch: Batch) -> None:
        """Add one batch to the task's metrics."""
        self.task.update_metrics(metrics, outputs, batch)

    def predictions(self, outputs: Tensor, batch: Batch, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Return the task's records."""
        return self.task.predictions(outputs, batch, tokenizer)

    def generate(self, model: Any, request: Any, tokenizer: Tokenizer | None = None) -> Any:
        """Make the task's samples."""
        return self.task.generate(model, request, tokenizer)

    @torch.no_grad()
    def _teach(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the teacher's logits, and the states of its matched blocks."""
        assert self._student is not None
        own, theirs = (next(model.parameters()) for model in (self._student, self.teacher.model))
        if (own.device, own.dtype) != (theirs.device, theirs.dtype):
            self.teacher.model.to(own)
        logits: Tensor = self.teacher.model(**self.task.inputs(batch))
        states = [self._kept[other] for _, other in self._pairs]
        self._kept.clear()
        return logits, states

    def _match(self, architecture: Architecture) -> list[Problem]:
        """Choose the teacher's block for each of the student's, or return what stands in the way."""
        if self.protocol == "seq2seq":
            message = "matches the states of one sequence, and the teacher reads one and writes another"
            return [Problem("objective.hidden_weight", message, "leave it out")]
        blocks = self.teacher.model.architecture.blocks()
        own, theirs = len(architecture.blocks()), len(blocks)
        if not own or not theirs:
            message = f"matches blocks, of which the student has {own} and the teacher {theirs}"
            return [Problem("objective.hidden_weight", message, "leave it out")]
        given = self.config.layers
        matched = given or [-(-theirs * number // own) for number in range(1, own + 1)]
        if len(matched) != own:
            message = f"{given} names blocks of the teacher for {len(given)} of the student's, which has {own}"
            return [Problem("objective.layers", message, "name one for each; 0 matches none")]
        if max(matched) > theirs:
            message = f"{given} names block {max(given)} of the teacher, which has {theirs}"
            return [Problem("objective.layers", message, f"choose from 1 to {theirs}; 0 matches none")]
        self._pairs = [(index, number - 1) for index, number in enumerate(matched) if number]
        for who, network, chosen in (
            ("the student", architecture, [index for index, _ in self._pairs]),
            ("the teacher", self.teacher.model.architecture, [other for _, other in self._pairs]),
        ):
            heard = self._heard(network, chosen)
            deaf = next((index for index in chosen if index not in heard), None)
            if deaf is not None:
                kind = type(network).__name__
                message = f"matches vectors of positions, and block {deaf + 1} of {who}, a {kind}, gives none"
                return [Problem("objective.hidden_weight", message, "leave it out, or choose another architecture")]
        for other in {other for _, other in self._pairs}:
            blocks[other].register_forward_hook(_Keeping(self._kept, other))
        return []

    @torch.no_grad()
    def _heard(self, network: Architecture, blocks: Sequence[int]) -> set[int]:
        """Return which of a network's blocks give a vector a position, found out on an example of nothing."""
        kept: dict[int, Tensor] = {}
        hooks = [network.blocks()[index].register_forward_hook(_Keeping(kept, index)) for index in blocks]
        training = network.training
        try:
            getattr(network.eval(), self.protocol)(_nothing(self.spec))
        finally:
            network.train(training)
            for hook in hooks:
                hook.remove()
        return set(kept)


def _nothing(spec: Spec) -> Tensor:
    """Return one example of zeros."""
    if isinstance(spec, ImageSpec):
        return torch.zeros(1, spec.channels, spec.height, spec.width)
    if isinstance(spec, SeriesSpec):
        return torch.zeros(1, spec.context_length, spec.channels)
    return torch.zeros(1, cast(TokenSpec, spec).context_length, dtype=torch.int64)


class StudentHead(nn.Module):
    """A task's head that in training gives an `Answer`, in evaluation the task's logits.

    Args:
        task: The task's head.
        architecture: The student, whose blocks are listened to.
        matched: Which of its blocks, from 0.
        projection: From the student's width to the teacher's; None where they are equal.
    """

    def __init__(
        self, task: nn.Module | None, architecture: Architecture, matched: Sequence[int], projection: nn.Linear | None
    ) -> None:
        super().__init__()
        self.task = nn.Identity() if task is None else task
        self.projection = projection
        self._matched = list(matched)
        self._kept: dict[int, Tensor] = {}
        blocks = architecture.blocks()
        for index in self._matched:
            blocks[index].register_forward_hook(_Keeping(self._kept, index))

    def forward(self, vectors: Tensor, **read: Any) -> Answer | Tensor:
        """Map the architecture's vectors to logits; what to read of them is the task's head's to know."""
        logits: Tensor = self.task(vectors, **read)
        if not self.training:
            return logits
        states = [self._kept[index] for index in self._matched]
        return Answer(logits, states if self.projection is None else [self.projection(state) for state in states])


class _Keeping:
    """A hook that keeps the vectors of positions that a block gave last, if it gave such; beside them may be a state."""

    def __init__(self, kept: dict[int, Tensor], index: int) -> None:
        self.kept, self.index = kept, index

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        vectors = output[0] if isinstance(output, tuple) else output
        if isinstance(vectors, Tensor) and vectors.ndim == 3:
            self.kept[self.index] = vectors


class _Seen(Split):
    """A split whose examples are never replaced by what a frozen stage made of them."""

    augmented = True

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor, key: EpochKey | None = None) -> Batch:
        """Return the split's batch."""
        return self.split.batch(indices, key)


def soft_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened answers, summed over items.

    Args:
        logits: The student's, ``(items, classes)``.
        taught: The teacher's, likewise.
        temperature: Divides both.

    Returns:
        ``temperature² * sum of KL(teacher || student)``, a scalar of at least single precision.
    """
    precise = torch.promote_types(logits.dtype, torch.float32)
    own, theirs = ((one.to(precise) / temperature).log_softmax(-1) for one in (logits, taught))
    return F.kl_div(own, theirs, reduction="sum", log_target=True) * temperature**2


def distances(own: Sequence[Tensor], theirs: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
    """Return how far states lie apart: squared differences, a mean over width, real positions and blocks.

    Args:
        own: The student's, each ``(batch, seq, width)``.
        theirs: The teacher's, likewise.
        lengths: Real positions of each row, ``(batch,)``; all of them if None.

    Returns:
        ``(batch,)``.
    """
    differences = [
        F.mse_loss(one, other.to(one), reduction="none").mean(-1) for one, other in zip(own, theirs, strict=True)
    ]
    mean = torch.stack(differences).mean(0)
    if lengths is None:
        return mean.mean(1)
    real = torch.arange(mean.shape[1], device=mean.device) < lengths[:, None]
    return mean.masked_fill(~real, 0.0).sum(1) / real.sum(1)


def load_teacher(source: str | None) -> Loaded:
    """Return a trained model that changes no more.

    Raises:
        CheckpointError: There is none, or of a layout that is not torchloom's.
        ConfigError: None is named.
    """
    if source is None:
        message = "none is named, and there is nothing to learn from"
        raise ConfigError(
            [Problem("objective.teacher", message, "name a run's folder or a checkpoint: objective.teacher=RUN")]
        )
    # What building it draws must not change what the student begins with.
    with torch.random.fork_rng(devices=[]):
        try:
            teacher = load(source, device="cpu")
        except CheckpointError as error:
            raise CheckpointError(
                f"objective.teacher={source}: {error}\n    a published checkpoint is made a run of by torchloom import"
            ) from error
    teacher.model.requires_grad_(False)
    return teacher


def _unfit_task(task: dict[str, Any], saved: dict[str, Any], teacher: Loaded, spec: Spec) -> list[Problem]:
    """Return why the teacher's objective cannot be the student's."""
    if not isinstance(teacher.objective, TAUGHT):
        message = (
            f"the teacher was trained on objective={saved['name']}, whose answers are not logits of classes or tokens"
        )
        mend = "choose a teacher of classification, sentiment, entailment, clm, mlm or seq2seq"
        return [Problem("objective.teacher", message, mend)]
    if task["name"] != saved["name"]:
        message = f"{task['name']} is not what the teacher was trained on"
        return [Problem("objective.task.name", message, f"leave it out; it is {saved['name']}")]
    if not isinstance(spec, teacher.objective.accepts):
        wanted = " or ".join(one.name for one in teacher.objective.accepts)
        message = (
            f"the teacher was trained on objective={saved['name']}, which takes {wanted}, but the data is {spec.name}"
        )
        return [Problem("objective.teacher", message, "choose another dataset, or another teacher")]
    return []


def _unlike(teacher: Loaded, spec: Spec) -> list[Problem]:
    """Return in what the student's data is not what the teacher can read or name."""
    mine, theirs = ({one.name: getattr(each, one.name) for one in fields(each)} for each in (spec, teacher.spec))
    problems = []
    for name in mine.keys() & theirs.keys():
        own, other = mine[name], theirs[name]
        mend = "choose a teacher that was trained on such data"
        if own == other or (name in _LENGTHS and own < other):
            continue
        if name == "classes":
            message = f"the teacher tells apart {_listed(other)}, but the data has {_listed(own)}"
        elif name in _LENGTHS:
            message = f"the teacher was trained on dataset.{name}={other}, and the student's is longer: {own}"
            mend = f"set dataset.{name} to at most {other}, or choose a teacher that was trained on longer ones"
        else:
            message = f"the teacher was trained with {name}={other}, but the student's data has {own}"
        problems.append(Problem("objective.teacher", message, mend))
    return sorted(problems, key=str)


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes) or "no classes by name"
