"""Regression: loss, correlations and decoding."""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch

from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task


def task():
    return build_task({"type": "regression", "max_length": 16})


def output(scores):
    return SimpleNamespace(logits=torch.tensor(scores)[:, None])


def test_correlations_over_batches_are_those_of_pandas():
    draw = np.random.default_rng(0)
    found = draw.normal(size=40).astype("float32")
    wanted = (found + draw.normal(size=40)).round().astype("float32")  # rounded, so that there are ties
    metrics = task().metrics()
    for part in (slice(0, 25), slice(25, 40)):
        task().update(metrics, output(found[part]), {"labels": torch.tensor(wanted[part])})
    values = {name: value.item() for name, value in metrics.compute().items()}
    table = pandas.DataFrame({"found": found, "wanted": wanted})
    for name in ("pearson", "spearman"):
        assert values[name] == pytest.approx(table.corr(method=name).loc["found", "wanted"], abs=1e-6)
    metrics.reset()
    task().update(metrics, output(found), {"labels": torch.tensor(found)})
    assert metrics.compute()["pearson"] == pytest.approx(1.0)


def test_one_answer_to_everything_correlates_with_nothing():
    metrics = task().metrics()
    task().update(metrics, output([1.0, 1.0]), {"labels": torch.tensor([0.0, 5.0])})
    assert {name: value.item() for name, value in metrics.compute().items()} == {"pearson": 0.0, "spearman": 0.0}


def test_loss_is_the_mean_squared_error_and_scores_are_decoded():
    found = output([1.0, 3.0])
    assert task().loss(found, {"labels": torch.tensor([2.0, 1.0])}).item() == pytest.approx((1 + 4) / 2)
    assert task().decode(found, {}) == [{"score": 1.0}, {"score": 3.0}]


def test_monitors_are_its_metrics():
    with pytest.raises(UserError, match="monitor is 'accuracy'"):
        build_task({"type": "regression", "max_length": 16, "monitor": "accuracy"})
