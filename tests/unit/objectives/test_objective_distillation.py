"""A student that learns from a teacher: the loss by hand, its limits, matched blocks, refusals, checkpoints, resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torchloom
from torchloom import assembly, checkpoint, run
from torchloom.composing import compose
from torchloom.contracts.objective import LossSum
from torchloom.errors import CheckpointError, ConfigError, TorchloomError
from torchloom_objectives.distillation import Answer, Distillation, distances, soft_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")

QUIET = [
    "trainer.accelerator=cpu",
    "trainer.progress=none",
    "trainer.max_epochs=null",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
    "dataset.batch_size=4",
]
SHAPE = ["architecture.d_model=16", "architecture.num_heads=2"]
STUDENT = ["architecture.num_layers=2", *SHAPE]
TEXT = ["dataset=python_docs", "dataset.context_length=16", *QUIET]


def moods(folder: Path, name: str = "moods.tsv", odd: str = "odd", words: str = "film number {} was seen") -> str:
    path = folder / name
    path.write_text("".join(f"{words.format(number)}\t{('even', odd)[number % 2]}\n" for number in range(60)))
    return f"dataset.path={path}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distillation")


@pytest.fixture(scope="module")
def sentiment(place: Path) -> list[str]:
    fractions = ["dataset.val_fraction=0.25", "dataset.test_fraction=0.25"]
    return ["experiment=sentiment", moods(place), "tokenizer.vocab_size=64", *fractions, *QUIET]


@pytest.fixture(scope="module")
def teacher(place: Path, sentiment: list[str]) -> Path:
    layers = ["architecture.num_layers=4", "architecture.d_model=24", "architecture.num_heads=2"]
    run.train(compose([*sentiment, *layers, "objective.label_smoothing=0.1"]), place / "teacher")
    return place / "teacher"


@pytest.fixture(scope="module")
def language(place: Path) -> Path:
    """A language model."""
    words = ["architecture=decoder", "objective=clm", *TEXT, *SHAPE, "architecture.num_layers=3"]
    run.train(compose(words), place / "language")
    return place / "language"


def taught(by: Path, *more: str) -> list[str]:
    return ["objective=distillation", f"objective.teacher={by}", *more]


def assembled(words: list[str], folder: Path) -> assembly.Run:
    return assembly.assemble(compose(words), folder)


def answers(made: assembly.Run) -> tuple[Distillation, dict[str, Tensor], Answer]:
    """Return objective, batch, and what the student answers to it in training, in double precision, without dropout."""
    objective, model = made.network.objective, made.network.model.double()
    assert isinstance(objective, Distillation)
    batch = next(iter(made.data.loader("train")))
    model.eval()
    assert model.head is not None
    model.head.training = True
    with torch.no_grad():
        outputs = model(**objective.inputs(batch))
    assert isinstance(outputs, Answer)
    return objective, batch, outputs


def values(loss: LossSum) -> dict[str, float]:
    return {"total": float(loss.total), "weight": float(loss.weight), **{k: float(v) for k, v in loss.metrics.items()}}


# The loss


def test_loss_of_classes_is_the_formula(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    settings_ = ["objective.temperature=3", "objective.soft_weight=0.7"]
    made = assembled([*sentiment, *STUDENT, *taught(teacher, *settings_)], tmp_path)
    objective, batch, (logits, states) = answers(made)
    loss = objective.loss(Answer(logits, states), batch)

    model = torchloom.load(teacher, device="cpu").model.double()
    with torch.no_grad():
        theirs = model(inputs=batch["tokens"], lengths=batch["length"])
    hard = soft = 0.0
    for own, other, label in zip(logits.tolist(), theirs.tolist(), batch["label"].tolist(), strict=True):
        log_own, log_other = (torch.tensor(one, dtype=torch.float64).log_softmax(-1) for one in (own, other))
        smooth = [0.9 + 0.05 if number == label else 0.05 for number in range(2)]
        hard -= sum(share * float(one) for share, one in zip(smooth, log_own, strict=True))
        q, p = ((one / 3).softmax(-1) for one in (log_own, log_other))
        soft += 9 * sum(float(b) * float(b.log() - a.log()) for a, b in zip(q, p, strict=True))
    assert values(loss) == pytest.approx(
        {"total": 0.3 * hard + 0.7 * soft, "weight": 4, "hard_loss": hard, "soft_loss": soft}, rel=1e-9
    )


@pytest.mark.parametrize("positions", ["all", "last"])
def test_loss_of_tokens_counts_every_target(positions: str, place: Path, tmp_path: Path) -> None:
    words = ["architecture=decoder", *TEXT, *SHAPE]
    run.train(compose([*words, "objective=clm", f"objective.positions={positions}"]), tmp_path / "teacher")
    made = assembled([*words, *taught(tmp_path / "teacher", "objective.soft_weight=0.25")], tmp_path)
    objective, batch, (logits, states) = answers(made)
    model = torchloom.load(tmp_path / "teacher", device="cpu").model.double()
    with torch.no_grad():
        theirs = model(**objective.inputs(batch))
    targets = batch["tokens"][:, 1:] if positions == "all" else batch["tokens"][:, -1:]
    own, other = (one.flatten(0, -2) for one in (logits, theirs))
    hard = F.cross_entropy(own, targets.flatten(), reduction="sum")
    p, q = (other / 2).softmax(-1), (own / 2).softmax(-1)
    soft = 4 * (p * (p / q).log()).sum()
    loss = objective.loss(Answer(logits, states), batch)
    torch.testing.assert_close(loss.total, 0.75 * hard + 0.25 * soft)
    assert float(loss.weight) == targets.numel()


def test_loss_of_hidden_tokens_leaves_the_others_out(tmp_path: Path) -> None:
    words = ["experiment=bert", "trainer.val_every_n_steps=null", "tokenizer.vocab_size=200", *TEXT, *SHAPE]
    run.train(compose(words), tmp_path / "teacher")
    made = assembled([*words, *taught(tmp_path / "teacher", "objective.soft_weight=1")], tmp_path)
    objective, batch, answer = answers(made)
    hidden = batch["targets"] != -100
    assert 0 < hidden.sum() < hidden.numel()
    with torch.no_grad():
        theirs = objective.teacher.model.double()(**objective.inputs(batch))
    p, q = ((one / 2).softmax(-1) for one in (theirs, answer.logits))
    assert p.shape == (int(hidden.sum()), made.network.spec.vocab_size)  # type: ignore[attr-defined]
    torch.testing.assert_close(objective.loss(answer, batch).total, 4 * (p * (p / q).log()).sum())


@given(st.integers(0, 1_000), st.sampled_from([0.5, 1.0, 4.0]))
@settings(max_examples=20, deadline=None)
def test_a_student_that_answers_like_the_teacher_has_no_soft_loss(seed: int, temperature: float) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    shifted = logits + 3.0
    assert float(soft_loss(logits, shifted, temperature)) == pytest.approx(0, abs=1e-12)
    assert float(soft_loss(logits, logits.flip(1), temperature)) > 0


def test_hot_answers_are_matched_as_logits_are() -> None:
    """As Hinton et al. derive: with logits of mean zero the loss tends to half their mean squared difference."""
    torch.manual_seed(0)
    own, theirs = (one - one.mean(-1, keepdim=True) for one in torch.randn(2, 6, 5, dtype=torch.float64))
    expected = float(((own - theirs) ** 2).sum() / (2 * 5))
    errors = [abs(float(soft_loss(own, theirs, heat)) - expected) for heat in (10.0, 100.0, 1000.0)]
    assert errors[2] < 1e-3 * expected
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


def test_cold_answers_are_the_teachers_first_choices() -> None:
    torch.manual_seed(0)
    own, theirs = torch.randn(2, 6, 5, dtype=torch.float64)
    heat = 1e-3
    expected = F.cross_entropy(own / heat, theirs.argmax(-1), reduction="sum") * heat**2
    torch.testing.assert_close(soft_loss(own, theirs, heat), expected)


def test_half_precision_loses_nothing_of_small_differences() -> None:
    own = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    theirs = torch.tensor([[1.0, 2.0, 3.015625]], dtype=torch.bfloat16)
    found = soft_loss(own, theirs, 1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), soft_loss(own.double(), theirs.double(), 1.0), rtol=1e-2, atol=0)


def test_losses_of_parts_add_up(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    made = assembled([*sentiment, *STUDENT, *taught(teacher, "objective.hidden_weight=0.5")], tmp_path)
    objective, batch, _ = answers(made)
    model = made.network.model

    def loss(rows: slice) -> LossSum:
        part = {name: value[rows] for name, value in batch.items()}
        with torch.no_grad():
            return objective.loss(model(**objective.inputs(part)), part)

    whole, *parts = (values(loss(rows)) for rows in (slice(0, 4), slice(0, 1), slice(1, 4)))
    assert whole == pytest.approx({name: parts[0][name] + parts[1][name] for name in whole})


# Matched blocks


def test_distance_is_a_mean_over_real_positions() -> None:
    torch.manual_seed(0)
    own, theirs = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)  # three blocks of two rows
    found = distances(list(own), list(theirs), torch.tensor([5, 2]))
    squares = ((own - theirs) ** 2).mean(0).mean(-1)
    torch.testing.assert_close(found, torch.stack((squares[0].mean(), squares[1, :2].mean())))
    theirs[:, 1, 2:] = 1e6  # padding
    torch.testing.assert_close(distances(list(own), list(theirs), torch.tensor([5, 2])), found)


@pytest.mark.parametrize(
    ("layers", "pairs"), [("[]", [(0, 1), (1, 3)]), ("[3,0]", [(0, 2)]), ("[1,2]", [(0, 0), (1, 1)])]
)
def test_blocks_are_matched_as_the_mapping_says(
    layers: str, pairs: list[tuple[int, int]], teacher: Path, sentiment: list[str], tmp_path: Path
) -> None:
    words = ["objective.hidden_weight=2", f"objective.layers={layers}", "objective.soft_weight=0"]
    made = assembled([*sentiment, *STUDENT, *taught(teacher, *words)], tmp_path)
    objective, batch, answer = answers(made)
    loss = objective.loss(answer, batch)

    def states(model: Any) -> list[Tensor]:
        """Return what every block gives, block by block."""
        from torchloom.contracts.attention import AttentionMask

        found = [model.embeddings(batch["tokens"])]
        for block in model.blocks():
            found.append(block(found[-1], AttentionMask(key_lengths=batch["length"]), None, None, None, None))
        return found[1:]

    with torch.no_grad():
        theirs = states(torchloom.load(teacher, device="cpu").model.double().architecture)
        own = states(made.network.architecture)
    matrix = made.network.model.head.projection.weight.detach()  # type: ignore[union-attr]
    assert matrix.shape == (24, 16)
    expected = 0.0
    for row, length in enumerate(batch["length"].tolist()):
        for mine, other in pairs:
            difference = own[mine][row, :length] @ matrix.T - theirs[other][row, :length]
            expected += float((difference**2).mean()) / len(pairs)
    assert float(loss.metrics["hidden_loss"]) == pytest.approx(expected)
    assert float(loss.total) == pytest.approx(float(loss.metrics["hard_loss"]) + 2 * expected)


def test_blocks_of_one_width_need_no_projection(language: Path, tmp_path: Path) -> None:
    words = ["architecture=decoder", *TEXT, *SHAPE, "architecture.num_layers=1"]
    made = assembled([*words, *taught(language, "objective.hidden_weight=1")], tmp_path)
    assert made.network.model.head.projection is None  # type: ignore[union-attr]
    objective, batch, answer = answers(made)
    assert float(objective.loss(answer, batch).metrics["hidden_loss"]) > 0


def test_matched_states_drive_the_student_to_the_teacher(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = ["objective.hidden_weight=1", "trainer.max_steps=30", "optimizer.lr=0.01", "trainer.val_every_n_epochs=100"]
    run.train(compose([*sentiment, *STUDENT, *taught(teacher, *words)]), tmp_path / "student")
    lines = (tmp_path / "student" / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    hidden = [float(one["train/hidden_loss"]) for one in rows if one.get("train/hidden_loss")]
    assert hidden[-1] < 0.5 * hidden[0]


# The teacher


def test_the_teacher_rests(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    made = assembled([*sentiment, *STUDENT, *taught(teacher)], tmp_path)
    objective = made.network.objective
    assert isinstance(objective, Distillation)
    before = {name: value.clone() for name, value in objective.teacher.model.state_dict().items()}
    made.trainer.fit(made.module, datamodule=made.data)
    assert not any(one.training for one in objective.teacher.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in objective.teacher.model.state_dict().items())
    learning = {id(one) for group in made.trainer.optimizers[0].param_groups for one in group["params"]}
    assert not learning & {id(one) for one in objective.teacher.model.parameters()}
    assert not any("teacher" in key for key in made.module.state_dict())


def test_a_student_begins_as_it_would_without(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    """The teacher's own network draws nothing that the student would have drawn."""
    alone = assembled([*sentiment, *STUDENT, "tokenizer.vocab_size=64"], tmp_path).network.model.state_dict()
    made = assembled([*sentiment, *STUDENT, *taught(teacher)], tmp_path).network.model.state_dict()
    assert {name.replace("head.task.", "head.") for name in made} == alone.keys()
    assert all(torch.equal(value, alone[name.replace("head.task.", "head.")]) for name, value in made.items())


def test_any_architecture_learns_from_any(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = ["architecture=lstm", "architecture.hidden_size=8"]
    bare = [one for one in sentiment if not one.startswith("architecture")]
    run.train(compose([*bare, *words, *taught(teacher)]), tmp_path / "student")
    assert torchloom.load(tmp_path / "student").config.architecture.name == "lstm"


def test_images_are_taught_too(tmp_path: Path) -> None:
    words = ["experiment=cnn", *QUIET]
    run.train(compose(words), tmp_path / "teacher")
    run.train(compose([*words, "architecture.channels=[4]", *taught(tmp_path / "teacher")]), tmp_path / "student")
    assert torchloom.load(tmp_path / "student").config.objective.name == "classification"


def test_texts_made_of_texts_are_taught_but_their_blocks_are_not_matched(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("".join(f"the number {one} is seen\tnumber {one}\n" for one in range(60)))
    fractions = ["dataset.val_fraction=0.25", "dataset.test_fraction=0.25"]
    words = ["experiment=translation", f"dataset.path={tmp_path / 'texts.tsv'}", "tokenizer.vocab_size=280", *fractions]
    words += [*SHAPE, "architecture.num_layers=1", "objective.bleu=false", *QUIET]
    run.train(compose(words), tmp_path / "teacher")
    words.remove("objective.bleu=false")
    made = assembled([*words, *taught(tmp_path / "teacher", "objective.soft_weight=1")], tmp_path)
    objective, batch, answer = answers(made)
    assert float(objective.loss(answer, batch).metrics["soft_loss"]) > 0
    assert float(objective.loss(answer, batch).weight) == float((batch["target_length"] - 1).sum())
    assert refusal([*words, *taught(tmp_path / "teacher", "objective.hidden_weight=1")], tmp_path) == (
        "objective.hidden_weight: matches the states of one sequence, and the teacher reads one and writes another\n"
        "    leave it out"
    )


# Checkpoints


def test_a_student_needs_no_teacher_once_trained(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    words = [*sentiment, *STUDENT, *taught(copy, "objective.hidden_weight=1")]
    summary = run.train(compose(words), tmp_path / "student")
    shutil.rmtree(copy)
    loaded = torchloom.load(tmp_path / "student")
    assert loaded.config.objective == {**torchloom.load(teacher).config.objective, "name": "sentiment"}
    assert loaded.config.objective.label_smoothing == 0.1
    assert loaded.evaluate("test")[0]["test/f1"] >= 0
    assert loaded.predict(["film number 3 was seen"])[0]["prediction"] in ("even", "odd")
    again = checkpoint.read(checkpoint.newest(tmp_path / "student"))
    assert not any("teacher" in key for key in again["state_dict"])
    assert summary["metrics"]["train/soft_loss"] >= 0


def test_evaluation_measures_the_task_as_the_teachers_was(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    full = ["trainer.limit_test_batches=null", "callbacks.checkpoint.save_best=false"]
    summary = run.train(compose([*sentiment, *STUDENT, *taught(teacher), *full]), tmp_path / "student")
    found = torchloom.load(tmp_path / "student").evaluate("test")[0]
    assert found == pytest.approx({name: summary["metrics"][name] for name in found})


def test_a_distilled_language_model_writes(language: Path, tmp_path: Path) -> None:
    words = ["architecture=decoder", *TEXT, *SHAPE, "architecture.num_layers=1", *taught(language)]
    run.train(compose(words), tmp_path / "student")
    loaded = torchloom.load(tmp_path / "student")
    assert loaded.generate("def", max_new_tokens=5, seed=0).texts[0].startswith("def")


def test_a_student_teaches(language: Path, tmp_path: Path) -> None:
    words = ["architecture=decoder", *TEXT, *SHAPE, "architecture.num_layers=1"]
    run.train(compose([*words, *taught(language, "+objective.task.bias=true")]), tmp_path / "first")
    made = assembled([*words, *taught(tmp_path / "first")], tmp_path)
    assert made.network.objective.config.task["name"] == "clm"
    assert made.network.objective.config.task["bias"] is True


def test_a_continued_run_is_the_whole_one(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = [*sentiment, *STUDENT, *taught(teacher, "objective.hidden_weight=0.5"), "trainer.max_steps=6"]
    run.train(compose(words), tmp_path / "whole")
    run.train(compose([*words, "callbacks.checkpoint.every_n_steps=3"]), tmp_path / "parts")
    third = checkpoint.path_of(tmp_path / "parts", 3)
    for later in checkpoint.saved(tmp_path / "parts"):
        if later != third:
            later.unlink()
    run.train(run.continued(third), tmp_path / "parts")
    whole, parts = (checkpoint.read(checkpoint.path_of(tmp_path / name, 6)) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_a_continued_run_needs_its_teacher(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    run.train(compose([*sentiment, *STUDENT, *taught(copy)]), tmp_path / "student")
    shutil.rmtree(copy)
    newest = checkpoint.newest(tmp_path / "student")
    with pytest.raises(CheckpointError, match=rf"objective.teacher={copy}: .*there is no such checkpoint"):
        run.train(run.continued(newest, ["trainer.max_steps=8"]), tmp_path / "student")


# Refusals


def refusal(words: list[str], folder: Path, kind: type[TorchloomError] = ConfigError) -> str:
    with pytest.raises(kind) as error:
        assembled(words, folder)
    return str(error.value)


def test_no_teacher(sentiment: list[str], tmp_path: Path) -> None:
    assert refusal([*sentiment, "objective=distillation"], tmp_path) == (
        "objective.teacher: none is named, and there is nothing to learn from\n"
        "    name a run's folder or a checkpoint: objective.teacher=RUN"
    )


def test_a_checkpoint_of_unknown_layout(sentiment: list[str], tmp_path: Path) -> None:
    strange = tmp_path / "model.ckpt"
    torch.save({"weight": torch.zeros(1)}, strange)
    assert refusal([*sentiment, *taught(strange)], tmp_path, CheckpointError) == (
        f"objective.teacher={strange}: {strange}: a checkpoint, but not one that torchloom wrote\n"
        "    a published checkpoint is made a run of by torchloom import"
    )
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert refusal([*sentiment, *taught(folder)], tmp_path, CheckpointError).startswith(f"objective.teacher={folder}: ")


def test_another_tokenizer(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    assert refusal([*sentiment, *taught(teacher), "tokenizer=word"], tmp_path) == (
        f"tokenizer=word: is not what {teacher} was trained with\n    choose tokenizer=wordpiece; it takes that run's"
    )


def test_another_vocabulary(teacher: Path, sentiment: list[str], place: Path, tmp_path: Path) -> None:
    other = [*sentiment, moods(tmp_path, words="a wholly other world {}"), "tokenizer.vocab_size=50"]
    run.train(compose([*other, *STUDENT]), tmp_path / "other")
    start = [*STUDENT, f"architecture.init_from={tmp_path / 'other'}"]
    assert refusal([*sentiment, *start, *taught(teacher)], tmp_path) == (
        f"objective.teacher: {teacher} was trained with another vocabulary than architecture.init_from="
        f"{tmp_path / 'other'}\n    choose two runs of one vocabulary"
    )


def test_other_classes(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    named = [*sentiment, moods(tmp_path, odd="uneven"), *STUDENT, *taught(teacher)]
    assert refusal(named, tmp_path) == (
        "objective.teacher: the teacher tells apart even, odd, but the data has even, uneven\n"
        "    choose a teacher that was trained on such data"
    )
    more = [*sentiment, *STUDENT, "dataset.classes=[even,odd,neither]", *taught(teacher)]
    text = refusal(more, tmp_path)
    assert "the teacher tells apart even, odd, but the data has even, odd, neither" in text
    assert "the teacher was trained with num_classes=2, but the student's data has 3" in text


def test_longer_texts(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    assert refusal([*sentiment, *STUDENT, *taught(teacher), "dataset.context_length=80"], tmp_path) == (
        "objective.teacher: the teacher was trained on dataset.context_length=64, and the student's is longer: 80\n"
        "    set dataset.context_length to at most 64, or choose a teacher that was trained on longer ones"
    )
    assembled([*sentiment, *STUDENT, *taught(teacher), "dataset.context_length=32"], tmp_path)


def test_a_teacher_of_something_else(teacher: Path, language: Path, sentiment: list[str], tmp_path: Path) -> None:
    text = refusal(["architecture=encoder", *TEXT, "tokenizer=wordpiece", *SHAPE, *taught(teacher)], tmp_path)
    assert "the teacher was trained on objective=sentiment, which takes labelled text, but the data is text" in text, (
        text
    )
    text = refusal(["experiment=cnn", *taught(language), *QUIET], tmp_path)
    assert text.startswith(f"objective.teacher: {language} was trained on text, and dataset 'digits' is not like that")
    run.train(compose(["experiment=forecast", *QUIET]), tmp_path / "forecast")
    text = refusal(["experiment=forecast", *QUIET, *taught(tmp_path / "forecast")], tmp_path)
    assert text == (
        "objective.teacher: the teacher was trained on objective=forecast, whose answers are not logits of classes or "
        "tokens\n    choose a teacher of classification, sentiment, entailment, clm, mlm or seq2seq"
    )


def test_another_task(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = [*sentiment, *STUDENT, *taught(teacher, "+objective.task.name=classification")]
    assert refusal(words, tmp_path) == (
        "objective.task.name: classification is not what the teacher was trained on\n    leave it out; it is sentiment"
    )


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (
            "[1]",
            "objective.layers: [1] names blocks of the teacher for 1 of the student's, which has 2\n"
            "    name one for each; 0 matches none",
        ),
        (
            "[1,5]",
            "objective.layers: [1, 5] names block 5 of the teacher, which has 4\n    choose from 1 to 4; 0 matches none",
        ),
    ],
)
def test_a_mapping_that_does_not_fit(
    layers: str, text: str, teacher: Path, sentiment: list[str], tmp_path: Path
) -> None:
    words = taught(teacher, "objective.hidden_weight=1", f"objective.layers={layers}")
    assert refusal([*sentiment, *STUDENT, *words], tmp_path) == text


def test_blocks_that_have_no_vectors_of_positions(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = ["architecture=text_cnn", "architecture.channels=8", *taught(teacher, "objective.hidden_weight=1")]
    assert refusal([*sentiment, *words], tmp_path) == (
        "objective.hidden_weight: matches vectors of positions, and block 1 of the student, a TextCNN, gives none\n"
        "    leave it out, or choose another architecture"
    )


def test_states_of_a_recurrent_student_are_matched_too(teacher: Path, sentiment: list[str], tmp_path: Path) -> None:
    words = ["architecture=lstm", "architecture.hidden_size=8", *taught(teacher, "objective.hidden_weight=1")]
    torchloom.train(compose([*sentiment, *words]), tmp_path / "student")
    rows = (tmp_path / "student" / "metrics.csv").read_text().splitlines()
    assert "train/hidden_loss" in rows[0]
