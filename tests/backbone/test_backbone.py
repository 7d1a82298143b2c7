"""The verbs: where things go, in which order, and what is refused."""

import pytest
import torch
from torch import nn

from peft_lightning.backbone import Backbone, Site
from peft_lightning.errors import UserError
from peft_lightning.modules import Prefix
from peft_lightning.tasks import build_task

TASK = build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16})


class Add(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return x + self.number


class DoubleBase(nn.Module):
    def forward(self, base, x):
        return 2 * base(x)


@pytest.fixture
def backbone(tiny):
    return Backbone(str(tiny()), TASK).eval()


@pytest.mark.parametrize("replace_first", [True, False])
def test_adapters_stay_outside_replaced_maps_whatever_comes_first(backbone, replace_first):
    site = backbone.layers[1].sites["query"]
    linear, x = backbone.module_at(site), torch.randn(2, 3, 32)
    if replace_first:
        backbone.replace(site, DoubleBase())
    backbone.insert_after(site, Add(5.0))
    if not replace_first:
        backbone.replace(site, DoubleBase())
    found = backbone.model.get_submodule(site.path)(x)
    torch.testing.assert_close(found, 2 * linear(x) + 5.0)
    assert backbone.module_at(site) is linear
    backbone.remove()
    assert backbone.model.get_submodule(site.path) is linear


def test_two_insertions_at_a_site_are_applied_in_order(backbone):
    site = backbone.layers[0].sites["ffn_output"]
    backbone.insert_after(site, Add(1.0))
    backbone.insert_after(site, DoubleAfter())
    assert torch.equal(backbone.model.get_submodule(site.path)(torch.zeros(1)), torch.tensor([2.0]))


class DoubleAfter(nn.Module):
    def forward(self, x):
        return 2 * x


def test_sites_inside_a_replaced_part_are_still_found(backbone):
    class Whole(nn.Module):
        def forward(self, base, *inputs):
            return base(*inputs)

    layer = backbone.layers[2]
    outer = Site("ffn", f"{layer.path}.output", 2)
    backbone.replace(outer, Whole())
    backbone.insert_after(layer.sites["ffn_output"], Add(1.0))
    assert backbone.insertions[1].path == f"{layer.path}.output.base.dropout"


def test_sites_come_layer_by_layer(backbone):
    found = [(site.layer, site.name) for site in backbone.sites("query", "ffn_output")]
    assert found == [(i, name) for i in range(3) for name in ("query", "ffn_output")]


def test_an_unknown_site_lists_those_there_are(backbone):
    with pytest.raises(UserError, match=r"A bert layer has no site 'quary'; its sites are attention, query, key"):
        backbone.sites("query", "quary")
    with pytest.raises(UserError, match="no site 'relative_norm' outside its layers"):
        backbone.embedding_site("relative_norm")


def test_a_second_prefix_is_refused(backbone):
    site = backbone.layers[0].sites["attention"]
    backbone.prefix(site, Prefix(3, 4, 8))
    with pytest.raises(UserError, match="layer 0 has a prefix already"):
        backbone.prefix(site, Prefix(3, 4, 8))


def test_inserted_modules_follow_the_mode_of_the_model(backbone):
    backbone.insert_after(backbone.layers[0].sites["query"], nn.Dropout(0.5))
    assert not any(module.training for module in backbone.modules())
    assert all(module.training for module in backbone.train().modules())


@pytest.mark.parametrize(
    ("model_type", "room"),
    [
        *[("bert", 64), ("gpt2", 64), ("opt", 64), ("bart", 64), ("mbart", 64)],
        *[("roberta", 62), ("xlm-roberta", 62)],  # whose positions begin at the padding id + 1
        *[("deberta-v2", None), ("llama", None), ("t5", None)],  # which have no table
    ],
)
def test_the_room_for_positions(tiny, model_type, room):
    backbone = Backbone(str(tiny(model_type)), TASK).eval()
    assert backbone.position_room == room
    if room:
        ids = torch.full((1, room), 5)
        ids[:, -1] = backbone.model.config.eos_token_id or 5
        backbone(input_ids=ids)
        with pytest.raises((IndexError, RuntimeError)):
            backbone(input_ids=torch.cat([ids[:, :1], ids], 1))


@pytest.mark.parametrize("verb", ["replace", "insert_after"])
def test_a_prefix_reaches_attention_behind_what_was_put_there(tiny, verb):
    class Through(nn.Module):
        def forward(self, first, *inputs, **options):
            return first(*inputs, **options) if verb == "replace" else first

    ids = torch.tensor([[1, 5, 6, 7, 2]])
    backbone = Backbone(str(tiny()), TASK).eval()
    bare = backbone(input_ids=ids).logits
    for site in backbone.sites("attention"):
        getattr(backbone, verb)(site, Through())
        backbone.prefix(site, Prefix(3, 4, 8, init_std=1.0))
    assert (backbone(input_ids=ids).logits - bare).abs().max() > 1e-3
    backbone.remove()
    assert torch.equal(backbone(input_ids=ids).logits, bare)
