"""Loss, metrics and generation of texts against independent computations."""

import copy
import random
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer

from peft_lightning.backbone import load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods import (
    FullFineTuning,
    Houlsby,
    LinearProbe,
    LoRA,
    LoReFT,
    PrefixTuning,
    PromptTuning,
    PTuningV2,
)
from peft_lightning.tasks import build_task
from peft_lightning.tasks.sequence_to_sequence import Answer
from peft_lightning.tasks.text_metrics import CorpusScore, bleu, bleu_no_diacritics, chrf, without_diacritics

TASK = {"type": "sequence_to_sequence", "max_length": 16, "max_target_length": 8, "metrics": ["rouge", "bleu"]}
METHODS = [
    (FullFineTuning, {}),
    (Houlsby, {"bottleneck": 4}),
    (LoRA, {"rank": 4}),
    (LoReFT, {}),
    (PrefixTuning, {"prompt_length": 3, "projection_size": 8}),
    (PTuningV2, {"prompt_length": 3, "shift_positions": False}),
    (PTuningV2, {"prompt_length": 3, "input_prompt_length": 2}),
    (PromptTuning, {"prompt_length": 3}),
]


def sentences(count, seed):
    draw = random.Random(seed)
    words = "the cats sat sitting on a mat in Iași, where 3.5 dogs barked. \n".split(" ")
    return [" ".join(draw.choices(words, k=draw.randint(3, 12))) for _ in range(count)]


PREDICTIONS, REFERENCES = sentences(23, 0), sentences(23, 1)


@pytest.fixture
def method_on(tiny):
    """A method with all that it trains drawn at random."""

    def build(method, model_type, **options):
        torch.manual_seed(0)
        built = method(backbone=str(tiny(model_type)), task=TASK, **options).eval()
        with torch.no_grad():
            for parameter in built.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.mean() > 0.5))
        return built

    return build


def batch_for(method):
    tokenizer = load_tokenizer(method.backbone.name)
    sources = tokenizer(["a good film", "the worst plot ever is it", "dull"], padding=True, return_tensors="pt")
    targets = tokenizer(["good", "the worst of it", "not so good"], padding=True, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    return {**sources, "labels": labels, "reference": ["good", "the worst of it", "not so good"]}


def scores_of(metric, parts):
    """What several devices give together: each counts a part, and torchmetrics adds up their states."""
    devices = [copy.deepcopy(metric) for _ in range(parts)]
    for number, device in enumerate(devices):
        device.update(PREDICTIONS[number::parts], REFERENCES[number::parts])
    total = copy.deepcopy(metric)
    total.sums = torch.stack([device.sums for device in devices]).sum(0)
    total._update_count = 1
    return total.compute().item()


@pytest.mark.parametrize("parts", [1, 4])
def test_corpus_scores_are_those_of_sacrebleu_over_the_whole_set(parts):
    whole = sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES])
    assert whole.score > 1
    assert scores_of(bleu(), parts) == pytest.approx(whole.score, rel=1e-6)
    assert scores_of(chrf(), parts) == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score, rel=1e-6)
    plain = [list(map(without_diacritics, texts)) for texts in (PREDICTIONS, REFERENCES)]
    expected = sacrebleu.corpus_bleu(plain[0], [plain[1]], tokenize="none", smooth_method="none", force=True)
    assert scores_of(bleu_no_diacritics(), parts) == pytest.approx(expected.score, rel=1e-6)


def test_romanian_loses_its_diacritics_and_nothing_else():
    text = "Şeful „ONU” și țara înțeleg: Crăciun, Iaşi & café."
    assert without_diacritics(text) == 'Seful " ONU " si tara inteleg : Craciun , Iasi & café .'


def test_rouge_is_the_mean_of_googles_in_any_batches_and_precision():
    task = build_task(TASK | {"metrics": ["rouge"]})
    metrics = task.metrics().to(torch.bfloat16)
    for at in range(0, 23, 5):
        answer = Answer(torch.empty(0), PREDICTIONS[at : at + 5])
        task.update(metrics, answer, {"reference": REFERENCES[at : at + 5]})
    found = {name: value.item() for name, value in metrics.compute().items()}
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score(r, p) for r, p in zip(REFERENCES, PREDICTIONS, strict=True)]
    assert found == {name: pytest.approx(100 * sum(s[name].fmeasure for s in scores) / 23, rel=1e-6) for name in found}
    assert set(found) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert found["rougeL"] != found["rougeLsum"]


def test_recipes_name_the_variants():
    recipes = build_task(TASK | {"metrics": ["rouge", "bleu", "bleu_no_diacritics"], "num_beams": 3}).recipes
    version = sacrebleu.__version__
    assert f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}" in recipes["bleu"]
    assert "diacritics removed" in recipes["bleu_no_diacritics"]
    assert "tok:none|smooth:none" in recipes["bleu_no_diacritics"]
    assert "Porter stemmer" in recipes["rougeL"]
    assert "sentences are lines, not split by nltk" in recipes["rougeLsum"]
    assert "num_beams 3" in recipes["generation"]
    assert isinstance(bleu(), CorpusScore)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_ignores_padding_and_spreads_the_smoothed_share(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 2, 3], [4, -100, -100]])
    surprise = -logits.log_softmax(-1)
    kept = [(0, 0), (0, 1), (0, 2), (1, 0)]
    expected = sum(
        (1 - smoothing) * surprise[i, t, labels[i, t]] + smoothing * surprise[i, t].mean() for i, t in kept
    ) / len(kept)
    task = build_task(TASK | {"label_smoothing": smoothing})
    assert torch.allclose(task.loss(SimpleNamespace(logits=logits), {"labels": labels}), expected)
    assert task.weight({"labels": labels}) == 4


@pytest.mark.parametrize("model_type", ["t5", "bart", "mbart"])
def test_the_tied_head_is_pretrained_and_stays_as_it_is(method_on, model_type):
    method = method_on(LoRA, model_type, rank=4)
    model = method.backbone.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert method.backbone.head == {}
    assert method.parameter_report.head == 0
    assert method.parameter_report.backbone == sum(p.numel() for p in method.backbone.pretrained.values())
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    batch = batch_for(method)
    method.task.loss(method(batch), batch).backward()
    optimizer.step()
    changed = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("inserted" in name for name in changed)


def test_a_method_of_the_head_alone_is_refused(tiny):
    with pytest.raises(UserError, match=r"LinearProbe would train nothing: .*choose another method"):
        LinearProbe(backbone=str(tiny("t5")), task=TASK)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_a_backbone_that_cannot_write_is_refused(tiny, model_type):
    with pytest.raises(UserError, match=f"is a {model_type} model, which .* one of the types bart, mbart, t5"):
        LoRA(backbone=str(tiny(model_type)), task=TASK)


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda value: getattr(value, "__name__", None))
@pytest.mark.parametrize("model_type", ["t5", "bart", "mbart"])
def test_generation_is_the_most_probable_token_each_time(method_on, model_type, method, options):
    """With the cache and without, with beams, and against the forward pass that training uses."""
    if model_type == "t5" and options.get("input_prompt_length"):
        options = options | {"shift_positions": False}
    method = method_on(method, model_type, **options)
    model, batch = method.backbone.model, batch_for(method)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def write(**changes):
        config = copy.deepcopy(model.generation_config)
        config.update(**method.task.generation | {"max_new_tokens": 6} | changes)
        return model.generate(**source, generation_config=config)

    greedy = write()
    assert torch.equal(greedy, write(use_cache=False))
    assert torch.equal(write(num_beams=3), write(num_beams=3, use_cache=False))
    with torch.no_grad():
        logits = method.backbone(**source, decoder_input_ids=greedy[:, :-1]).logits
    end = model.generation_config.eos_token_id
    for written, probable in zip(greedy.tolist(), logits.argmax(-1).tolist(), strict=True):
        # BART is configured to end its text at the last place that it has.
        length = written.index(end, 1) if end in written[1:-1] else len(written) - 2
        assert written[1 : length + 1] == probable[:length]


def test_a_pipeline_writes_what_evaluation_writes(method_on):
    method = method_on(PrefixTuning, "bart", prompt_length=3, projection_size=8)
    texts = ["a good film", "the worst plot ever is it", "dull"]
    expected = method.task.answer(method, batch_for(method)).texts
    assert any(expected)
    assert [row["prediction"] for row in method.pipeline()(texts)] == expected
    assert method.task.decode(Answer(torch.empty(0), ["a b"]), {}) == [{"prediction": "a b"}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_beams": 0}, "num_beams is 0; give at least 1"),
        ({"max_target_length": 1}, "max_target_length is 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"min_new_tokens": 9}, "min_new_tokens is 9, and at most 8 are written"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"metrics": ["meteor"]}, "metrics are .*'meteor'.*; give some of rouge, bleu, bleu_no_diacritics"),
        ({"metrics": []}, "metrics are"),
        ({"monitor": "accuracy"}, "monitor is 'accuracy'.*loss, .*rouge1"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        build_task(TASK | options)
