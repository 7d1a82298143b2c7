"""Tiny random backbones on disk, one an architecture: small enough for tests, saved so that loading is tested too."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

WORDS = (
    "a an and are as at bad best but dull ever film for from fun good great has heart in is it like little makes more "
    "most movie no not of off one plot really so story that the this time to too very warm was with worst you"
).split()

_COMMON = {"num_hidden_layers": 3, "max_position_embeddings": 64}
_BERT_LIKE = _COMMON | {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE | {"type_vocab_size": 1},
    "electra": _BERT_LIKE | {"embedding_size": 16},
    "distilbert": {"n_layers": 3, "n_heads": 4, "dim": 32, "hidden_dim": 48, "max_position_embeddings": 64},
    "deberta-v2": _BERT_LIKE
    | {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}
MODEL_TYPES = tuple(_CONFIGS)


def save_tiny_backbone(model_type: str, directory: str | Path, seed: int = 0, **options: Any) -> Path:
    """Saves a random three-layer backbone without head, and a tokenizer of some fifty words.

    All weights, those of the LayerNorms included, are drawn with a standard deviation of 0.3, so that layers differ
    from each other and nothing is hidden by a weight of 0 or 1.

    Args:
        model_type: One of `MODEL_TYPES`.
        directory: Where to save; made if it does not exist.
        seed: Seed of the weights.
        options: Override the configuration, for example `num_hidden_layers=1`.

    Returns:
        The directory.
    """
    directory = Path(directory)
    tokenizer = _tokenizer(model_type)
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(model_type, **_CONFIGS[model_type] | sizes | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                centre = 1.0 if isinstance(module, torch.nn.LayerNorm) and parameter is module.weight else 0.0
                torch.nn.init.normal_(parameter, centre, 0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    # RoBERTa counts positions from its padding id, which is 1 in the published models.
    special = ["[CLS]", "[PAD]"] if model_type == "roberta" else ["[PAD]", "[CLS]"]
    vocabulary = {word: number for number, word in enumerate([*special, "[SEP]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=[*names, "token_type_ids"] if model_type in ("bert", "electra") else names,
    )
