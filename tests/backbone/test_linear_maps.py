"""Views of fused and transposed linear maps, and what is put at a part of one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft_lightning.backbone import Backbone, LinearView, Part
from peft_lightning.backbone.linear_maps import as_seen
from peft_lightning.tasks import build_task

TASK = build_task({"type": "classification", "labels": ["bad", "good"], "max_length": 16})
MIDDLE = Part("", 1, 3)


@pytest.fixture(params=["Conv1D", "Linear"])
def fused(request):
    torch.manual_seed(0)
    module = Conv1D(12, 5) if request.param == "Conv1D" else nn.Linear(5, 12)
    nn.init.normal_(module.bias)
    return module


@pytest.mark.parametrize("part", [None, MIDDLE], ids=["all", "part"])
def test_a_view_is_the_linear_map_that_it_computes(fused, part):
    view, x = LinearView(fused, part), torch.randn(2, 3, 5)
    assert (view.in_features, view.out_features) == (5, 4 if part else 12)
    torch.testing.assert_close(view(x), F.linear(x, view.weight, view.bias))
    torch.testing.assert_close(view(x), fused(x)[..., 4:8] if part else fused(x))


def test_changes_in_place_reach_the_module_and_nothing_else(fused):
    view, x = LinearView(fused, MIDDLE), torch.randn(2, 5)
    before, update = fused(x), torch.randn(4, 5)
    with torch.no_grad():
        view.weight += update
        view.bias *= 3
    wanted = torch.cat([before[:, :4], before[:, 4:8] + F.linear(x, update) + 2 * view.bias / 3, before[:, 8:]], -1)
    torch.testing.assert_close(fused(x), wanted)


def test_a_plain_linear_map_is_seen_as_it_is():
    linear = nn.Linear(2, 3, bias=False)
    assert as_seen(linear) is linear
    assert as_seen(Conv1D(3, 2)).weight.shape == (3, 2)
    assert LinearView(nn.Linear(2, 6, bias=False), MIDDLE).bias is None


class Times(nn.Module):
    """Multiplies what stands there, or what comes out there."""

    def __init__(self, factor, inside=False):
        super().__init__()
        self.factor = factor
        self.inside = inside

    def forward(self, base, x=None):
        if x is None:
            return self.factor * base
        return base(self.factor * x) if self.inside else self.factor * base(x)


@pytest.fixture
def gpt2(tiny):
    return Backbone(str(tiny("gpt2")), TASK).eval()


@pytest.mark.parametrize("names", [("query", "value"), ("value", "query")])
def test_parts_are_replaced_one_by_one_and_computed_once(gpt2, names):
    sites = gpt2.layers[1].sites
    fused, x, calls = gpt2.module_at(sites["query"]), torch.randn(2, 3, 32), []
    query, key, value = fused(x).chunk(3, -1)
    fused.register_forward_hook(lambda *_: calls.append(1))
    for name in names:
        gpt2.replace(sites[name], Times({"query": 2.0, "value": 5.0}[name]))
    found = gpt2.model.get_submodule(sites["query"].path)(x)
    assert torch.equal(found, torch.cat([2 * query, key, 5 * value], -1))
    assert len(calls) == 1
    assert gpt2.module_at(sites["key"]) is fused
    with gpt2.without([1]):
        assert torch.equal(gpt2.model.get_submodule(sites["query"].path)(x), torch.cat([query, key, value], -1))
    gpt2.remove()
    assert gpt2.model.get_submodule(sites["query"].path) is fused


def test_a_part_may_be_computed_for_another_input(gpt2):
    site, x = gpt2.layers[0].sites["key"], torch.randn(2, 3, 32)
    fused = gpt2.module_at(site)
    gpt2.replace(site, Times(2.0, inside=True))
    found = gpt2.model.get_submodule(site.path)(x).chunk(3, -1)[1]
    torch.testing.assert_close(found, fused(2 * x).chunk(3, -1)[1])


@pytest.mark.parametrize("replace_first", [True, False])
def test_what_comes_after_a_part_sees_what_replaces_it(gpt2, replace_first):
    site, x = gpt2.layers[0].sites["value"], torch.randn(2, 3, 32)
    query, key, value = gpt2.module_at(site)(x).chunk(3, -1)

    class Add(nn.Module):
        def forward(self, output):
            return output + 1

    verbs = [(gpt2.replace, Times(2.0)), (gpt2.insert_after, Add())]
    for verb, module in verbs if replace_first else reversed(verbs):
        verb(site, module)
    found = gpt2.model.get_submodule(site.path)(x)
    torch.testing.assert_close(found, torch.cat([query, key, 2 * value + 1], -1))
