"""LoRA against its authors' own package, which computes with our matrices."""

from functools import partial

import pytest
import torch
from plain_models import TEXTS, assert_equal_and_different_from_bare, plain_model

from peft_lightning.backbone import load_tokenizer
from peft_lightning.methods import LoRA
from peft_lightning.testing import Case

loralib = pytest.importorskip("loralib")
# Merged as soon as it is evaluated, it would have no gradients.
OPTIONS = {"r": 4, "lora_alpha": 6, "merge_weights": False}


def batch_of(directory):
    return dict(load_tokenizer(str(directory))(TEXTS, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_lora_of_single_maps(tiny, tmp_path, model_type):
    targets = ["query", "key", "value", "ffn_out"]
    method = Case(LoRA, tiny(model_type), tmp_path, {"rank": 4, "alpha": 6.0, "targets": targets}).trained()
    plain, bare = (plain_model(tiny, model_type, method) for _ in range(2))
    assert len(method.backbone.insertions) == 12
    for insertion in method.backbone.insertions:
        base = plain.get_submodule(insertion.site.path)
        theirs = loralib.Linear(base.in_features, base.out_features, **OPTIONS)
        theirs.weight, theirs.bias = base.weight, base.bias
        theirs.lora_A, theirs.lora_B = insertion.module.A, insertion.module.B
        plain.set_submodule(insertion.site.path, theirs)
    assert_equal_and_different_from_bare(method, plain, bare, batch_of(tiny(model_type)))


def test_lora_of_a_fused_map(tiny, tmp_path):
    """As in the authors' GPT-2: queries and values of one map that gives queries, keys and values."""
    method = Case(LoRA, tiny("gpt2"), tmp_path, {"rank": 4, "alpha": 6.0, "targets": ["query", "value"]}).trained()
    plain, bare = (plain_model(tiny, "gpt2", method) for _ in range(2))

    def join(module, inputs, query, value):
        module.lora_A, module.lora_B = torch.cat([query.A, value.A]), torch.cat([query.B, value.B])

    for number, layer in enumerate(plain.transformer.h):
        theirs = loralib.MergedLinear(32, 96, enable_lora=[True, False, True], fan_in_fan_out=True, **OPTIONS)
        theirs.weight, theirs.bias = layer.attn.c_attn.weight, layer.attn.c_attn.bias
        del theirs.lora_A, theirs.lora_B
        updates = {i.site.name: i.module for i in method.backbone.insertions if i.site.layer == number}
        theirs.register_forward_pre_hook(partial(join, **updates))
        layer.attn.c_attn = theirs
    assert_equal_and_different_from_bare(method, plain, bare, batch_of(tiny("gpt2")))
