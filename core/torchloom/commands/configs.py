"""Keys of the commands that the core supplies. Torch-free.

A command's configuration follows the same rules as any component's. Beyond that, `torchloom.cli` reads three things
from it: a subclass of `torchloom.configs.RunConfig` composes a whole run; a field named ``overrides`` receives, as raw
text, every override that is not a key of the command; the first field takes a word given without ``key=``. The lines
under ``Example:`` in the docstring are shown by ``--help``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from torchloom.configs import RunConfig
from torchloom.options import option


@dataclass
class TrainConfig(RunConfig):
    """Keys at the root of a run, which groups of components join.

    Example:
        torchloom train experiment=cnn
        torchloom train architecture=lstm dataset=python_docs optimizer.lr=3e-4
        torchloom train -m experiment=lstm architecture=rnn,gru,lstm seed=1,2
        torchloom train ckpt=last trainer.max_epochs=20
        torchloom train sweep.resume=FOLDER
    """


@dataclass
class ContinueConfig:
    """What `torchloom train` receives when it goes on from a checkpoint, which holds the configuration."""

    ckpt: str = option(MISSING, "Checkpoint file to continue from; 'last' is the newest whole one.")
    overrides: list[str] = option(list, "Overrides of the checkpoint's configuration.")


@dataclass
class EvaluateConfig:
    """Measure a trained model on a split of its data.

    Example:
        torchloom evaluate ckpt=last
        torchloom evaluate ckpt=FOLDER/checkpoints/best.ckpt split=val dataset.path=DATA
    """

    ckpt: str = option(MISSING, "Checkpoint file; 'last' is the newest whole one of the newest run.")
    split: Literal["train", "val", "test"] = option("test", "Split of the data to measure on.")
    out: str | None = option(
        None, "JSON file to write the metrics to; evaluate-SPLIT.json in the run's folder unless given."
    )
    overrides: list[str] = option(list, "Overrides of the checkpoint's configuration.")


@dataclass
class PredictConfig:
    """Write a trained model's answers as CSV, a row an example.

    Example:
        torchloom predict ckpt=last
        torchloom predict ckpt=last 'input=[digit.png,other.png]' out=answers.csv
    """

    ckpt: str = option(MISSING, "Checkpoint file; 'last' is the newest whole one of the newest run.")
    split: Literal["train", "val", "test"] = option("test", "Split to predict on, where no input is given.")
    input: list[str] | None = option(None, "Files or texts to predict on, instead of a split.")
    out: str | None = option(None, "File to write the rows to; the terminal unless given.")
    overrides: list[str] = option(list, "Overrides of the checkpoint's configuration.")


@dataclass
class GenerateConfig:
    """Make text or images with a trained model.

    Example:
        torchloom generate ckpt=last prompt='The import statement' max_new_tokens=300
        torchloom generate ckpt=FOLDER/checkpoints/best.ckpt num_samples=64 out=grid.png
    """

    ckpt: str = option(MISSING, "Checkpoint file; 'last' is the newest whole one of the newest run.")
    prompt: str = option("", "Text to go on from, or to answer; empty starts from nothing.")
    prompts: list[str] = option(list, "Several such texts, of any lengths, which are gone on from together.")
    num_samples: int = option(1, "Samples to make; at least one a prompt is made.", ge=1)
    max_new_tokens: int = option(500, "Tokens after the prompt.", ge=1, unit="tokens")
    temperature: float = option(1.0, "Divides the logits; 0 takes the most likely token always.", ge=0)
    top_k: int | None = option(None, "Sample among the k most likely tokens only.", ge=1)
    top_p: float | None = option(None, "Sample among the fewest tokens whose probabilities add up to p.", gt=0, le=1)
    repetition_penalty: float = option(
        1.0, "Makes tokens that stand in the text already less likely; 1 does not.", gt=0, source="Keskar et al., 2019"
    )
    num_beams: int = option(1, "Candidates kept in a beam search for the likeliest text; 1 draws tokens.", ge=1)
    length_penalty: float = option(
        1.0, "In a beam search, log-probabilities are divided by the length to this power; above 0 favours long texts."
    )
    stop: list[str] = option(list, "Texts before which a sample ends.")
    seed: int = option(0, "Seed of the sampling.", ge=0)
    stream: bool = option(True, "Print text while it is made.")
    cache: bool = option(True, "Keep the state of earlier tokens; the result is the same without, but slower.")
    out: str | None = option(None, "File to write to: text, or a PNG grid of images (samples.png unless given).")
    overrides: list[str] = option(list, "Overrides of the checkpoint's configuration.")


@dataclass
class ListConfig:
    """List components and presets.

    Example:
        torchloom list
        torchloom list architecture
        torchloom list experiment
    """

    kind: str | None = option(None, "Kind of component, such as architecture, or experiment; all kinds unless given.")


@dataclass
class ShowConfig:
    """Show one component: what it is, where it comes from, and every option it has.

    Example:
        torchloom show architecture/cnn
        torchloom show dataset/digits
    """

    component: str = option(MISSING, "KIND/NAME of a component or preset.")


@dataclass
class DoctorConfig:
    """Check the environment: versions, devices, and the plugins with their faults.

    Example:
        torchloom doctor
    """
