"""Each method against its formula as plain hooks on a plain transformers model, with weights that are not small."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from peft_lightning.backbone import load_tokenizer
from peft_lightning.methods import Houlsby, LoRA, LoReFT, PTuningV2
from peft_lightning.testing import Case

TEXTS = ["a good film", "it is the worst plot ever and it is dull"]
PATHS = {
    "bert": ("bert.encoder.layer", "attention.self", "attention.output.dropout", "output.dropout"),
    "roberta": ("roberta.encoder.layer", "attention.self", "attention.output.dropout", "output.dropout"),
    "electra": ("electra.encoder.layer", "attention.self", "attention.output.dropout", "output.dropout"),
    "distilbert": ("distilbert.transformer.layer", "attention", "attention.out_lin", "ffn.dropout"),
    "deberta-v2": ("deberta.encoder.layer", "attention.self", "attention.output.dropout", "output.dropout"),
}
QUERY_VALUE = {"distilbert": ("q_lin", "v_lin"), "deberta-v2": ("query_proj", "value_proj")}


@pytest.fixture(params=PATHS)
def model_type(request):
    return request.param


@pytest.fixture
def batch(tiny, model_type):
    return dict(load_tokenizer(str(tiny(model_type)))(TEXTS, padding=True, return_tensors="pt"))


def plain_model(tiny, model_type, method):
    """The unadapted transformers model with the method's head."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny(model_type), num_labels=3).eval()
    model.load_state_dict(method.backbone.head, strict=False)
    return model


def assert_equal_and_different_from_bare(method, plain, bare, batch):
    with torch.no_grad():
        found, wanted, untouched = method(batch).logits, plain(**batch).logits, bare(**batch).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (found - untouched).abs().max() > 0.05


def test_houlsby(tiny, model_type, batch, tmp_path):
    """Adapter(h) = h + W_up gelu(W_down h + b_down) + b_up behind both sub-layers, and the trained LayerNorms."""
    method = Case(Houlsby, tiny(model_type), tmp_path, {"bottleneck": 8}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    trained_norms = {name: method.backbone.pretrained[name] for name in method.backbone.roles}
    assert len(trained_norms) == 2 * (2 * 3 + (2 if model_type == "deberta-v2" else 1))
    plain.load_state_dict(trained_norms, strict=False)

    def adapter(module, inputs, output, weights):
        return output + F.linear(F.gelu(F.linear(output, weights[0], weights[1])), weights[2], weights[3])

    layers, _, *sites = PATHS[model_type]
    for insertion in method.backbone.insertions:
        weights = list(insertion.module.parameters())
        site = sites[0 if insertion.site.name == "attention_output" else 1]
        layer = plain.get_submodule(layers)[insertion.site.layer]
        layer.get_submodule(site).register_forward_hook(partial(adapter, weights=weights))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def test_lora(tiny, model_type, batch, tmp_path):
    """W x + b + (alpha / r) B A x on query and value."""
    method = Case(LoRA, tiny(model_type), tmp_path, {"rank": 4, "alpha": 6.0}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))

    def low_rank(module, inputs, output, a, b):
        return output + 6.0 / 4 * inputs[0] @ a.T @ b.T

    layers, attention, *_ = PATHS[model_type]
    names = dict(zip(("query", "value"), QUERY_VALUE.get(model_type, ("query", "value")), strict=True))
    for insertion in method.backbone.insertions:
        layer = plain.get_submodule(layers)[insertion.site.layer]
        hook = partial(low_rank, a=insertion.module.A, b=insertion.module.B)
        layer.get_submodule(f"{attention}.{names[insertion.site.name]}").register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize("model_type", [name for name in PATHS if name != "deberta-v2"])  # which takes no prefix
@pytest.mark.parametrize("shift", [True, False])
def test_ptuning_v2(tiny, model_type, batch, tmp_path, shift):
    """Attention over [P; tokens] written out as softmax(q k^T / sqrt(d_h)) v in place of transformers' attention."""
    options = {"prompt_length": 5, "shift_positions": shift}
    method = Case(PTuningV2, tiny(model_type), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    layers, attention, *_ = PATHS[model_type]
    q, k, v = ("q_lin", "k_lin", "v_lin") if model_type == "distilbert" else ("query", "key", "value")

    def split(tensor):
        return tensor.view(2, -1, 4, 8).transpose(1, 2)

    def attend(module, inputs, kwargs, output, prefix):
        hidden = inputs[0] if inputs else kwargs["hidden_states"]
        query, key, value = (split(getattr(module, name)(hidden)) for name in (q, k, v))
        key = torch.cat([prefix.key.transpose(0, 1).expand(2, -1, -1, -1), key], 2)
        value = torch.cat([prefix.value.transpose(0, 1).expand(2, -1, -1, -1), value], 2)
        seen = torch.cat([torch.ones(2, 5), batch["attention_mask"]], 1).bool()[:, None, None]
        weights = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        joined = (weights @ value).transpose(1, 2).reshape(2, -1, 32)
        return (module.out_lin(joined) if model_type == "distilbert" else joined), None

    for insertion in method.backbone.insertions:
        if insertion.site.layer is not None:
            layer = plain.get_submodule(layers)[insertion.site.layer]
            hook = partial(attend, prefix=insertion.module)
            layer.get_submodule(attention).register_forward_hook(hook, with_kwargs=True)
    if shift:
        table = plain.base_model.embeddings.position_embeddings
        table.register_forward_hook(lambda module, inputs, output: F.embedding(inputs[0] + 5, module.weight))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


def test_lora_on_the_fused_map_of_gpt2(tiny, tmp_path):
    """(alpha / r) B A x is added to the columns of key and value, in whatever order the targets are given."""
    options = {"rank": 4, "alpha": 6.0, "targets": ["value", "key"]}
    method = Case(LoRA, tiny("gpt2"), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, "gpt2", method) for _ in range(2))
    batch = dict(load_tokenizer(str(tiny("gpt2")))(TEXTS, padding=True, return_tensors="pt"))
    columns = {"key": slice(32, 64), "value": slice(64, 96)}

    def low_rank(module, inputs, output, a, b, where):
        changed = output.clone()
        changed[..., where] += 6.0 / 4 * inputs[0] @ a.T @ b.T
        return changed

    for insertion in method.backbone.insertions:
        hook = partial(low_rank, a=insertion.module.A, b=insertion.module.B, where=columns[insertion.site.name])
        plain.transformer.h[insertion.site.layer].attn.c_attn.register_forward_hook(hook)
    assert_equal_and_different_from_bare(method, plain, bare, batch)
    merged = method.merge().transformer.h[1].attn.c_attn.weight
    update = merged - bare.transformer.h[1].attn.c_attn.weight
    value, key = (i.module for i in method.backbone.insertions if i.site.layer == 1)
    assert torch.equal(update[:, :32], torch.zeros(32, 32))
    torch.testing.assert_close(update[:, 32:64], 1.5 * (key.B @ key.A).T)
    torch.testing.assert_close(update[:, 64:], 1.5 * (value.B @ value.A).T)


@pytest.mark.parametrize("model_type", ["gpt2", "mbart", "t5"])
def test_loreft_edits_what_leaves_the_layer(tiny, model_type, tmp_path):
    """h + R^T (W h + b - R h) at the first token behind every layer but the last, whose first token nobody reads."""
    method = Case(LoReFT, tiny(model_type), tmp_path, {"rank": 2}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    batch = dict(load_tokenizer(str(tiny(model_type)))(TEXTS, padding=True, return_tensors="pt"))

    def edit(module, inputs, output, part):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        first, rotation = hidden[:, 0].clone(), part.rotation()
        hidden[:, 0] = first + (part.linear(first) - first @ rotation.T) @ rotation
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    layers = [plain.get_submodule(layer.path) for layer in method.backbone.layers]
    assert len(method.backbone.insertions) == len(layers) - 1
    for insertion in method.backbone.insertions:
        layers[insertion.site.layer].register_forward_hook(partial(edit, part=insertion.module))
    assert_equal_and_different_from_bare(method, plain, bare, batch)


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_adapters_may_stand_at_cross_attention_too(tiny, model_type, tmp_path):
    case = Case(Houlsby, tiny(model_type), tmp_path, {"bottleneck": 8, "placement": ["cross_attention"]})
    adapter = 2 * 8 * 32 + 8 + 32
    assert case.build().parameter_report.method == 2 * adapter
    beside = case.trained(form="parallel")
    with beside.disabled():
        bare = beside(case.batch()).logits
    assert (beside(case.batch()).logits - bare).abs().max() > 0.01
