"""Answers out of a context: the loss, the best span, SQuAD's scores, and windows of one question taken together."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torchloom.contracts.spec import QuestionSpec
from torchloom.testing.support import batch_of
from torchloom_objectives.configs import QAConfig
from torchloom_objectives.qa import QA, QuestionScore, best_of, exact_match, f1, normalise

SPEC = QuestionSpec(vocab_size=17, context_length=12)
CONTEXT = "the big cat sat"
WORDS = [(0, 3), (4, 7), (8, 11), (12, 15)]


def windows(*answers, examples=None):
    """Return windows ``[cls] q q [sep] the big cat sat [pad]``, one for each tuple of true answers."""
    count = len(answers)
    offsets = torch.full((9, 2), -1)
    offsets[4:8] = torch.tensor(WORDS)
    rows = ["".join(f"{one}\0" for one in own).encode() for own in answers]
    longest = max(1, *map(len, rows))
    return {
        "tokens": torch.tensor([[1, 5, 6, 2, 7, 8, 9, 10, 0]]).expand(count, -1),
        "length": torch.full((count,), 8),
        "example": torch.arange(count) if examples is None else torch.tensor(examples),
        "offsets": offsets.expand(count, -1, -1),
        "context": torch.tensor([list(CONTEXT.encode())], dtype=torch.uint8).expand(count, -1),
        "answers": torch.tensor([list(row.ljust(longest, b"\0")) for row in rows], dtype=torch.uint8),
    }


def logits(start, end):
    """Return ``(1, 9, 2)`` with the logits named by position, 0 elsewhere."""
    outputs = torch.zeros(1, 9, 2)
    for column, values in enumerate((start, end)):
        for place, value in values.items():
            outputs[0, place, column] = value
    return outputs


def answers(outputs, batch, **fields):
    return [one["prediction"] for one in QA(QAConfig(**fields), SPEC).predictions(outputs, batch)]


def test_loss_is_the_mean_of_start_and_end_among_the_places_an_answer_can_stand():
    batch = {**windows(("cat",), ()), "start": torch.tensor([6, 0]), "end": torch.tensor([7, 0])}
    outputs = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0))
    open_to = [0, 4, 5, 6, 7]  # the first position and the context
    expected = 0.0
    for row in range(2):
        for column, name in enumerate(("start", "end")):
            scores = outputs[row, open_to, column]
            expected += -scores.log_softmax(0)[open_to.index(int(batch[name][row]))] / 2
    loss = QA(QAConfig(), SPEC).loss(outputs, batch)
    assert_close(loss.total, expected)
    assert loss.weight == 2


def test_question_separators_and_padding_get_no_gradient_and_are_never_the_answer():
    batch = {**windows(("cat",)), "start": torch.tensor([6]), "end": torch.tensor([6])}
    outputs = logits({1: 9.0, 2: 9.0, 3: 9.0, 5: 2.0, 8: 9.0}, {1: 9.0, 3: 9.0, 6: 2.0, 8: 9.0}).requires_grad_()
    loss = QA(QAConfig(), SPEC).loss(outputs, batch)
    (gradient,) = torch.autograd.grad(loss.total, outputs)
    assert gradient.abs().sum(-1).ne(0)[0].tolist() == [place in (0, 4, 5, 6, 7) for place in range(9)]
    assert answers(outputs, batch) == ["big cat"]


def test_the_best_span_begins_before_it_ends_and_is_short_enough():
    batch = windows(("cat",))
    backwards = logits({7: 5.0, 4: 1.0}, {4: 4.0, 7: 1.0})
    assert answers(backwards, batch) == ["sat"]  # not from 7 to 4, which would score 9
    wide = logits({4: 5.0, 6: 2.0}, {7: 5.0, 5: 1.0})
    assert answers(wide, batch) == ["the big cat sat"]
    assert answers(wide, batch, max_answer_length=2) == ["cat sat"]
    assert answers(wide, batch, max_answer_length=1) == ["the"]


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_the_best_span_equals_a_search_through_all(seed, most):
    outputs = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(seed))
    scores = {
        (first, last): float(outputs[0, first, 0] + outputs[0, last, 1])
        for first, last in itertools.product(range(4, 8), repeat=2)
        if first <= last < first + most
    }
    first, last = max(scores, key=scores.__getitem__)
    (span,) = QA(QAConfig(max_answer_length=most), SPEC).spans(outputs, windows(("cat",)))
    assert span.text == CONTEXT[WORDS[first - 4][0] : WORDS[last - 4][1]]
    assert span.score == pytest.approx(scores[first, last])
    assert span.null == pytest.approx(float(outputs[0, 0].sum()))


def test_nothing_is_answered_where_that_is_likelier_by_more_than_the_threshold():
    batch = windows(())
    outputs = logits({0: 2.0, 6: 1.0}, {0: 1.5, 6: 1.0})  # 3.5 against 2
    (record,) = QA(QAConfig(), SPEC).predictions(outputs, batch)
    assert record == {"example": 0, "prediction": "", "score": -1.5}
    assert answers(outputs, batch, null_threshold=1.5) == ["cat"]
    assert answers(outputs, batch, null_threshold=1.4) == [""]


def test_offsets_count_bytes_of_utf8():
    batch = windows(("x",))
    text = "é 猫 s t".encode()
    batch["context"] = torch.tensor([list(text)], dtype=torch.uint8)
    batch["offsets"] = batch["offsets"].clone()
    batch["offsets"][0, 4:8] = torch.tensor([[0, 2], [3, 6], [7, 8], [9, 10]])
    assert answers(logits({5: 3.0}, {5: 3.0}), batch) == ["猫"]
    assert answers(logits({4: 3.0}, {5: 3.0}), batch) == ["é 猫"]


def test_texts_are_compared_as_squad_does():
    assert normalise("The  Cat, an\tapple's a.") == "cat apples"
    assert normalise("Theatre banana") == "theatre banana"  # articles are words
    assert exact_match("The cat!", "cat") == 1
    assert exact_match("cats", "cat") == 0
    assert f1("the big cat", "a cat") == pytest.approx(2 * (1 / 2 * 1) / (1 / 2 + 1))
    assert f1("cat cat dog", "cat dog dog") == pytest.approx(2 / 3)  # words count as often as they stand there
    assert f1("dog", "cat") == f1("", "cat") == f1("cat", "") == 0
    assert f1("", "") == f1("the", "") == 1
    assert best_of(f1, "big cat", ["dog", "cat", "big cat"]) == 1
    assert best_of(exact_match, "", []) == best_of(f1, "", ["the"]) == 1
    assert best_of(f1, "cat", []) == 0


def test_metrics_by_hand():
    batch = windows(("the cat", "cat sat"), ("big",), ())
    outputs = torch.cat(
        [
            logits({6: 3.0}, {6: 3.0}),  # "cat": right but for the article
            logits({4: 3.0}, {6: 3.0}),  # "the big cat" for "big": F1 2/3
            logits({0: 3.0}, {0: 3.0}),  # nothing, where there is nothing
        ]
    )
    objective = QA(QAConfig(), SPEC)
    metrics = objective.metrics()
    for part in (slice(0, 2), slice(2, 3)):
        objective.update_metrics(metrics, outputs[part], {name: value[part] for name, value in batch.items()})
    assert metrics["em"].compute() == pytest.approx(2 / 3)
    assert metrics["f1"].compute() == pytest.approx((1 + 2 / 3 + 1) / 3)


def test_windows_of_one_question_answer_together_by_the_highest_score():
    """Question 4 is answered by its second window, though the first is surer of nothing; question 9 by none."""
    score = QuestionScore(0.0)
    score.update(torch.tensor([4, 9]), torch.tensor([[1.0, 9.0], [3.0, 3.5]]), torch.tensor([[0.0, 0.0], [0.25, 1.0]]))
    score.update(torch.tensor([4]), torch.tensor([[5.0, 2.0]]), torch.tensor([[0.5, 0.0]]))
    assert score.compute() == (0.5 + 1.0) / 2


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_windows_have_no_score():
    assert QuestionScore(0.0).compute().isnan()


@pytest.mark.parametrize(("threshold", "worth"), [(0.4, 1.0), (0.5, 0.25)])
def test_the_threshold_must_be_passed(threshold, worth):
    score = QuestionScore(threshold)
    score.update(torch.tensor([0]), torch.tensor([[3.0, 3.5]]), torch.tensor([[0.25, 1.0]]))
    assert score.compute() == worth


def test_windows_through_the_objective_count_as_one_question():
    batch = windows(("cat",), ("cat",), examples=[7, 7])
    outputs = torch.cat([logits({4: 2.0}, {4: 2.0}), logits({6: 3.0}, {6: 3.0})])
    objective = QA(QAConfig(), SPEC)
    metrics = objective.metrics()
    objective.update_metrics(metrics, outputs, batch)
    assert metrics["em"].compute() == metrics["f1"].compute() == 1


def test_sums_of_two_batches_are_the_sum_of_both_together():
    objective, batch = QA(QAConfig(), SPEC), batch_of(SPEC, 7)
    outputs = torch.randn(7, 12, 2, generator=torch.Generator().manual_seed(0))
    whole = objective.loss(outputs, batch)
    parts = [
        objective.loss(outputs[part], {name: value[part] for name, value in batch.items()})
        for part in (slice(0, 3), slice(3, 7))
    ]
    assert_close(sum(loss.total for loss in parts), whole.total)
    assert sum(loss.weight for loss in parts) == whole.weight == 7
