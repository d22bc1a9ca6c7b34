"""Config dataclasses that the core reads itself, and the bases that plugins extend. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torchloom.options import option


class RootConfig:
    """Base of the keys at the root of a configuration that is composed of components.

    Attributes:
        command: Name of the command that composes it; it has the groups of all kinds of that command.
        primary: Name of the primary YAML config, whose defaults list begins with the registry's own name for these keys.
        required: Groups without which there is nothing to run.
        borrowed: Groups of another command's kinds that it has too, whatever is chosen.
    """

    command: ClassVar[str]
    primary: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    borrowed: ClassVar[tuple[str, ...]] = ()


@dataclass
class RunConfig(RootConfig):
    """Keys at the root of a run's configuration."""

    command = "train"
    primary = "config"
    required = ("dataset", "architecture", "objective", "optimizer", "scheduler", "parallel", "trainer")

    seed: int = option(0, "Seed of initialisation, data order, dropout and sampling.", ge=0)
    compile: Literal["auto", "true", "false"] = option(
        "auto", "torch.compile the model; auto compiles on a GPU, and on a CPU only where a long run repays it."
    )
    ckpt: str | None = option(
        None, "Checkpoint file to continue from; 'last' is the newest whole one of the run folder."
    )


@dataclass
class SweepConfig:
    """Keys under `sweep`, which steer a multirun."""

    resume: str | None = option(None, "Folder of an interrupted sweep to go on with; finished jobs are kept.")
    max_steps: dict[str, int] = option(
        dict, "Optimiser steps of each experiment, where a sweep over them sets budgets.", ge=1
    )


@dataclass
class DatasetConfig:
    """Fields that every dataset has."""

    batch_size: int = option(64, "Examples a training batch over all processes together.", ge=1, unit="examples")
    eval_batch_size: int | None = option(
        None, "Examples a validation or test batch over all processes; batch_size unless given.", ge=1, unit="examples"
    )
    num_workers: int = option(0, "Processes that prepare batches beside training; 0 prepares them in line.", ge=0)


@dataclass
class ArchitectureConfig:
    """Fields of an architecture that may start from a trained one."""

    init_from: str | None = option(
        None,
        "Run folder or checkpoint whose backbone, and tokenizer, this one starts with, whatever its objective was.",
        brings_tokenizer=True,
    )
    init_blocks: list[int] = option(
        list,
        "Blocks of that run, from 1 and in this order, that this one's begin with; each with its own unless given.",
        ge=1,
        source="arXiv:1910.01108, section 3, takes every second",
    )
    freeze: int = option(
        0,
        "Blocks, from the input on, that do not learn, nor does what lies below them; -1 is the whole backbone.",
        ge=-1,
    )
    lora: int = option(
        0,
        "Rank of adapters that learn beside the blocks' linear layers, while all else in the backbone rests; 0 has none. "
        "Needs torchloom[lora].",
        ge=0,
        source="Hu et al., 2021, LoRA, section 4.1",
    )
    lora_alpha: int = option(16, "Scale of what adapters add, divided by their rank.", gt=0)
    lora_dropout: float = option(0.0, "Probability of dropping an adapter's input.", ge=0, lt=1)


@dataclass
class OptimizerConfig:
    """Fields that every optimizer has."""

    lr: float = option(1e-3, "Peak learning rate.", ge=0)
    layer_decay: float = option(
        1.0,
        "Factor on the learning rate from each block to the one below it, and from the first to the embeddings.",
        gt=0,
        le=1,
        source="Howard and Ruder, 2018, ULMFiT, section 3.2",
    )
    weight_decay: float = option(0.0, "Decay of weight matrices; biases, norms and other vectors have none.", ge=0)


@dataclass
class TrainerConfig:
    """How long to train, on what hardware, and what a step does besides."""

    accelerator: Literal["auto", "cpu", "gpu", "tpu", "mps"] = option("auto", "Hardware to run on.")
    devices: int = option(1, "Processes on each machine, one a device.", ge=1)
    num_nodes: int = option(1, "Machines that take part.", ge=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"] = option(
        "32-true", "Floating-point format of the computation (Lightning's names)."
    )
    max_epochs: int | None = option(None, "Passes over the training split; 10 if no limit at all is given.", ge=1)
    max_steps: int | None = option(None, "Optimiser steps; training ends at whichever limit comes first.", ge=1)
    accumulate_grad_batches: int = option(1, "Batches whose gradients make one optimiser step.", ge=1)
    gradient_clip: float | None = option(None, "Largest norm of the whole gradient; none unless given.", gt=0)
    activation_checkpointing: bool = option(
        False, "Recompute each block's activations in the backward pass: less memory, about a third more time."
    )
    val_every_n_epochs: int = option(1, "Epochs between validations.", ge=1)
    val_every_n_steps: int | None = option(None, "Optimiser steps between validations, instead of epochs.", ge=1)
    log_every_n_steps: int = option(50, "Optimiser steps between rows of training metrics.", ge=1)
    limit_train_batches: int | None = option(None, "Batches of each training epoch; all unless given.", ge=1)
    limit_val_batches: int | None = option(None, "Batches of each validation; all unless given.", ge=0)
    limit_test_batches: int | None = option(None, "Batches of the final test; all unless given, 0 leaves it out.", ge=0)
    deterministic: bool = option(False, "On a GPU, use only algorithms that give the same bits; a CPU's always do.")
    progress: Literal["rich", "none"] = option("rich", "Progress bar on the terminal.")


@dataclass
class CheckpointConfig:
    """When checkpoints are written, and how many are kept."""

    every_n_steps: int | None = option(
        None, "Optimiser steps between checkpoints, beside the one after each validation.", ge=1
    )
    keep: int = option(2, "Newest checkpoints kept; with two, one cut short by a crash still leaves another.", ge=1)
    save_best: bool = option(
        True, "Also keep the best one by the objective's metric, of equal ones the newest, as best.ckpt."
    )
