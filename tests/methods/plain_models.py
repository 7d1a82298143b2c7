"""Plain transformers models to compare methods with, and where their parts are, written down once more."""

import torch
from transformers import AutoModelForSequenceClassification

TEXTS = ["a good film", "it is the worst plot ever and it is dull"]
BERT = {
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dropout",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_out": "output.dense",
    "ffn_output": "output.dropout",
    "ffn_norm": "output.LayerNorm",
}
DISTILBERT = {
    "attention": "attention",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "ffn_out": "ffn.lin2",
    "ffn_output": "ffn.dropout",
    "ffn_norm": "output_layer_norm",
}
DEBERTA = BERT | {name: f"attention.self.{name}_proj" for name in ("query", "key", "value")}
PLACES = {
    "bert": ("bert.encoder.layer", BERT),
    "roberta": ("roberta.encoder.layer", BERT),
    "electra": ("electra.encoder.layer", BERT),
    "distilbert": ("distilbert.transformer.layer", DISTILBERT),
    "deberta-v2": ("deberta.encoder.layer", DEBERTA),
}


def plain_model(tiny, model_type, method):
    """The unadapted transformers model with the method's head."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny(model_type), num_labels=3).eval()
    model.load_state_dict(method.backbone.head, strict=False)
    return model


def part(plain, model_type, layer, name):
    """The module of a plain model that has this name in one of its layers."""
    layers, places = PLACES[model_type]
    return plain.get_submodule(f"{layers}.{layer}.{places[name]}")


def part_at(plain, model_type, insertion):
    return part(plain, model_type, insertion.site.layer, insertion.site.name)


def assert_equal_and_different_from_bare(method, plain, bare, batch):
    """Logits in single precision; the gradients of what was inserted in double, where small ones say something."""
    with torch.no_grad():
        found, wanted, untouched = method(batch).logits, plain(**batch).logits, bare(**batch).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert (found - untouched).abs().max() > 0.05
    method.double()
    plain.double()
    inserted = list({id(p): p for i in method.backbone.insertions for p in i.module.parameters()}.values())
    found, wanted = (
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(logits.square().sum(), inserted)])
        for logits in (method(batch).logits, plain(**batch).logits)
    )
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-9 * float(wanted.abs().max()), rtol=1e-6)


def layer_of(name):
    """The number in `...layer.2...`, or None."""
    number = name.partition(".layer.")[2].partition(".")[0]
    return int(number) if number else None
