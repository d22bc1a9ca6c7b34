import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import Model
from torchloom.contracts.spec import ImageSpec, TokenSpec
from torchloom.errors import ConfigError
from torchloom_objectives.classification import Classification
from torchloom_objectives.configs import ClassificationConfig

SPEC = ImageSpec(channels=1, height=4, width=4, num_classes=3, classes=("cat", "dog", "owl"))


class Flat(Architecture):
    protocols = frozenset({"features"})
    accepts = (ImageSpec,)
    width = 16

    def features(self, inputs, *, lengths=None, encoded=None):
        return inputs.flatten(1)


def batch_of(count: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(count)
    return {"image": torch.rand(count, 1, 4, 4), "label": torch.randint(3, (count,))}


def model_for(objective: Classification) -> Model:
    torch.manual_seed(0)
    architecture = Flat(None, SPEC)
    return Model(architecture, objective.head(architecture), objective.protocol)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_divided_loss_sum_has_the_gradient_of_the_mean_loss(smoothing):
    objective = Classification(ClassificationConfig(label_smoothing=smoothing), SPEC)
    batch, model = batch_of(7), model_for(objective)
    loss = objective.loss(model(**objective.inputs(batch)), batch)
    gradient = torch.autograd.grad(loss.total / loss.weight, list(model.parameters()))
    logits = model.head(batch["image"].flatten(1))
    target = F.one_hot(batch["label"], 3) * (1 - smoothing) + smoothing / 3
    mean = -(target * logits.log_softmax(-1)).sum(-1).mean()
    expected = torch.autograd.grad(mean, list(model.parameters()))
    for one, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_sums_of_two_batches_are_the_sum_of_both_together():
    objective = Classification(ClassificationConfig(), SPEC)
    model, batch = model_for(objective), batch_of(9)
    parts = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 2), slice(2, 9))]
    whole = objective.loss(model(**objective.inputs(batch)), batch)
    losses = [objective.loss(model(**objective.inputs(part)), part) for part in parts]
    torch.testing.assert_close(sum(loss.total for loss in losses), whole.total)
    assert sum(loss.weight for loss in losses) == whole.weight == 9


def test_metrics_equal_scikit_learns_over_several_batches():
    objective = Classification(ClassificationConfig(), SPEC)
    model, metrics = model_for(objective), objective.metrics()
    labels, predicted = [], []
    for count in (5, 8, 3):
        batch = batch_of(count)
        outputs = model(**objective.inputs(batch))
        objective.update_metrics(metrics, outputs, batch)
        labels += batch["label"].tolist()
        predicted += outputs.argmax(-1).tolist()
    assert metrics["accuracy"].compute().item() == pytest.approx(sum(map(int.__eq__, labels, predicted)) / 16)
    assert metrics["f1"].compute().item() == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics["confusion_matrix"].compute().tolist() == confusion_matrix(labels, predicted).tolist()


def test_predictions_name_the_class_and_its_probability():
    objective = Classification(ClassificationConfig(), SPEC)
    logits = torch.tensor([[0.0, 2.0, 0.0], [5.0, 0.0, 0.0]])
    first, second = objective.predictions(logits, {})
    assert (first["prediction"], second["prediction"]) == ("dog", "cat")
    assert first["probability"] == pytest.approx(torch.tensor([0.0, 2.0, 0.0]).softmax(0)[1].item())


def test_classes_without_names_go_by_their_number():
    objective = Classification(ClassificationConfig(), ImageSpec(1, 4, 4, num_classes=3))
    assert objective.predictions(torch.eye(3), {})[2]["prediction"] == "2"


def test_labelled_text_is_classified_with_its_lengths():
    class LabelledText(TokenSpec):
        num_classes = 2

    objective = Classification(ClassificationConfig(), LabelledText(vocab_size=5, context_length=4))
    batch = {
        "tokens": torch.zeros(2, 5, dtype=torch.int64),
        "length": torch.tensor([2, 5]),
        "label": torch.tensor([0, 1]),
    }
    assert set(objective.inputs(batch)) == {"inputs", "lengths"}
    assert objective.inputs(batch)["lengths"] is batch["length"]


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        (ImageSpec(1, 4, 4), "images of no classes"),
        (ImageSpec(1, 4, 4, num_classes=1), "images of a single class"),
        (TokenSpec(vocab_size=5, context_length=4), "text of no classes"),
    ],
)
def test_data_without_classes_is_refused(spec, given):
    with pytest.raises(ConfigError) as error:
        Classification(ClassificationConfig(), spec)
    assert str(error.value) == (
        f"objective=classification: needs at least 2 classes, but the dataset gives {given}\n"
        "    choose a dataset with labels, or another objective"
    )


def test_head_has_a_bias_and_one_output_a_class():
    head = Classification(ClassificationConfig(), SPEC).head(Flat(None, SPEC))
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features, head.bias is not None) == (16, 3, True)
