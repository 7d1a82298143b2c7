"""Input prompts against plain transformers models that are given the embeddings by hand."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from peft_lightning.backbone import load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods import PromptTuning, PTuning, load_adapter
from peft_lightning.testing import TASK, Case

TEXTS = ["a good film", "it is the worst plot ever and it is dull"]


@pytest.fixture(params=["bert", "roberta", "electra", "distilbert", "deberta-v2"])
def model_type(request):
    return request.param


def batch_of(directory):
    return dict(load_tokenizer(str(directory))(TEXTS, padding=True, return_tensors="pt"))


def by_hand(directory, batch, prompt, offset):
    """Hidden states of the real tokens, when `prompt` stands behind `offset` of them."""
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval().base_model
    embeddings = model.get_input_embeddings()(batch["input_ids"])
    virtual = prompt.expand(2, -1, -1)
    mask = torch.cat([torch.ones(2, len(prompt), dtype=torch.long), batch["attention_mask"]], 1)
    joined = torch.cat([embeddings[:, :offset], virtual, embeddings[:, offset:]], 1)
    hidden = model(inputs_embeds=joined, attention_mask=mask).last_hidden_state
    return torch.cat([hidden[:, :offset], hidden[:, offset + len(prompt) :]], 1)


@pytest.mark.parametrize(("cls", "position"), [(PromptTuning, "front"), (PTuning, "front"), (PTuning, "after_first")])
def test_the_layers_see_prompt_and_text_and_give_the_text(tiny, model_type, tmp_path, cls, position):
    options = {"prompt_length": 5} | ({"position": position} if cls is PTuning else {})
    method = Case(cls, tiny(model_type), tmp_path, options).trained()
    batch = batch_of(tiny(model_type))
    prompt = method.backbone.insertions[0].module.virtual()
    with torch.no_grad():
        wanted = by_hand(tiny(model_type), batch, prompt, 1 if position == "after_first" else 0)
        found = method.backbone.model.base_model(**batch).last_hidden_state
    assert found.shape == wanted.shape
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], atol=1e-5, rtol=0)


def test_the_head_reads_the_true_first_token(tiny, tmp_path):
    method = Case(PromptTuning, tiny("roberta"), tmp_path, {"prompt_length": 5}).trained()
    batch = batch_of(tiny("roberta"))
    with torch.no_grad():
        hidden = by_hand(tiny("roberta"), batch, method.backbone.insertions[0].module.virtual(), 0)
        torch.testing.assert_close(method(batch).logits, method.backbone.model.classifier(hidden), atol=1e-5, rtol=0)


def test_a_prompt_may_start_at_the_label_names(tiny, tmp_path):
    method = Case(PromptTuning, tiny(), tmp_path, {"prompt_length": 5}).build()
    tokenizer, table = load_tokenizer(str(tiny())), method.backbone.word_embeddings
    start = method.backbone.insertions[0].module.virtual()
    for row, label in enumerate(TASK["labels"]):
        tokens = tokenizer(label, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(start[row], table[tokens].mean(0))
    special = table[tokenizer.all_special_ids]
    for row in start[len(TASK["labels"]) :]:
        assert (table == row).all(1).any()
        assert not (special == row).all(1).any()


def test_uniform_prompts_lie_between_minus_and_plus_a_half(tiny, tmp_path):
    method = Case(PromptTuning, tiny(), tmp_path, {"prompt_length": 40, "init": "uniform"}).build()
    start = method.backbone.insertions[0].module.virtual()
    assert start.abs().max() <= 0.5
    assert start.std().item() == pytest.approx(1 / 12**0.5, rel=0.05)


def test_the_network_of_a_prompt_stays_in_checkpoints_and_is_left_out_of_adapters(tiny, tmp_path):
    method = Case(PTuning, tiny(), tmp_path, {"prompt_length": 5}).trained()
    batch = batch_of(tiny())
    assert any("lstm" in name for name in method.trained_state())
    loaded = load_adapter(method.save_adapter(tmp_path / "adapter"))
    assert loaded.parameter_report.method == 5 * 32
    with torch.no_grad():
        assert torch.equal(loaded(batch).logits, method(batch).logits)


def test_the_backbone_may_learn_at_its_own_rate(tiny, tmp_path):
    method = Case(PTuning, tiny(), tmp_path, {"prompt_length": 5, "lr": 1e-2, "backbone_lr": 1e-4}).build()
    ratios = method.learning_rate_ratios()
    assert {id(p) for p in ratios} == {id(p) for p in method.backbone.pretrained.values()}
    assert list(ratios.values()) == pytest.approx([1e-2] * len(ratios))


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (PromptTuning, {"prompt_length": 0}, "prompt_length is 0"),
        (PTuning, {"prompt_length": 0}, "prompt_length is 0"),
        (PTuning, {"hidden": 0}, "hidden is 0"),
        (PTuning, {"backbone_lr": 0.0}, "backbone_lr is 0.0"),
    ],
)
def test_impossible_options_are_named(tiny, tmp_path, cls, options, message):
    with pytest.raises(UserError, match=message):
        Case(cls, tiny(), tmp_path, options).build()
