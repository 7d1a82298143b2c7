"""Scores of choices against one choice at a time, with every kind of method."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from peft_lightning import methods
from peft_lightning.backbone import load_tokenizer
from peft_lightning.data.choices import ChoiceCollator
from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task

TASK = {"type": "multiple_choice", "choices": 3, "max_length": 24}
ROWS = [
    ("the film", ["was great", "was a very dull story", "is"]),
    ("a good plot and a good story", ["makes a film", "the worst", "the best of all films"]),
]


def rows_of(tokenizer):
    rows = []
    for number, (text, choices) in enumerate(ROWS):
        rows.append({**tokenizer([text] * len(choices), choices), "label": number})
    return rows


MODELS = ("Houlsby", "PromptTuning", "PTuning", "PTuningV2", "LoReFT")
MODEL_TYPES = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "xlm-roberta")
# DeBERTa takes no prefixes, and says so: tests/methods/test_conformance.py.
PAIRS = [pair for pair in product(MODEL_TYPES, MODELS) if pair != ("deberta-v2", "PTuningV2")]


@pytest.mark.parametrize(("model_type", "model"), PAIRS)
def test_scores_are_those_of_each_choice_alone_without_padding(tiny, model_type, model):
    options = {"LoReFT": {"last_positions": 1}, "PTuning": {"template": [2, 2, 1]}}.get(model, {})
    options |= {"prompt_length": 5} if model in ("PromptTuning", "PTuning", "PTuningV2") else {}
    torch.manual_seed(0)
    method = getattr(methods, model)(task=TASK, backbone=str(tiny(model_type)), **options).eval()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    tokenizer = load_tokenizer(str(tiny(model_type)))
    batch = ChoiceCollator(tokenizer)(rows_of(tokenizer))
    with torch.no_grad():
        together = method(batch).logits
        for row, (text, choices) in enumerate(ROWS):
            for column, choice in enumerate(choices):
                alone = tokenizer([text], [choice], return_tensors="pt")
                inputs = {name: tensor[None] for name, tensor in alone.items()}
                assert method(inputs).logits.item() == pytest.approx(together[row, column].item(), abs=1e-4)


def test_loss_and_accuracy_by_hand():
    task = build_task(TASK)
    output = SimpleNamespace(logits=torch.tensor([[0.0, math.log(2), 0.0], [math.log(2), 0.0, 0.0]]))
    batch = {"labels": torch.tensor([1, 2]), "input_ids": torch.zeros(2, 3, 4)}
    assert task.loss(output, batch).item() == pytest.approx((math.log(4 / 2) + math.log(4)) / 2)
    metrics = task.metrics()
    task.update(metrics, output, batch)
    assert metrics.compute() == {"accuracy": 0.5}
    assert task.size(batch) == 2
    [first, _] = task.decode(output, batch)
    assert first["label"] == 1
    assert first["scores"] == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize(
    ("options", "words"), [({"choices": 1}, "choices is 1"), ({"monitor": "f1"}, "monitor is 'f1'")]
)
def test_a_wrong_description_is_named(options, words):
    with pytest.raises(UserError, match=words):
        build_task(TASK | options)


def test_there_is_no_pipeline(tiny):
    method = methods.LinearProbe(task=TASK, backbone=str(tiny()))
    with pytest.raises(UserError, match="no pipeline for multiple choice"):
        method.pipeline()
