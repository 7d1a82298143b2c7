"""Loss, metrics and decoding against numbers worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task


def task_of(*labels):
    return build_task({"type": "classification", "labels": list(labels), "max_length": 16})


def output_of(*predicted, count):
    """Logits whose largest entry is the predicted label."""
    return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor(predicted), count).float() * 3)


def metrics_of(task, predicted, true, batches=1):
    metrics = task.metrics()
    size = -(-len(true) // batches)
    for at in range(0, len(true), size):
        batch = {"labels": torch.tensor(true[at : at + size])}
        task.update(metrics, output_of(*predicted[at : at + size], count=len(task.labels)), batch)
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("batches", [1, 3])
def test_two_labels(batches):
    """4 true positives, 3 true negatives, 2 false positives, 1 false negative; the second label is positive."""
    predicted, true = [1] * 4 + [0] * 3 + [1] * 2 + [0], [1] * 4 + [0] * 3 + [0] * 2 + [1]
    found = metrics_of(task_of("bad", "good"), predicted, true, batches)
    assert found["accuracy"] == pytest.approx(7 / 10)
    assert found["f1"] == pytest.approx(2 * 4 / (2 * 4 + 2 + 1))
    assert found["matthews"] == pytest.approx((4 * 3 - 2 * 1) / math.sqrt(6 * 5 * 5 * 4))


def test_three_labels_use_the_unweighted_mean_of_f1():
    predicted, true = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    found = metrics_of(task_of("a", "b", "c"), predicted, true)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["f1"] == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)


def test_one_predicted_label_has_a_matthews_coefficient_of_zero():
    assert metrics_of(task_of("bad", "good"), [1, 1, 1], [1, 0, 1])["matthews"] == 0


def test_loss_is_the_mean_cross_entropy_in_float32():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], dtype=torch.bfloat16)
    loss = task_of("bad", "good").loss(SimpleNamespace(logits=logits), {"labels": torch.tensor([1, 0])})
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=1e-2)


def test_decoding_gives_names_and_probabilities():
    logits = torch.tensor([[0.0, math.log(3)]])
    [row] = task_of("bad", "good").decode(SimpleNamespace(logits=logits), {})
    assert row["label"] == "good"
    assert row["scores"] == pytest.approx({"bad": 0.25, "good": 0.75})


@pytest.mark.parametrize("labels", [[], ["one"], ["same", "same"]])
def test_labels_that_cannot_be_told_apart_are_refused(labels):
    with pytest.raises(UserError, match="at least two, each once"):
        task_of(*labels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"monitor": "acc"}, "monitor is 'acc'"),
        ({"mode": "best"}, "mode 'best'"),
        ({"colour": "blue"}, "description of the task 'classification' is wrong: .*colour"),
    ],
)
def test_a_wrong_description_is_named(options, words):
    with pytest.raises(UserError, match=words):
        build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16} | options)


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="There is no task 'poetry'; the tasks are classification"):
        build_task({"type": "poetry"})
