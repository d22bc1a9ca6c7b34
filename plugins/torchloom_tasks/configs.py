"""Settings of the datasets of tasks. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.configs import DatasetConfig
from torchloom.options import option


@dataclass
class DividedConfig(DatasetConfig):
    """Fields of datasets that are divided by shares where there are no files for each split."""

    val_fraction: float = option(0.1, "Share for validation where it has no file of its own.", ge=0, lt=1)
    test_fraction: float = option(0.1, "Share for the test where it has no file of its own.", ge=0, lt=1)


@dataclass
class TaskTextConfig(DividedConfig):
    """Fields of datasets of texts that are examples by themselves."""

    context_length: int = option(128, "Tokens of an example at most, special ones included.", ge=1, unit="tokens")
    too_long: Literal["cut", "refuse"] = option(
        "cut", "What becomes of an example of more tokens: it is cut, and the number of such is logged, or an error."
    )
    group_lengths: bool = option(
        False,
        "Make batches of examples of like length, of those with one class each: less is spent on filling up short ones.",
    )


@dataclass
class LabelledConfig(TaskTextConfig):
    """Fields of `sentiment` and `entailment`."""

    path: str | None = option(
        None, "TSV, CSV or JSONL file, or a folder with one each for train, val (dev, trial) and test."
    )
    val_path: str | None = option(None, "File for validation, in place of the folder's or of a share.")
    test_path: str | None = option(None, "File for the test, in place of the folder's or of a share.")
    label_column: str | None = option(
        None, "Column of the label; one of the usual names, or the last column of a file without names, unless given."
    )
    classes: list[str] = option(
        list, "Names of the classes in the order of their numbers; taken from the training file unless given."
    )


@dataclass
class SentimentConfig(LabelledConfig):
    """Settings of `sentiment`."""

    text_column: str | None = option(
        None, "Column of the text; one of the usual names, or the first column of a file without names, unless given."
    )


@dataclass
class EntailmentConfig(LabelledConfig):
    """Settings of `entailment`."""

    text_column: str | None = option(
        None, "Column of the first sentence; one of the usual names, or the first column, unless given."
    )
    pair_column: str | None = option(
        None, "Column of the second sentence; one of the usual names, or the second column, unless given."
    )


@dataclass
class HubConfig(TaskTextConfig):
    """Settings of `hub`."""

    path: str | None = option(
        None, "Name of a dataset on the hub, such as stanfordnlp/sst2, or a folder on this machine."
    )
    subset: str | None = option(None, "Name of the dataset's configuration, where it has several.")
    text_column: str = option("text", "Column of the text.")
    pair_column: str | None = option(None, "Column of the second text, for pairs.")
    label_column: str = option("label", "Column of the label: a number, or a name.")
    cache: str | None = option(None, "Folder for what is downloaded; the library's own unless given.")


@dataclass
class SquadConfig(DividedConfig):
    """Settings of `squad`."""

    path: str | None = option(
        None, "JSON file, divided by articles, or a folder with one each for train, val (dev) and test."
    )
    val_path: str | None = option(None, "File for validation, in place of the folder's or of a share of the articles.")
    test_path: str | None = option(None, "File for the test, in place of the folder's or of a share of the articles.")
    context_length: int = option(
        256, "Tokens of an example at most: question, part of the text, and special ones.", ge=8, unit="tokens"
    )
    question_length: int = option(64, "Tokens of a question at most; what is longer is cut.", ge=1, unit="tokens")
    stride: int = option(
        96,
        "Tokens from the beginning of one window over a long text to that of the next.",
        ge=1,
        unit="tokens",
        source="Devlin et al. 2019, run_squad.py (doc_stride)",
    )


@dataclass
class MadeUpConfig(TaskTextConfig):
    """Fields of the tasks whose questions are made up."""

    examples: int = option(10_000, "Questions made up for training.", ge=1)
    eval_examples: int = option(1_000, "Questions made up for validation, and as many for the test.", ge=1)
    seed: int = option(0, "Seed of what is made up.", ge=0)


@dataclass
class BabiConfig(MadeUpConfig):
    """Settings of `babi`."""

    task: int = option(1, "Task: 1, 2 or 3 supporting facts.", ge=1, le=3)
    path: str | None = option(
        None,
        "bAbI's own training file, or the folder of its files, in place of stories made up; a share of its stories is "
        "for validation.",
    )
    test_path: str | None = option(None, "bAbI's own test file, in place of questions made up.")
    format: Literal["classes", "spans"] = option(
        "classes", "The answer is one class of words, or the place in the story where it was last said."
    )
    curriculum: int = option(
        0,
        "First epochs of training that read short stories more often than long ones, less so from one to the next.",
        ge=0,
        source="Bengio et al., 2009, Curriculum Learning",
    )
    stride: int = option(64, "Tokens between windows over a story too long for one (format=spans).", ge=1)


@dataclass
class LookupsConfig(MadeUpConfig):
    """Settings of `lookups`."""

    letters: int = option(
        8, "Letters that lead to one another, in chains of steps + 1: two or more chains of them.", ge=4, le=26
    )
    steps: int = option(3, "Steps to follow at most.", ge=1)
    least_steps: int = option(1, "Steps to follow at least.", ge=1)


@dataclass
class FactsConfig(MadeUpConfig):
    """Settings of `facts`."""

    corpus: str | None = option(
        None, "Text file that the facts of all splits are written to, one a line; not written unless given."
    )


@dataclass
class ParallelTextConfig(DividedConfig):
    """Settings of `parallel_text`."""

    path: str | None = option(
        None,
        "TSV, CSV or JSONL file of both, or a folder with one each for train, val (dev) and test; with target_path, "
        "text file of the sources, one a line.",
    )
    target_path: str | None = option(None, "Text file of the targets, aligned with path line by line.")
    val_path: str | None = option(None, "File for validation, of the form of path.")
    val_target_path: str | None = option(None, "Targets for validation, aligned with val_path.")
    test_path: str | None = option(None, "File for the test, of the form of path.")
    test_target_path: str | None = option(None, "Targets for the test, aligned with test_path.")
    source_column: str | None = option(
        None, "Column of the source; one of the usual names, or the first column, unless given."
    )
    target_column: str | None = option(
        None, "Column of the target; one of the usual names, or the second column, unless given."
    )
    source_length: int = option(64, "Tokens of a source at most; what is longer is cut.", ge=1, unit="tokens")
    target_length: int = option(64, "Tokens of a target at most; what is longer is cut.", ge=2, unit="tokens")


@dataclass
class ChatConfig(TaskTextConfig):
    """Settings of `chat`."""

    path: str | None = option(
        None,
        "JSONL file of conversations, or a folder with one each for train, val (dev) and test; conversations about "
        "stories are made up unless given.",
    )
    val_path: str | None = option(None, "File for validation, in place of the folder's or of a share.")
    test_path: str | None = option(None, "File for the test, in place of the folder's or of a share.")
    template: str = option(
        "chatml",
        "How a conversation is written: chatml, with tokens of its own around each turn; plain, with no token but eos; or "
        "a file with a template of Hugging Face's form (Jinja, or the tokenizer_config.json that holds it).",
        source="https://huggingface.co/docs/transformers/chat_templating",
    )
    special_tokens: list[str] = option(
        list, "Special tokens of the template, which the tokenizer gets; all it writes as <|name|> unless given."
    )
    context_length: int = option(512, "Tokens that a model sees of a conversation at most.", ge=2, unit="tokens")
    examples: int = option(2_000, "Conversations made up for training.", ge=1)
    eval_examples: int = option(200, "Conversations made up for validation, and as many for the test.", ge=1)
    seed: int = option(0, "Seed of what is made up.", ge=0)


@dataclass
class TimeSeriesConfig(DividedConfig):
    """Settings of `timeseries`."""

    path: str | None = option(None, "CSV file, a row a time, in order; a series is made up unless given.")
    columns: list[str] = option(list, "Columns to read, by name, or by number where they have none; all unless given.")
    context_length: int = option(96, "Times that a model sees.", ge=1, unit="steps")
    horizon: int = option(24, "Times to forecast.", ge=1, unit="steps")
    rows: int = option(4_000, "Length of a series made up.", ge=1, unit="steps")
    noise: float = option(
        0.1, "Standard deviation of the noise in it, where its seasons have heights of 1 and 0.5.", ge=0
    )
    seed: int = option(0, "Seed of it.", ge=0)


@dataclass
class AudioFolderConfig(DividedConfig):
    """Settings of `audio_folder`."""

    path: str | None = option(
        None, "Folder with one folder of WAV files a class, or with folders train, val and test that hold these."
    )
    sample_rate: int = option(16_000, "Samples a second; a file of another rate is refused.", ge=1, unit="Hz")
    context_length: int = option(101, "Frames of an example; a shorter one is filled up, a longer one cut.", ge=1)
    window: float = option(0.025, "Length of the piece of sound that a frame is made of.", gt=0, unit="seconds")
    hop: float = option(0.01, "Time from one frame to the next.", gt=0, unit="seconds")
    mels: int = option(40, "Bands of frequency.", ge=1)
