"""Exact match, F1, best spans, thresholds and losses against numbers worked out by hand and against other programs."""

import itertools
import math
import random

import pytest
import torch
from torchmetrics.functional.text import squad as torchmetrics_squad
from transformers import AutoModelForQuestionAnswering
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from peft_lightning.backbone import load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods import LoRA, PromptTuning, PTuning
from peft_lightning.tasks import build_task
from peft_lightning.tasks.answer_metrics import Judged, PerQuestion, best_of, mean_of
from peft_lightning.tasks.answers import exact_match, f1, normalised
from peft_lightning.tasks.spans import best_spans

DESCRIPTION = {"type": "question_answering", "max_length": 24}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  Cat,\tsat.", "cat sat"),
        ("an A-frame", "aframe"),  # punctuation goes first, so that this "a" is no word any more
        ("a.n. other", "other"),  # and this one is a word only now
        ("theatre at the end", "theatre at end"),
        ("“The” end…", "“ ” end…"),  # beyond ASCII nothing is punctuation, but borders of words are
        ("A\u00a0B\u2003C", "b c"),
        ("STRASSE straße İ", "strasse straße i̇"),
        ("$1,000.50 (US)", "100050 us"),
        ("the a an", ""),
        ("the_end", "theend"),
        ("", ""),
    ],
)
def test_normalisation(text, wanted):
    assert normalised(text) == wanted


@pytest.mark.parametrize(
    ("answer", "gold", "wanted_1", "wanted_2"),
    [
        # answer, gold answers, (exact match, F1) in version 1.1 and in version 2.0
        ("The Broncos!", ["broncos"], (1, 1.0), (1, 1.0)),
        ("Denver Broncos", ["Broncos", "the Denver team"], (0, 2 / 3), (0, 2 / 3)),
        ("the the cat cat", ["cat"], (0, 2 / 3), (0, 2 / 3)),
        ("cat cat dog", ["cat dog dog"], (0, 2 / 3), (0, 2 / 3)),
        ("a", ["the"], (1, 0.0), (1, 1.0)),
        ("", ["the", "cat"], (1, 0.0), (0, 0.0)),
        ("cat", ["the", "dog"], (0, 0.0), (0, 0.0)),
        ("", [], None, (1, 1.0)),
        ("the", [], None, (1, 1.0)),
        ("cat", [], None, (0, 0.0)),
        ("—", ["-"], (0, 0.0), (0, 0.0)),
    ],
)
def test_hard_cases(answer, gold, wanted_1, wanted_2):
    for no_answer, wanted in ((False, wanted_1), (True, wanted_2)):
        if wanted is not None:
            assert exact_match(answer, gold, no_answer) == wanted[0]
            assert f1(answer, gold, no_answer) == pytest.approx(wanted[1], abs=1e-15)


def test_scores_are_those_of_torchmetrics():
    """Whose F1 of two texts without words is that of version 2.0; here every text has some."""
    draw = random.Random(0)
    words = ["The", "cat", "a", "Dog,", "ö", "don't", "--", "1,5", "an", "X.", "sat"]

    def text():
        return " ".join(["cat", *draw.choices(words, k=draw.randint(0, 4))])[draw.randint(0, 3) :] + " sat"

    for _ in range(200):
        answer, gold = text(), [text() for _ in range(draw.randint(1, 3))]
        wanted = torchmetrics_squad(
            {"id": "1", "prediction_text": answer},
            {"id": "1", "answers": {"text": gold, "answer_start": [0] * len(gold)}},
        )
        for no_answer in (False, True):
            assert 100 * exact_match(answer, gold, no_answer) == wanted["exact_match"]
            assert 100 * f1(answer, gold, no_answer) == pytest.approx(wanted["f1"].item(), rel=1e-6)


def judged_questions(count, seed=0):
    draw = random.Random(seed)
    rows = []
    for row in range(count):
        has, null_odds = draw.random() < 0.85, draw.gauss(0, 1)
        best_f1 = draw.choice([0.0, 1 / 3, 0.7, 1.0]) if has else 0.0
        given = null_odds <= 0
        kept = best_f1 if has else 1.0
        score = (best_f1 if given else 0.0) if has else (0.0 if given else kept)
        rows.append(Judged(row, has, int(score == 1), score, int(best_f1 == 1), best_f1, null_odds, False))
    return rows


def computed(rows, size):
    metrics = build_task(DESCRIPTION | {"no_answer": True}).metrics()
    for at in range(0, len(rows), size):
        metrics.update(rows[at : at + size])
    return {name: value.item() for name, value in metrics.compute().items()}


def test_the_best_threshold_is_the_best_of_all():
    rows = judged_questions(40)
    found = computed(rows, 7)
    for kind in ("exact_match", "f1"):
        by_threshold = {
            limit: 100
            / len(rows)
            * sum(
                (getattr(row, f"best_{kind}") if row.no_answer <= limit else 0.0)
                if row.has_answer
                else float(row.no_answer > limit)
                for row in rows
            )
            for limit in [-math.inf, *(row.no_answer for row in rows)]
        }
        assert found[f"best_{kind}"] == pytest.approx(max(by_threshold.values()))
        assert by_threshold[found[f"best_{kind}_threshold"]] == pytest.approx(found[f"best_{kind}"])


def test_where_no_answer_at_all_is_best_the_threshold_is_zero_as_in_the_evaluator():
    rows = [Judged(0, True, 0, 0.0, 0, 0.0, -2.0, False), Judged(1, False, 0, 0.0, 0, 0.0, -1.0, False)]
    found = computed(rows, 2)
    assert (found["best_f1"], found["best_f1_threshold"]) == (50.0, 0.0)


def test_kinds_of_questions_are_counted_apart():
    rows = judged_questions(40)
    found = computed(rows, 40)
    for name, counted in (
        ("f1", rows),
        ("has_answer_f1", [row for row in rows if row.has_answer]),
        ("no_answer_f1", [row for row in rows if not row.has_answer]),
    ):
        assert found[name] == 100.0 * sum(row.f1 for row in counted) / len(counted)
    assert math.isnan(computed([row for row in rows if row.has_answer], 9)["no_answer_f1"])


def test_the_order_of_batches_changes_no_digit():
    rows = judged_questions(60)
    assert computed(rows, 60) == computed(random.Random(1).sample(rows, 60), 7)


@pytest.mark.parametrize("number", [mean_of("f1"), best_of("best_f1"), best_of("best_f1", threshold=True)])
def test_two_devices_give_the_digits_of_one(number):
    rows = judged_questions(41)
    alone, second = PerQuestion(number), PerQuestion(number)
    alone.update(rows)
    second.update(rows[1::2])
    first = PerQuestion(
        number,
        dist_sync_fn=lambda mine, group: [mine, torch.cat(second.judged)],
        distributed_available_fn=lambda: True,
    )
    first.update(rows[:10:2])
    first.update(rows[10::2])
    assert first.compute() == alone.compute()


def random_windows(seed=0, windows=3, length=14):
    """Logits and places of windows with 4 tokens before the context and padding behind it."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, windows, length, generator=generator)
    starts = torch.full((windows, length), -1)
    for window in range(windows):
        width = length - 5 - window
        starts[window, 4 : 4 + width] = torch.arange(width) * 3 + window * 3
    ends = torch.where(starts >= 0, starts + 2, -1)
    return logits[0], logits[1], starts, ends


def test_best_spans_are_the_best_of_all():
    first, last, starts, ends = random_windows()
    found = best_spans(first, last, starts, ends, count=6, longest=4)
    for window in range(3):
        inside = [at for at in range(14) if starts[window, at] >= 0]
        spans = {
            (int(starts[window, a]), int(ends[window, b])): float(first[window, a] + last[window, b])
            for a, b in itertools.product(inside, inside)
            if a <= b < a + 4
        }
        wanted = sorted(spans, key=spans.__getitem__, reverse=True)[:6]
        assert [(span.start, span.end) for span in found[window]] == wanted
        assert [span.score for span in found[window]] == pytest.approx([spans[key] for key in wanted])


def test_fewer_spans_than_asked_for_and_answers_longer_than_the_window():
    first, last, starts, ends = random_windows()
    starts[:, 6:], ends[:, 6:] = -1, -1
    found = best_spans(first, last, starts, ends, count=50, longest=30)
    assert [len(spans) for spans in found] == [3, 3, 3]


CONTEXT = " ".join(f"w{number}" for number in range(10))  # tokens of two characters, three apart


def question(null=(0.0, 0.0), gold=("w2 w3",), **marks):
    """One question of two windows over CONTEXT whose tokens are at the same places; marks are logits by position."""
    starts = torch.full((2, 14), -1)
    starts[:, 2:12] = torch.arange(10) * 3
    logits = torch.full((2, 2, 14), -5.0)
    logits[:, :, 0] = torch.tensor(null)[:, None]
    for name, (window, at, value) in marks.items():
        logits[0 if name.startswith("start") else 1, window, at] = value
    batch = {
        "input_ids": torch.zeros(2, 14),
        "attention_mask": torch.ones(2, 14),
        "window_counts": torch.tensor([2]),
        "starts": starts,
        "ends": torch.where(starts >= 0, starts + 2, -1),
        "row": torch.tensor([1]),
        "id": ["q"],
        "context": [CONTEXT],
        "answers": [list(gold)],
    }
    return QuestionAnsweringModelOutput(start_logits=logits[0], end_logits=logits[1]), batch


def test_the_answer_is_the_best_span_of_all_windows():
    output, batch = question(start_1=(0, 4, 1.0), end_1=(0, 5, 1.0), start_2=(1, 6, 2.0), end_2=(1, 7, 3.0))
    [row] = build_task(DESCRIPTION).decode(output, batch)
    assert (row["id"], row["answer"]) == ("q", "w4 w5")
    assert row.keys() == {"id", "answer", "score", "nbest"}
    first, second = row["nbest"][:2]
    assert (first["text"], first["start"], first["start_logit"], first["end_logit"]) == ("w4 w5", 12, 2.0, 3.0)
    assert second["text"] == "w2 w3"
    assert first["probability"] == row["score"] == pytest.approx(second["probability"] * math.exp(3))
    # A span that both windows show is listed once.
    assert len({entry["start"] for entry in row["nbest"] if entry["text"] == "w4 w5"}) == 1
    assert len(row["nbest"]) == len({entry["text"] for entry in row["nbest"]}) == 20


@pytest.mark.parametrize(("threshold", "answer"), [(0.0, ""), (0.99, ""), (1.0, "w2 w3"), (2.0, "w2 w3")])
def test_no_answer_wins_by_more_than_the_threshold(threshold, answer):
    """The lowest score of "no answer" in any window counts: 3, against 2 of the span."""
    output, batch = question(null=(2.0, 2.0), start_1=(0, 4, 1.0), end_1=(0, 5, 1.0))
    output.start_logits[1, 0] = 1.0
    task = build_task(DESCRIPTION | {"no_answer": True, "null_score_diff_threshold": threshold})
    [row] = task.decode(output, batch)
    assert (row["answer"], row["best"], row["null_odds"]) == (answer, "w2 w3", 1.0)
    metrics = task.metrics()
    task.update(metrics, output, batch)
    found = metrics.compute()
    assert found["exact_match"] == found["has_answer_f1"] == (100 if answer else 0)
    assert (found["best_f1"], found["best_f1_threshold"]) == (100, 1.0)


def test_loss_is_half_of_both_cross_entropies_and_leaves_padding_out():
    task = build_task(DESCRIPTION)
    batch = {
        "input_ids": torch.zeros(2, 4),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        "start_positions": torch.tensor([1, 0]),
        "end_positions": torch.tensor([2, 0]),
    }
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0], [1.0, 1.0, 1.0, 1.0]])
    output = QuestionAnsweringModelOutput(start_logits=logits, end_logits=logits.bfloat16())
    total = math.log(1 + math.e + math.e**2)
    each = [(total - 1 + total - 2) / 2, math.log(4)]
    assert task.loss(output, batch).item() == pytest.approx(sum(each) / 2)
    # Evaluation: a mean over questions, each the mean of its windows.
    assert task.loss(output, batch | {"window_counts": torch.tensor([2])}).item() == pytest.approx(sum(each) / 2)
    assert task.loss(output, batch | {"window_counts": torch.tensor([1, 1])}).item() == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"monitor": "accuracy"}, "monitor is 'accuracy'"), ({"monitor": "best_f1"}, "monitor is 'best_f1'")],
)
def test_a_metric_that_is_none_of_the_task_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        build_task(DESCRIPTION | options)


# On models

PAIRS = [("is it good", "a good film"), ("so is the plot dull", "it is the worst plot ever and it is dull")]


def model_batch(directory):
    batch = dict(load_tokenizer(str(directory))(*zip(*PAIRS, strict=True), padding=True, return_tensors="pt"))
    return batch | {"start_positions": torch.tensor([5, 7]), "end_positions": torch.tensor([6, 9])}


def test_windows_are_computed_in_parts(tiny):
    batch = model_batch(tiny())
    batch = {name: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for name, tensor in batch.items()}
    sizes = []

    def run(windows):
        method = LoRA(backbone=str(tiny()), task=DESCRIPTION | {"windows_at_once": windows}).eval()
        sizes.clear()
        method.backbone.model.register_forward_pre_hook(
            lambda module, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
        )
        return method.task.answer(method, batch)

    with torch.no_grad():
        torch.manual_seed(0)
        whole = run(6)
        assert sizes == [6]
        torch.manual_seed(0)
        parts = run(4)
        assert sizes == [4, 2]
    torch.testing.assert_close(parts.start_logits, whole.start_logits)
    torch.testing.assert_close(parts.end_logits, whole.end_logits)


@pytest.mark.parametrize("cls", [PromptTuning, PTuning])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_positions_stay_those_of_the_text_beside_an_input_prompt(tiny, model_type, cls):
    """Against transformers' own model, loss included, on `[P; X]` with positions moved by the length of P."""
    length = 5
    torch.manual_seed(0)
    method = cls(backbone=str(tiny(model_type)), task=DESCRIPTION, prompt_length=length).eval()
    batch = model_batch(tiny(model_type))
    model = AutoModelForQuestionAnswering.from_pretrained(tiny(model_type), num_labels=2).eval()
    model.qa_outputs.load_state_dict(method.backbone.model.qa_outputs.state_dict())
    prompt = method.backbone.insertions[0].module.virtual()
    mask = batch["attention_mask"]
    inputs = {
        "inputs_embeds": torch.cat([prompt.expand(2, -1, -1), model.get_input_embeddings()(batch["input_ids"])], 1),
        "attention_mask": torch.cat([mask.new_ones(2, length), mask], 1),
    }
    if "token_type_ids" in batch:
        types = batch["token_type_ids"]
        inputs["token_type_ids"] = torch.cat([types.new_zeros(2, length), types], 1)
    with torch.no_grad():
        wanted = model(**inputs)
        found = method(batch)
    real = mask.bool()
    for name in ("start", "end"):
        ours, theirs = found[f"{name}_logits"], wanted[f"{name}_logits"]
        assert ours.shape == batch["input_ids"].shape
        torch.testing.assert_close(ours[real], theirs[:, length:][real], atol=1e-5, rtol=0)
    by_hand = [
        torch.nn.functional.cross_entropy(wanted[f"{name}_logits"][row, length:][real[row]], position)
        for name in ("start", "end")
        for row, position in enumerate(batch[f"{name}_positions"])
    ]
    torch.testing.assert_close(method.task.loss(found, batch), sum(by_hand) / 4, atol=1e-5, rtol=0)


def test_t5_answers_with_the_states_of_its_decoder(tiny):
    """Its model for questions is its own base, which must not make the new head a lost part of the pretrained model."""
    torch.manual_seed(0)
    method = LoRA(backbone=str(tiny("t5")), task=DESCRIPTION).eval()
    assert set(method.backbone.head) == {"qa_outputs.weight", "qa_outputs.bias"}
    model = AutoModelForQuestionAnswering.from_pretrained(tiny("t5"), num_labels=2).eval()
    model.qa_outputs.load_state_dict(method.backbone.model.qa_outputs.state_dict())
    batch = model_batch(tiny("t5"))
    with torch.no_grad():
        found, wanted = method(batch), model(**method.task.inputs(batch))
    torch.testing.assert_close(found.start_logits, wanted.start_logits)
    torch.testing.assert_close(found.end_logits, wanted.end_logits)


def test_there_is_no_pipeline(tiny):
    method = LoRA(backbone=str(tiny()), task=DESCRIPTION)
    with pytest.raises(UserError, match=r"no pipeline for question answering .* predict --data.source"):
        method.pipeline()
