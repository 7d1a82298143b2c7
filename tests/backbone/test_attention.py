"""The prefix against the softmax written out, and against transformers' own cache."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, DynamicCache

from peft_lightning.backbone import Backbone, load_tokenizer
from peft_lightning.backbone.attention import prefix_attention
from peft_lightning.backbone.slots import Prefixed
from peft_lightning.modules import Prefix, ShiftedPositions
from peft_lightning.tasks import build_task
from peft_lightning.testing import MODEL_TYPES

TASK = build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16})
HEADS, LENGTH, SIZE, VIRTUAL = 2, 5, 4, 3


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return [torch.randn(2, HEADS, LENGTH, SIZE) for _ in range(3)]


def attention_with_prefix(is_causal):
    module = nn.Module()
    module.is_causal = is_causal
    module.prefix = Prefixed(Prefix(VIRTUAL, HEADS, SIZE, init_std=1.0)).eval()
    return module


def written_out(module, query, key, value, seen, bias=0.0):
    prefix = module.prefix.inserted
    key = torch.cat([prefix.key.transpose(0, 1).expand(2, -1, -1, -1), key], 2)
    value = torch.cat([prefix.value.transpose(0, 1).expand(2, -1, -1, -1), value], 2)
    scores = query @ key.transpose(-1, -2) / SIZE**0.5
    scores[..., VIRTUAL:] += bias
    everything = torch.cat([torch.ones(*seen.shape[:-1], VIRTUAL, dtype=torch.bool), seen], -1)
    return (scores.masked_fill(~everything, -torch.inf).softmax(-1) @ value).transpose(1, 2)


ALL = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool)
PADDED = ALL & torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)[:, None, None]


@pytest.mark.parametrize(
    ("is_causal", "mask", "seen"),
    [
        (False, None, ALL),
        (True, None, ALL.tril()),
        (False, PADDED, PADDED),
        (True, PADDED & ALL.tril(), PADDED & ALL.tril()),
        (False, torch.zeros(2, 1, LENGTH, LENGTH).masked_fill(~PADDED, -torch.inf), PADDED),
    ],
    ids=["no mask", "no mask, causal", "boolean mask", "boolean mask, causal", "additive mask"],
)
def test_every_query_sees_the_whole_prefix_and_what_its_mask_allows(tensors, is_causal, mask, seen):
    module = attention_with_prefix(is_causal)
    found, weights = prefix_attention(module, *tensors, mask)
    assert weights is None
    torch.testing.assert_close(found, written_out(module, *tensors, seen))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", [None, PADDED])
def test_the_bias_of_t5_does_not_reach_the_prefix(tensors, is_causal, mask):
    module, bias = attention_with_prefix(is_causal), torch.randn(1, HEADS, LENGTH, LENGTH)
    mask = mask & ALL.tril() if mask is not None and is_causal else mask
    seen = ALL.tril() if mask is None and is_causal else ALL if mask is None else mask
    found, _ = prefix_attention(module, *tensors, mask, position_bias=bias)
    torch.testing.assert_close(found, written_out(module, *tensors, seen, bias))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "electra", "gpt2", "opt", "llama"])
def test_equal_to_the_cache_of_transformers(model_type, tiny):
    """`past_key_values` shifts positions itself, so explicit positions are given to the plain model."""
    torch.manual_seed(0)
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    prefixes = [Prefix(VIRTUAL, *backbone.kv_heads(site), init_std=1.0).eval() for site in backbone.attention_sites]
    for site, prefix in zip(backbone.sites("attention"), prefixes, strict=True):
        backbone.prefix(site, prefix)
    tokenizer = load_tokenizer(str(tiny(model_type)))
    batch = dict(tokenizer(["a good film", "it is the worst plot ever"], padding=True, return_tensors="pt"))
    plain = AutoModel.from_pretrained(tiny(model_type)).eval()
    start = plain.config.pad_token_id + 1 if "roberta" in model_type else 0
    positions = torch.arange(start, start + batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    if "roberta" in model_type:
        positions = torch.where(batch["attention_mask"] == 1, positions, plain.config.pad_token_id)
    cache = DynamicCache(
        [(p.key.transpose(0, 1).expand(2, -1, -1, -1), p.value.transpose(0, 1).expand(2, -1, -1, -1)) for p in prefixes]
    )
    mask = torch.cat([torch.ones(2, VIRTUAL, dtype=torch.long), batch["attention_mask"]], 1)
    with torch.no_grad():
        wanted = plain(**batch | {"attention_mask": mask}, position_ids=positions, past_key_values=cache)
        found = backbone.model.base_model(**batch)
        bare = plain(**batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.last_hidden_state[real], wanted.last_hidden_state[real], atol=1e-5, rtol=0)
    assert (found.last_hidden_state - bare.last_hidden_state)[real].abs().max() > 0.1


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "llama", "bart", "mbart", "t5"])
def test_a_cache_of_earlier_tokens_gives_what_one_pass_gives(model_type, tiny):
    """As in generation, with the prefix in front of cached keys and never inside the cache."""
    torch.manual_seed(0)
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    bare = backbone.model.base_model
    ids = torch.tensor([[4, 5, 6, 7, 8, 9], [9, 8, 7, 4, 5, 6]])
    source = {"input_ids": ids} if len(backbone.attention_sites) > 3 else {}
    name = "decoder_input_ids" if source else "input_ids"
    with torch.no_grad():
        before = bare(**source | {name: ids}, use_cache=False).last_hidden_state
        for site in backbone.attention_sites:
            backbone.prefix(site, Prefix(VIRTUAL, *backbone.kv_heads(site), init_std=1.0).eval())
        whole = bare(**source | {name: ids}, use_cache=False).last_hidden_state
        first = bare(**source | {name: ids[:, :4]}, use_cache=True)
        steps, cache = [first.last_hidden_state], first.past_key_values
        for at in (4, 5):
            step = bare(**source | {name: ids[:, at : at + 1]}, past_key_values=cache, use_cache=True)
            steps.append(step.last_hidden_state)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)
    assert cache.get_seq_length() == 6
    assert (whole - before).abs().max() > 0.1


@pytest.mark.parametrize("model_type", ["bart", "mbart", "t5"])
def test_a_decoder_has_prefixes_in_both_of_its_attentions(model_type, tiny):
    backbone = Backbone(str(tiny(model_type)), TASK)
    names = [(site.layer, site.name) for site in backbone.attention_sites]
    encoder = [(0, "attention"), (1, "attention")]
    decoder = [(layer, name) for layer in (2, 3) for name in ("attention", "cross_attention")]
    assert names == encoder + decoder


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in ("deberta-v2", "llama", "t5")])
def test_shifted_positions_are_rows_further_down_the_table(model_type, tiny):
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    tokenizer = load_tokenizer(str(tiny(model_type)))
    batch = dict(tokenizer(["a good film", "it is the worst plot ever"], padding=True, return_tensors="pt"))
    plain = Backbone(str(tiny(model_type)), TASK).eval()
    plain.load_state_dict(backbone.state_dict())
    assert len(backbone.position_sites) == (2 if model_type in ("bart", "mbart") else 1)
    with torch.no_grad():
        bare = plain(**batch).logits
        for site in backbone.position_sites:
            backbone.replace(site, ShiftedPositions(VIRTUAL))
            table = plain.module_at(plain.embedding_site(site.name)).weight
            table[:-VIRTUAL] = table[VIRTUAL:].clone()
        wanted, found = plain(**batch).logits, backbone(**batch).logits
    torch.testing.assert_close(found, wanted)
    assert (found - bare).abs().max() > 1e-3
