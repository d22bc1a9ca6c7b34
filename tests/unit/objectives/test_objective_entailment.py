"""The head that compares two texts; what entailment shares with classification is tested there."""

import pytest
import torch

from torchloom.contracts.architecture import Architecture
from torchloom.contracts.objective import Model
from torchloom.contracts.spec import LabelledTextSpec
from torchloom_objectives.classification import Entailment
from torchloom_objectives.configs import EntailmentConfig

SPEC = LabelledTextSpec(vocab_size=11, context_length=12, num_classes=3, classes=("yes", "maybe", "no"), pairs=True)


class Looked(Architecture):
    """Gives each token's own vector, so that a text's mean is known."""

    protocols = frozenset({"features", "sequence"})
    accepts = (LabelledTextSpec,)
    takes_segments = True
    width = 6

    def __init__(self):
        super().__init__(None, SPEC)
        torch.manual_seed(3)
        self.embedding = torch.nn.Embedding(SPEC.vocab_size, self.width)

    def sequence(self, tokens, *, mask=None, segments=None, state=None):
        return self.embedding(tokens)


FIRST, SECOND = [[1, 4, 5, 2], [1, 2]], [[6, 2], [7, 8, 9, 2]]


def batch_of(first: list[list[int]], second: list[list[int]], padding: int = 0) -> dict[str, torch.Tensor]:
    rows = [one + other for one, other in zip(first, second, strict=True)]
    length = max(map(len, rows)) + padding
    return {
        "tokens": torch.tensor([row + [10] * (length - len(row)) for row in rows]),
        "length": torch.tensor([len(row) for row in rows]),
        "segments": torch.tensor(
            [
                [0] * len(one) + [1] * len(other) + [0] * (length - len(one + other))
                for one, other in zip(first, second, strict=True)
            ]
        ),
        "label": torch.tensor([0, 2]),
    }


def model_of(**fields) -> tuple[Entailment, Model]:
    objective = Entailment(EntailmentConfig(compare=True, dropout=0.0, **fields), SPEC)
    architecture = Looked()
    return objective, Model(architecture, objective.head(architecture), objective.protocol)


def test_classes_are_read_from_both_means_their_difference_and_their_product():
    objective, model = model_of(hidden=False)
    logits = model(**objective.inputs(batch_of(FIRST, SECOND, padding=3)))
    weight, bias = model.head.classes.weight, model.head.classes.bias
    for row in range(2):
        u, v = (model.architecture.embedding(torch.tensor(texts[row])).mean(0) for texts in (FIRST, SECOND))
        torch.testing.assert_close(logits[row], weight @ torch.cat([u, v, (u - v).abs(), u * v]) + bias)


def test_equal_texts_differ_by_nothing_wherever_their_words_stand():
    objective, model = model_of(hidden=False)
    width = Looked.width
    with torch.no_grad():
        model.head.classes.bias.zero_()
        model.head.classes.weight[:, : 2 * width] = 0
        model.head.classes.weight[:, 3 * width :] = 0
    alike = model(**objective.inputs(batch_of([[4, 5, 6], [7, 8]], [[6, 4, 5], [8, 7]])))
    torch.testing.assert_close(alike, torch.zeros(2, 3))
    assert model(**objective.inputs(batch_of(FIRST, SECOND))).abs().min() > 0


@pytest.mark.parametrize("hidden", [True, False])
def test_a_text_that_was_cut_away_gives_numbers(hidden):
    objective, model = model_of(hidden=hidden)
    assert model(**objective.inputs(batch_of(FIRST, [[], [3]]))).isfinite().all()
