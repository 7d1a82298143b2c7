"""Methods that insert nothing: exactly which pretrained parameters they train, by their names in transformers."""

import pytest
import torch
from plain_models import PLACES, TEXTS, layer_of, plain_model

from peft_lightning.backbone import load_tokenizer
from peft_lightning.methods import BitFit, LayerNormTuning, TopLayers
from peft_lightning.testing import Case


def is_norm(name):
    return any(f"{kind}." in name for kind in ("LayerNorm", "layer_norm"))


CHOSEN = {
    "BitFit": (BitFit, {}, lambda name: name.endswith(".bias")),
    "BitFit of two maps": (
        BitFit,
        {"targets": ["query", "ffn_in"]},
        lambda name: name.endswith(
            ("query.bias", "query_proj.bias", "q_lin.bias", "intermediate.dense.bias", "lin1.bias")
        ),
    ),
    "TopLayers": (TopLayers, {"k": 2}, lambda name: layer_of(name) in (1, 2) or ".pooler." in name),
    "TopLayers without pooler": (TopLayers, {"k": 1, "train_pooler": False}, lambda name: layer_of(name) == 2),
    "TopLayers, all": (TopLayers, {"k": 3, "train_embeddings": True}, lambda name: True),
    "LayerNormTuning": (LayerNormTuning, {}, is_norm),
    "LayerNormTuning of scales in layers": (
        LayerNormTuning,
        {"biases": False, "embedding_norm": False},
        lambda name: is_norm(name) and name.endswith("weight") and layer_of(name) is not None,
    ),
}


@pytest.mark.parametrize("model_type", PLACES)
@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_trained_by_name(tiny, model_type, tmp_path, name):
    """Exactly these and what lies outside the base model; with their values a plain model computes the same."""
    kind, options, chosen = CHOSEN[name]
    batch = dict(load_tokenizer(str(tiny(model_type)))(TEXTS, padding=True, return_tensors="pt"))
    method = Case(kind, tiny(model_type), tmp_path, options).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    base = f"{plain.base_model_prefix}."
    wanted = {key for key, _ in plain.named_parameters() if not key.startswith(base) or chosen(key)}
    trained = {key: p for key, p in method.backbone.model.named_parameters() if p.requires_grad}
    assert trained.keys() == wanted
    plain.load_state_dict(trained, strict=False)
    with torch.no_grad():
        found, again, untouched = method(batch).logits, plain(**batch).logits, bare(**batch).logits
    assert torch.equal(found, again)
    assert (found - untouched).abs().max() > 0.05
