"""Where each model family keeps the parts that adaptation methods touch: one row a family, nothing else.

To support another architecture, add its row to `ARCHITECTURES`; `tests/backbone/test_architectures.py` then checks on
a tiny model that each path leads somewhere, and the conformance suite runs every method on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from peft_lightning.backbone.linear_maps import Part
from peft_lightning.errors import UserError

# A dotted path, "" being the layer itself; several, of which a configuration has one; or one of a module's fused maps.
Place = str | tuple[str, ...] | Part


@dataclass(frozen=True)
class Stack:
    """One pile of equal layers.

    Args:
        path: Dotted path of the `ModuleList`, from the base model (the task model without its head).
        sites: Site name -> place in one layer.
    """

    path: str
    sites: Mapping[str, Place]


@dataclass(frozen=True)
class Architecture:
    """The places of one model family.

    The sites of a layer, in the order in which the data passes them where norms stand behind the sub-layers:

    - `attention`: the module that calls the attention interface; prefixes go here,
    - `query`, `key`, `value`, `attention_dense`: the linear maps of attention; the last one joins the heads,
    - `attention_output`: the sub-layer's output before the residual is added; adapters go after it,
    - `attention_norm`: the norm of the attention sub-layer,
    - `cross_attention`, `cross_query`, ... `cross_attention_norm`: the same of attention to an encoder's output,
    - `ffn_gate`: the linear map that gates `ffn_in`, where there is one,
    - `ffn_in`, `ffn_out`: the linear maps of the feed-forward sub-layer,
    - `ffn_output`, `ffn_norm`: as for attention,
    - `layer_output`: the output of the layer.

    Where transformers applies dropout as a function, not as a module, an output site is the map before that dropout.

    Args:
        stacks: The piles of layers, in the order in which the data passes them.
        embeddings: Sites outside the layers, as dotted paths from the base model: `word_embeddings`, `embedding_norm`,
            `final_norm`, ...; tables of positions end in `position_embeddings`, norms in `_norm`. Parts that a
            configuration leaves out are not sites.
        output: The module that gives `last_hidden_state` before any pooler, as a dotted path from the base model, which
            is itself the empty path; None where a decoder reads what an encoder gives.
        above: Parts that the data passes after the layers, as dotted paths from the base model.
        pre_norm: Whether norms stand before the sub-layers rather than behind the residual; or the name of the option
            of the configuration that says so.
        causal: Tokens of the last stack see only those before them, and the head reads the last one.
        prefix_obstacle: Why key/value prefixes cannot be used here; None where they can.
        positions_start_after_padding: Position ids begin at the padding id + 1 (RoBERTa), which shortens the room.
    """

    stacks: tuple[Stack, ...]
    embeddings: Mapping[str, str] = field(default_factory=dict)
    output: str | None = "encoder"
    above: tuple[str, ...] = ("pooler",)
    pre_norm: bool | str = False
    causal: bool = False
    prefix_obstacle: str | None = None
    positions_start_after_padding: bool = False


_BERT_LAYER = {
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_dense": "attention.output.dense",
    "attention_output": "attention.output.dropout",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_output": "output.dropout",
    "ffn_norm": "output.LayerNorm",
    "layer_output": "output.LayerNorm",
}
_BERT_EMBEDDINGS = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}

_ROBERTA = Architecture(
    stacks=(Stack("encoder.layer", _BERT_LAYER),),
    embeddings=_BERT_EMBEDDINGS,
    positions_start_after_padding=True,
)

# BART and mBART apply dropout as a function behind `out_proj` and `fc2`.
_BART_ENCODER_LAYER = {
    "attention": "self_attn",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_dense": "self_attn.out_proj",
    "attention_output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "ffn_in": "fc1",
    "ffn_out": "fc2",
    "ffn_output": "fc2",
    "ffn_norm": "final_layer_norm",
}
_BART_CROSS_ATTENTION = {
    "cross_attention": "encoder_attn",
    "cross_query": "encoder_attn.q_proj",
    "cross_key": "encoder_attn.k_proj",
    "cross_value": "encoder_attn.v_proj",
    "cross_attention_dense": "encoder_attn.out_proj",
    "cross_attention_output": "encoder_attn.out_proj",
    "cross_attention_norm": "encoder_attn_layer_norm",
}
# The table `shared` is the weight of both embeddings; what the model calls is one of its own in each stack.
_BART_EMBEDDINGS = {
    "word_embeddings": "encoder.embed_tokens",
    "position_embeddings": "encoder.embed_positions",
    "embedding_norm": "encoder.layernorm_embedding",
    "decoder_word_embeddings": "decoder.embed_tokens",
    "decoder_position_embeddings": "decoder.embed_positions",
    "decoder_embedding_norm": "decoder.layernorm_embedding",
}


def _bart(layer_output: str) -> tuple[Stack, Stack]:
    encoder_layer = _BART_ENCODER_LAYER | {"layer_output": layer_output}
    return Stack("encoder.layers", encoder_layer), Stack("decoder.layers", encoder_layer | _BART_CROSS_ATTENTION)


def _t5(ffn: str, cross_attention: Mapping[str, Place]) -> dict[str, Place]:
    return {
        "attention": "layer.0.SelfAttention",
        "query": "layer.0.SelfAttention.q",
        "key": "layer.0.SelfAttention.k",
        "value": "layer.0.SelfAttention.v",
        "attention_dense": "layer.0.SelfAttention.o",
        "attention_output": "layer.0.dropout",
        "attention_norm": "layer.0.layer_norm",
        **cross_attention,
        # T5 1.1 and Flan-T5 have a gated feed-forward sub-layer.
        "ffn_gate": f"{ffn}.DenseReluDense.wi_0",
        "ffn_in": (f"{ffn}.DenseReluDense.wi", f"{ffn}.DenseReluDense.wi_1"),
        "ffn_out": f"{ffn}.DenseReluDense.wo",
        "ffn_output": f"{ffn}.dropout",
        "ffn_norm": f"{ffn}.layer_norm",
        "layer_output": "",
    }


_T5_CROSS_ATTENTION = {
    "cross_attention": "layer.1.EncDecAttention",
    "cross_query": "layer.1.EncDecAttention.q",
    "cross_key": "layer.1.EncDecAttention.k",
    "cross_value": "layer.1.EncDecAttention.v",
    "cross_attention_dense": "layer.1.EncDecAttention.o",
    "cross_attention_output": "layer.1.dropout",
    "cross_attention_norm": "layer.1.layer_norm",
}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(stacks=(Stack("encoder.layer", _BERT_LAYER),), embeddings=_BERT_EMBEDDINGS),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": Architecture(stacks=(Stack("encoder.layer", _BERT_LAYER),), embeddings=_BERT_EMBEDDINGS),
    "distilbert": Architecture(
        stacks=(
            Stack(
                "transformer.layer",
                {
                    "attention": "attention",
                    "query": "attention.q_lin",
                    "key": "attention.k_lin",
                    "value": "attention.v_lin",
                    "attention_dense": "attention.out_lin",
                    "attention_output": "attention.out_lin",
                    "attention_norm": "sa_layer_norm",
                    "ffn_in": "ffn.lin1",
                    "ffn_out": "ffn.lin2",
                    "ffn_output": "ffn.dropout",
                    "ffn_norm": "output_layer_norm",
                    "layer_output": "output_layer_norm",
                },
            ),
        ),
        embeddings=_BERT_EMBEDDINGS,
        output="transformer",
    ),
    "deberta-v2": Architecture(
        stacks=(
            Stack(
                "encoder.layer",
                _BERT_LAYER
                | {
                    "query": "attention.self.query_proj",
                    "key": "attention.self.key_proj",
                    "value": "attention.self.value_proj",
                },
            ),
        ),
        embeddings=_BERT_EMBEDDINGS
        | {"relative_norm": "encoder.LayerNorm", "convolution_norm": "encoder.conv.LayerNorm"},
        prefix_obstacle="its disentangled attention scores pairs of token positions, and a prefix has no position",
    ),
    "gpt2": Architecture(
        stacks=(
            Stack(
                "h",
                {
                    "attention": "attn",
                    "query": Part("attn.c_attn", 0, 3),
                    "key": Part("attn.c_attn", 1, 3),
                    "value": Part("attn.c_attn", 2, 3),
                    "attention_dense": "attn.c_proj",
                    "attention_output": "attn.resid_dropout",
                    "attention_norm": "ln_1",
                    "ffn_in": "mlp.c_fc",
                    "ffn_out": "mlp.c_proj",
                    "ffn_output": "mlp.dropout",
                    "ffn_norm": "ln_2",
                    "layer_output": "",
                },
            ),
        ),
        embeddings={"word_embeddings": "wte", "position_embeddings": "wpe", "final_norm": "ln_f"},
        above=("ln_f",),
        pre_norm=True,
        output="",
        causal=True,
    ),
    "opt": Architecture(
        # Dropout is a function behind `out_proj` and `fc2`. Only opt-350m has norms behind the residual.
        stacks=(Stack("decoder.layers", _BART_ENCODER_LAYER | {"layer_output": ""}),),
        embeddings={
            "word_embeddings": "decoder.embed_tokens",
            "position_embeddings": "decoder.embed_positions",
            "final_norm": "decoder.final_layer_norm",
        },
        above=("decoder.final_layer_norm", "decoder.project_out"),
        pre_norm="do_layer_norm_before",
        output="",
        causal=True,
    ),
    "llama": Architecture(
        # No dropout behind `o_proj` and `down_proj`.
        stacks=(
            Stack(
                "layers",
                {
                    "attention": "self_attn",
                    "query": "self_attn.q_proj",
                    "key": "self_attn.k_proj",
                    "value": "self_attn.v_proj",
                    "attention_dense": "self_attn.o_proj",
                    "attention_output": "self_attn.o_proj",
                    "attention_norm": "input_layernorm",
                    "ffn_gate": "mlp.gate_proj",
                    "ffn_in": "mlp.up_proj",
                    "ffn_out": "mlp.down_proj",
                    "ffn_output": "mlp.down_proj",
                    "ffn_norm": "post_attention_layernorm",
                    "layer_output": "",
                },
            ),
        ),
        embeddings={"word_embeddings": "embed_tokens", "final_norm": "norm"},
        above=("norm",),
        pre_norm=True,
        output="",
        causal=True,
    ),
    "bart": Architecture(
        stacks=_bart("final_layer_norm"), embeddings=_BART_EMBEDDINGS, output=None, above=(), causal=True
    ),
    "mbart": Architecture(
        stacks=_bart(""),
        embeddings=_BART_EMBEDDINGS | {"encoder_final_norm": "encoder.layer_norm", "final_norm": "decoder.layer_norm"},
        above=("decoder.layer_norm",),
        pre_norm=True,
        output=None,
        causal=True,
    ),
    "t5": Architecture(
        stacks=(
            Stack("encoder.block", _t5("layer.1", {})),
            Stack("decoder.block", _t5("layer.2", _T5_CROSS_ATTENTION)),
        ),
        embeddings={
            "word_embeddings": "encoder.embed_tokens",
            "decoder_word_embeddings": "decoder.embed_tokens",
            "encoder_final_norm": "encoder.final_layer_norm",
            "final_norm": "decoder.final_layer_norm",
        },
        above=("decoder.final_layer_norm",),
        pre_norm=True,
        output=None,
        causal=True,
    ),
}


def architecture(model_type: str) -> Architecture:
    """The row of a model type.

    Raises:
        UserError: The table has no such row.
    """
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"Model type '{model_type}' is not supported; supported are {', '.join(sorted(ARCHITECTURES))}. "
            "To support it, add a row to ARCHITECTURES in peft_lightning/backbone/architectures.py."
        )
    return ARCHITECTURES[model_type]
