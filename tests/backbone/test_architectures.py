"""The table says where things are, and the things are there."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from peft_lightning.backbone import ARCHITECTURES, Backbone
from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task
from peft_lightning.testing import MODEL_TYPES, save_tiny_backbone

TASK = build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16})
SIZES = {
    **dict.fromkeys(("query", "key", "value", "attention_dense"), (32, 32)),
    "ffn_in": (32, 48),
    "ffn_out": (48, 32),
}


def test_every_row_has_a_tiny_model():
    assert set(MODEL_TYPES) == set(ARCHITECTURES)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_site_of_every_layer_resolves_to_the_right_kind_of_module(model_type, tiny):
    backbone = Backbone(str(tiny(model_type)), TASK)
    assert [layer.index for layer in backbone.layers] == [0, 1, 2]
    for layer in backbone.layers:
        for name, site in layer.sites.items():
            module = backbone.module_at(site)
            if name in SIZES:
                assert (module.in_features, module.out_features) == SIZES[name]
            if name.endswith("_norm"):
                assert isinstance(module, nn.LayerNorm)
    assert isinstance(backbone.module_at(backbone.embedding_site("word_embeddings")), nn.Embedding)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_output_sites_see_what_is_added_to_the_residual(model_type, tiny):
    """What leaves an output site, plus the sub-layer's input, is what enters the LayerNorm behind it."""
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    seen = {}
    for layer in backbone.layers:
        for place in ("attention", "ffn"):
            output, norm = layer.sites[f"{place}_output"], layer.sites[f"{place}_norm"]
            backbone.module_at(output).register_forward_hook(
                lambda module, inputs, result, key=(layer.index, place): seen.__setitem__(key, [result])
            )
            backbone.module_at(norm).register_forward_hook(
                lambda module, inputs, result, key=(layer.index, place): seen[key].extend([inputs[0], result])
            )
    with torch.no_grad():
        backbone(input_ids=torch.tensor([[1, 5, 6, 7, 2]]))
    for index in range(3):
        _, _, attended = seen[index, "attention"]
        output, summed, _ = seen[index, "ffn"]
        torch.testing.assert_close(output + attended, summed)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_layer_norms_are_all_of_the_backbone(model_type, tiny):
    backbone = Backbone(str(tiny(model_type)), TASK)
    everywhere = {id(m) for m in backbone.model.base_model.modules() if isinstance(m, nn.LayerNorm)}
    assert {id(norm) for norm in backbone.layer_norms} == everywhere


def test_the_convolution_of_large_deberta_models_has_a_layer_norm_too(tmp_path):
    backbone = Backbone(str(save_tiny_backbone("deberta-v2", tmp_path, conv_kernel_size=3, conv_act="gelu")), TASK)
    everywhere = {id(m) for m in backbone.model.base_model.modules() if isinstance(m, nn.LayerNorm)}
    assert len(everywhere) == 2 * 3 + 3
    assert {id(norm) for norm in backbone.layer_norms} == everywhere


def test_unknown_architecture_names_the_type_the_known_ones_and_the_table(tmp_path):
    GPT2Model(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=9)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'gpt2' is not supported; supported are bert, .*architectures\.py"):
        Backbone(str(tmp_path), TASK)
