"""Input prompts against plain transformers models that are given the embeddings by hand."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, DynamicCache

from peft_lightning.backbone import load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods import PromptTuning, PTuning, PTuningV2, load_adapter
from peft_lightning.modules import Prefix, Prompt
from peft_lightning.testing import TASK, Case

TEXTS = ["a good film", "it is the worst plot ever and it is dull"]


FRONT, FIRST, APART = (5, 0, 0), (0, 5, 0), (2, 1, 2)
DECODERS = ("gpt2", "opt", "llama")
ENCODERS_WITH_DECODERS = ("bart", "mbart", "t5")


@pytest.fixture(params=["bert", "roberta", "electra", "distilbert", "deberta-v2", *DECODERS])
def model_type(request):
    return request.param


def batch_of(directory):
    return dict(load_tokenizer(str(directory))(TEXTS, padding=True, return_tensors="pt"))


def joined(model, batch, prompt, template):
    """Embeddings and mask with the prompt in its places, and the numbers of the columns of the text, row by row."""
    table, pad = model.get_input_embeddings(), model.config.pad_token_id
    front, behind, _ = template
    rows, masks, columns = [], [], []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        real = table(ids[mask.bool()])
        parts = [
            prompt[:front],
            real[:1],
            prompt[front : front + behind],
            real[1:-1],
            prompt[front + behind :],
            real[-1:],
        ]
        padding = table(torch.full([len(ids) - len(real)], pad))
        rows.append(torch.cat([*parts, padding]))
        masks.append(torch.cat([torch.ones(len(real) + len(prompt)), torch.zeros(len(padding))]).long())
        last = len(real) + len(prompt) - 1
        columns.append([front, *range(front + 1 + behind, front + behind + len(real) - 1), last])
    return torch.stack(rows), torch.stack(masks), columns


def by_hand(directory, batch, prompt, template):
    """Hidden states of the real tokens of each row, when the prompt stands among them."""
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval().base_model
    embeddings, mask, columns = joined(model, batch, prompt, template)
    hidden = model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    return [states[where] for states, where in zip(hidden, columns, strict=True)]


@pytest.mark.parametrize(
    ("cls", "template"), [(PromptTuning, FRONT), (PTuning, FRONT), (PTuning, FIRST), (PTuning, APART)]
)
def test_the_layers_see_prompt_and_text_and_give_the_text(tiny, model_type, tmp_path, cls, template):
    options = {"prompt_length": 5} | ({"template": list(template)} if cls is PTuning else {})
    method = Case(cls, tiny(model_type), tmp_path, options).trained()
    batch = batch_of(tiny(model_type))
    prompt = method.backbone.insertions[0].module.virtual()
    with torch.no_grad():
        wanted = by_hand(tiny(model_type), batch, prompt, template)
        found = method.backbone.model.base_model(**batch).last_hidden_state
    assert found.shape[:2] == batch["input_ids"].shape
    for states, mask, theirs in zip(found, batch["attention_mask"].bool(), wanted, strict=True):
        torch.testing.assert_close(states[mask], theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("template", [FRONT, APART])
@pytest.mark.parametrize("model_type", ENCODERS_WITH_DECODERS)
def test_a_decoder_sees_the_prompt_of_its_encoder(tiny, model_type, tmp_path, template):
    method = Case(PTuning, tiny(model_type), tmp_path, {"prompt_length": 5, "template": list(template)}).trained()
    batch = batch_of(tiny(model_type))
    decoder = {"decoder_input_ids": batch["input_ids"].flip(1)}
    model = AutoModelForSequenceClassification.from_pretrained(tiny(model_type)).eval().base_model
    with torch.no_grad():
        prompt = method.backbone.insertions[0].module.virtual()
        embeddings, mask, _ = joined(model, batch, prompt, template)
        wanted = model(inputs_embeds=embeddings, attention_mask=mask, **decoder).last_hidden_state
        found = method.backbone.model.base_model(**batch, **decoder).last_hidden_state
        bare = model(**batch, **decoder).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (found - bare).abs().max() > 0.05


@pytest.mark.parametrize(("model_type", "first_position"), [("bert", 0), ("roberta", 2)])
def test_deep_prompts_together_with_an_input_prompt(tiny, tmp_path, model_type, first_position):
    """Against transformers' own cache of keys and values in front of `[P; X]`, all of which stands behind them."""
    options = {"prompt_length": 4, "input_prompt_length": 5}
    method = Case(PTuningV2, tiny(model_type), tmp_path, options).trained()
    batch = batch_of(tiny(model_type))
    modules = [insertion.module for insertion in method.backbone.insertions]
    [prompt] = [module for module in modules if isinstance(module, Prompt)]
    pairs = [module.virtual() for module in modules if isinstance(module, Prefix)]
    cache = DynamicCache([tuple(part.transpose(0, 1).expand(2, -1, -1, -1) for part in pair) for pair in pairs])
    model = AutoModelForSequenceClassification.from_pretrained(tiny(model_type)).eval().base_model
    with torch.no_grad():
        embeddings, mask, _ = joined(model, batch, prompt.virtual(), FRONT)
        positions = torch.arange(mask.shape[1]).expand_as(mask) + 4 + first_position
        seen = torch.cat([torch.ones(2, 4, dtype=torch.long), mask], 1)
        wanted = model(inputs_embeds=embeddings, attention_mask=seen, position_ids=positions, past_key_values=cache)
        found = method.backbone.model.base_model(**batch).last_hidden_state
        bare = model(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], wanted.last_hidden_state[:, 5:][real], atol=1e-5, rtol=0)
    assert (found - bare)[real].abs().max() > 0.05
    assert method.virtual_tokens == 4 + 5


def test_a_template_of_one_token_texts(tiny, tmp_path):
    """The first token is the last one too."""
    method = Case(PTuning, tiny(), tmp_path, {"prompt_length": 5, "template": [1, 2, 2]}).build()
    order = method.backbone.insertions[0].module.order(torch.tensor([[1, 0], [1, 1]]))
    assert order.tolist() == [[0, 3, 4, 5, 1, 2, 6], [0, 5, 1, 2, 3, 4, 6]]


def test_the_head_reads_the_true_first_token(tiny, tmp_path):
    method = Case(PromptTuning, tiny("roberta"), tmp_path, {"prompt_length": 5}).trained()
    batch = batch_of(tiny("roberta"))
    with torch.no_grad():
        hidden = by_hand(tiny("roberta"), batch, method.backbone.insertions[0].module.virtual(), FRONT)
        wanted = method.backbone.model.classifier(torch.stack([states[:1] for states in hidden]))
        torch.testing.assert_close(method(batch).logits, wanted, atol=1e-5, rtol=0)


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
        (PTuningV2, {"input_prompt_length": -1}, "input_prompt_length is -1"),
        (PTuning, {"prompt_length": 9, "template": [3, 3]}, r"template is \[3, 3\]; give three numbers .* the sum 9"),
        (PTuning, {"prompt_length": 9, "template": [3, 3, 4]}, r"template is \[3, 3, 4\]"),
        (PTuning, {"prompt_length": 9, "template": [10, -1, 0]}, r"template is \[10, -1, 0\]"),
        (PTuning, {"backbone_lr": 0.0}, "backbone_lr is 0.0"),
    ],
)
def test_impossible_options_are_named(tiny, tmp_path, cls, options, message):
    with pytest.raises(UserError, match=message):
        Case(cls, tiny(), tmp_path, options).build()
