"""The prefix against the softmax written out, and against transformers' own cache."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, DynamicCache

from peft_lightning.backbone import Backbone, load_tokenizer
from peft_lightning.backbone.attention import prefix_attention
from peft_lightning.backbone.slots import Prefixed
from peft_lightning.modules import Prefix
from peft_lightning.tasks import build_task

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


def written_out(module, query, key, value, seen):
    prefix = module.prefix.inserted
    key = torch.cat([prefix.key.transpose(0, 1).expand(2, -1, -1, -1), key], 2)
    value = torch.cat([prefix.value.transpose(0, 1).expand(2, -1, -1, -1), value], 2)
    scores = query @ key.transpose(-1, -2) / SIZE**0.5
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


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra"])
def test_equal_to_the_cache_of_transformers(model_type, tiny):
    """`past_key_values` shifts positions itself, so explicit positions are given to the plain model."""
    torch.manual_seed(0)
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    prefixes = [Prefix(VIRTUAL, 4, 8, init_std=1.0).eval() for _ in backbone.layers]
    for site, prefix in zip(backbone.sites("attention"), prefixes, strict=True):
        backbone.prefix(site, prefix)
    tokenizer = load_tokenizer(str(tiny(model_type)))
    batch = dict(tokenizer(["a good film", "it is the worst plot ever"], padding=True, return_tensors="pt"))
    plain = AutoModel.from_pretrained(tiny(model_type)).eval()
    start = plain.config.pad_token_id + 1 if model_type == "roberta" else 0
    positions = torch.arange(start, start + batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
    if model_type == "roberta":
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
