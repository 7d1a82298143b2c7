"""The table says where things are, and the things are there."""

import pytest
import torch
from torch import nn
from transformers import BloomConfig, BloomModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from peft_lightning.backbone import ARCHITECTURES, Backbone
from peft_lightning.backbone.backbone import ENTRANCES
from peft_lightning.errors import UserError
from peft_lightning.tasks import build_task
from peft_lightning.testing import MODEL_TYPES, save_tiny_backbone

TASK = build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16})
NORMS = (nn.LayerNorm, LlamaRMSNorm, T5LayerNorm)
ENCODER_DECODERS = ("bart", "mbart", "t5")
SIZES = {
    **dict.fromkeys(("query", "key", "value", "attention_dense"), (32, 32)),
    "ffn_gate": (32, 48),
    "ffn_in": (32, 48),
    "ffn_out": (48, 32),
}
OTHER_SIZES = {
    "llama": dict.fromkeys(("key", "value"), (32, 16)),
    "t5": {**dict.fromkeys(("query", "key", "value"), (32, 24)), "attention_dense": (24, 32)},
}
# What configurations change: norms behind the residual with narrower embeddings (opt-350m), a gate (T5 1.1).
VARIANTS = {
    "opt-350m": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "t5-v1.1": ("t5", {"feed_forward_proj": "gated-gelu"}),
}


@pytest.fixture(params=[*MODEL_TYPES, *VARIANTS])
def backbone(request, tiny, tmp_path):
    if request.param in MODEL_TYPES:
        return Backbone(str(tiny(request.param)), TASK).eval()
    model_type, options = VARIANTS[request.param]
    return Backbone(str(save_tiny_backbone(model_type, tmp_path, **options)), TASK).eval()


def norms_of(backbone):
    return {id(module) for module in backbone.model.base_model.modules() if isinstance(module, NORMS)}


def test_every_row_has_a_tiny_model():
    assert set(MODEL_TYPES) == set(ARCHITECTURES)


def test_every_site_of_every_layer_resolves_to_the_right_kind_of_module(backbone):
    model_type = backbone.model.config.model_type
    sizes = SIZES | OTHER_SIZES.get(model_type, {})
    assert [layer.index for layer in backbone.layers] == list(range(4 if model_type in ENCODER_DECODERS else 3))
    for layer in backbone.layers:
        for name, site in layer.sites.items():
            module = backbone.base_at(site)
            plain = name.removeprefix("cross_")
            if plain in sizes:
                assert (module.in_features, module.out_features) == sizes[plain]
                assert module.weight.shape == sizes[plain][::-1]
            if name.endswith("_norm"):
                assert isinstance(module, NORMS)
        crosses = model_type in ENCODER_DECODERS and layer.index >= 2
        usual = {"attention", "attention_dense", "attention_output", "attention_norm", "query", "key", "value"}
        expected = usual | {"ffn_in", "ffn_out", "ffn_output", "ffn_norm", "layer_output"}
        cross = {f"cross_{name}" for name in usual}
        assert layer.sites.keys() - {"ffn_gate"} == (expected | cross if crosses else expected)
    for name in ("word_embeddings", "decoder_word_embeddings")[: 2 if model_type in ENCODER_DECODERS else 1]:
        assert isinstance(backbone.module_at(backbone.embedding_site(name)), nn.Embedding)


def test_a_gate_is_a_site_where_there_is_one(tiny, tmp_path):
    gated = Backbone(str(save_tiny_backbone("t5", tmp_path, feed_forward_proj="gated-gelu")), TASK)
    assert [gated.layers[i].sites["ffn_in"].path.rpartition(".")[2] for i in (0, 3)] == ["wi_1", "wi_1"]
    assert "ffn_gate" in gated.layers[3].sites
    assert "ffn_gate" in Backbone(str(tiny("llama")), TASK).layers[0].sites
    assert "ffn_gate" not in Backbone(str(tiny("t5")), TASK).layers[0].sites


def test_output_sites_see_what_is_added_to_the_residual(backbone):
    """Followed through every sub-layer, and to the output of the layer.

    Norms behind the residual: what enters the norm is what entered the sub-layer plus its output. Norms before the
    sub-layer: what entered the norm plus the sub-layer's output enters the next norm, and leaves the layer at last.
    What a module beside the sub-layer sees is what enters its maps.
    """
    entered, left = {}, {}

    def note(key, module):
        def hook(module, inputs, kwargs, output):
            first = inputs[0] if inputs else kwargs["hidden_states"]
            entered[key] = first.flatten(0, -2)
            left[key] = (output[0] if isinstance(output, tuple) else output).flatten(0, -2)

        module.register_forward_hook(hook, with_kwargs=True)

    for layer in backbone.layers:
        note((layer.index, "layer"), backbone.layer_module(layer))
        for name, site in layer.sites.items():
            if name.endswith(("_output", "_norm")) or name in ENTRANCES.values():
                note((layer.index, name), backbone.module_at(site))
    backbone(input_ids=torch.tensor([[1, 5, 6, 7, 2]]))
    for layer in backbone.layers:
        stream = entered[layer.index, "layer"]
        for place in ("attention", "cross_attention", "ffn"):
            if f"{place}_output" not in layer.sites:
                continue
            output, norm = (layer.index, f"{place}_output"), (layer.index, f"{place}_norm")
            entrance = entered[layer.index, ENTRANCES[f"{place}_output"]]
            if backbone.pre_norm:
                torch.testing.assert_close(entered[norm], stream)
                torch.testing.assert_close(entrance, left[norm])
                stream = stream + left[output]
            else:
                torch.testing.assert_close(entrance, stream)
                torch.testing.assert_close(entered[norm], stream + left[output])
                stream = left[norm]
        torch.testing.assert_close(left[layer.index, "layer"], stream)
        torch.testing.assert_close(left[layer.index, "layer_output"], stream)


def test_whether_norms_stand_before_the_sub_layers(tiny, tmp_path):
    pre = {kind for kind in MODEL_TYPES if Backbone(str(tiny(kind)), TASK).pre_norm}
    assert pre == {"gpt2", "opt", "llama", "mbart", "t5"}
    assert not Backbone(str(save_tiny_backbone("opt", tmp_path, do_layer_norm_before=False)), TASK).pre_norm


def test_layer_norms_are_all_of_the_backbone(backbone):
    assert {id(norm) for norm in backbone.layer_norms} == norms_of(backbone)


def test_shared_embeddings_are_one_parameter(tiny):
    for model_type in ENCODER_DECODERS:
        backbone = Backbone(str(tiny(model_type)), TASK)
        parameters = list(backbone.pretrained.values())
        assert len({id(p) for p in parameters}) == len(parameters)
        tables = [name for name, p in backbone.pretrained.items() if p.shape[0] == backbone.model.config.vocab_size]
        assert [name.rpartition(".shared.")[2] for name in tables] == ["weight"]
        for name in ("word_embeddings", "decoder_word_embeddings"):
            table = backbone.module_at(backbone.embedding_site(name))
            assert table.weight is backbone.pretrained[tables[0]]


def test_what_lies_above_the_layers(tiny):
    above = {}
    for model_type in MODEL_TYPES:
        backbone = Backbone(str(tiny(model_type)), TASK)
        names = {id(p): name for name, p in backbone.pretrained.items()}
        found = {names[id(p)].rpartition(".")[0] for p in backbone.above_layers}
        above |= {model_type: found.pop()} if found else {}
    assert above == {
        "bert": "bert.pooler.dense",
        "gpt2": "transformer.ln_f",
        "opt": "model.decoder.final_layer_norm",
        "llama": "model.norm",
        "mbart": "model.decoder.layer_norm",
        "t5": "transformer.decoder.final_layer_norm",
    }


def test_the_convolution_of_large_deberta_models_has_a_layer_norm_too(tmp_path):
    backbone = Backbone(str(save_tiny_backbone("deberta-v2", tmp_path, conv_kernel_size=3, conv_act="gelu")), TASK)
    assert len(norms_of(backbone)) == 2 * 3 + 3
    assert {id(norm) for norm in backbone.layer_norms} == norms_of(backbone)


def test_unknown_architecture_names_the_type_the_known_ones_and_the_table(tmp_path):
    BloomModel(BloomConfig(n_layer=1, n_head=1, hidden_size=4, vocab_size=9)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'bloom' is not supported; supported are bart, .*architectures\.py"):
        Backbone(str(tmp_path), TASK)
