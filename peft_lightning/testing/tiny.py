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
_BART_LIKE = {
    "d_model": 32,
    "max_position_embeddings": 64,
    **{f"{stack}_{size}": n for stack in ("encoder", "decoder") for size, n in (("layers", 2), ("attention_heads", 4))},
    **{f"{stack}_ffn_dim": 48 for stack in ("encoder", "decoder")},
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT_LIKE,
    "roberta": _BERT_LIKE | {"type_vocab_size": 1},
    "xlm-roberta": _BERT_LIKE | {"type_vocab_size": 1},
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
    "gpt2": {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_inner": 48, "n_positions": 64},
    "opt": _COMMON | {"hidden_size": 32, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "llama": _BERT_LIKE | {"num_key_value_heads": 2},
    "bart": _BART_LIKE,
    "mbart": _BART_LIKE,
    # Four heads of 6, as in published T5 models whose heads together are not as wide as the hidden state; a head that
    # starts as small as those of the others.
    "t5": {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_heads": 4, "num_layers": 2, "initializer_factor": 0.1}
    | {"relative_attention_num_buckets": 8},
}
MODEL_TYPES = tuple(_CONFIGS)

# What each family puts around a text; by default what BERT does. The head of an encoder-decoder reads [SEP].
_TEMPLATES = {
    "gpt2": "$A",
    "opt": "[CLS] $A",
    "llama": "[CLS] $A",
    "t5": "$A [SEP]",
    # Behind its end token mBART has the language, here [CLS].
    "mbart": "$A [SEP] [CLS]",
}


def save_tiny_backbone(model_type: str, directory: str | Path, seed: int = 0, **options: Any) -> Path:
    """Saves a random backbone of three layers (encoder-decoders: of twice two) without head, and a small tokenizer.

    All weights, those of the norms included, are drawn with a standard deviation of 0.3, so that layers differ
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
    sizes = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if model_type in ("bart", "t5"):
        sizes["decoder_start_token_id"] = tokenizer.eos_token_id if model_type == "bart" else tokenizer.pad_token_id
    config = AutoConfig.for_model(model_type, **_CONFIGS[model_type] | sizes | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                # What starts above 0 throughout, as weights of norms do, is near 1: near 0 it would blot out the input.
                centre = 1.0 if bool((parameter > 0).all()) else 0.0
                torch.nn.init.normal_(parameter, centre, 0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    # RoBERTa counts positions from its padding id, which is 1 in the published models.
    special = ["[CLS]", "[PAD]"] if model_type in ("roberta", "xlm-roberta") else ["[PAD]", "[CLS]"]
    vocabulary = {word: number for number, word in enumerate([*special, "[SEP]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=_TEMPLATES.get(model_type, "[CLS] $A [SEP]"),
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="[CLS]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=[*names, "token_type_ids"] if model_type in ("bert", "electra") else names,
    )
