"""Where each model family keeps the parts that adaptation methods touch: one row a family, nothing else.

To support another architecture, add its row to `ARCHITECTURES`; `tests/backbone/test_architectures.py` then checks on
a tiny model that each path leads somewhere, and the conformance suite runs every method on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from peft_lightning.errors import UserError


@dataclass(frozen=True)
class Stack:
    """One pile of equal layers.

    Args:
        path: Dotted path of the `ModuleList`, from the base model (the task model without its head).
        sites: Site name -> dotted path from one layer.
    """

    path: str
    sites: Mapping[str, str]


@dataclass(frozen=True)
class Architecture:
    """The places of one model family.

    The sites of a layer, in the order in which the data passes them:

    - `attention`: the module that calls the attention interface; prefixes go here,
    - `query`, `key`, `value`, `attention_dense`: the linear maps of attention; the last one joins the heads,
    - `attention_output`: the sub-layer's output before the residual is added; adapters go after it,
    - `attention_norm`: the LayerNorm of the attention sub-layer,
    - `ffn_in`, `ffn_out`: the linear maps of the feed-forward sub-layer,
    - `ffn_output`, `ffn_norm`: as for attention.

    Args:
        stacks: The piles of layers, in the order in which the data passes them.
        embeddings: Sites outside the layers, as dotted paths from the base model: `word_embeddings`,
            `position_embeddings`, `embedding_norm`, ... Parts that a configuration leaves out are not sites.
        output: The module whose output is what the layers give, before any pooler, as a dotted path from the base
            model; None where input prompts cannot be used.
        above: Parts that the data passes after the layers, as dotted paths from the base model.
        prefix_obstacle: Why key/value prefixes cannot be used here; None where they can.
        positions_start_after_padding: Position ids begin at the padding id + 1 (RoBERTa), which shortens the room.
    """

    stacks: tuple[Stack, ...]
    embeddings: Mapping[str, str] = field(default_factory=dict)
    output: str | None = "encoder"
    above: tuple[str, ...] = ("pooler",)
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
}
_BERT_EMBEDDINGS = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(stacks=(Stack("encoder.layer", _BERT_LAYER),), embeddings=_BERT_EMBEDDINGS),
    "roberta": Architecture(
        stacks=(Stack("encoder.layer", _BERT_LAYER),),
        embeddings=_BERT_EMBEDDINGS,
        positions_start_after_padding=True,
    ),
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
