"""Each module against its formula written out, its initial weights, and its bad options."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peft_lightning.errors import UserError
from peft_lightning.modules import (
    Bottleneck,
    InhibitedLowRank,
    LowRank,
    ParallelBottleneck,
    Prefix,
    PrincipalLowRank,
    ScaleInput,
    ScaleOutput,
    SharedProjection,
    ShiftedPositions,
    SingularLowRank,
    VectorLowRank,
    WeightDecomposedLowRank,
)


def test_bottleneck_is_its_formula():
    adapter, h = Bottleneck(6, 4, "tanh", init_std=0.5), torch.randn(2, 3, 6)
    nn.init.normal_(adapter.down.bias)
    nn.init.normal_(adapter.up.bias)
    inside = torch.tanh(h @ adapter.down.weight.T + adapter.down.bias)
    torch.testing.assert_close(adapter(h), h + inside @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("std", [1e-7, 1e-2, 1.0])
def test_bottleneck_starts_from_a_normal_distribution_cut_at_two_deviations(std):
    torch.manual_seed(0)
    adapter = Bottleneck(300, 200, init_std=std)
    for linear in (adapter.down, adapter.up):
        assert linear.bias.count_nonzero() == 0
        assert linear.weight.abs().max() <= 2 * std * (1 + 1e-6)
        # A standard normal variable between -2 and 2 has a standard deviation of 0.8796.
        assert linear.weight.std().item() == pytest.approx(0.8796 * std, rel=0.02)


def test_a_bottleneck_without_deviation_is_the_identity():
    h = torch.randn(2, 3, 6)
    assert torch.equal(Bottleneck(6, 4, init_std=0.0)(h), h)


def test_low_rank_is_its_formula_and_merges():
    base, update, x = nn.Linear(6, 5), LowRank(6, 5, rank=2, alpha=3.0), torch.randn(2, 3, 6)
    assert torch.equal(update(base, x), base(x))
    nn.init.normal_(update.B)
    together = x @ base.weight.T + base.bias + 3.0 / 2 * (x @ update.A.T) @ update.B.T
    torch.testing.assert_close(update(base, x), together)
    update.merge(base)
    torch.testing.assert_close(base(x), together)


def test_low_rank_drops_entries_of_the_input_of_a_only():
    torch.manual_seed(0)
    base, update, x = nn.Linear(6, 5), LowRank(6, 5, rank=2, alpha=2.0, dropout=0.5), torch.ones(1, 1, 6)
    nn.init.normal_(update.B)
    difference = update(base, x) - base(x)
    torch.manual_seed(7)
    dropped = F.dropout(x, 0.5)
    torch.manual_seed(7)
    torch.testing.assert_close(update(base, x), base(x) + F.linear(F.linear(dropped, update.A), update.B))
    assert not torch.equal(difference, update.eval()(base, x) - base(x))


def test_low_rank_starts_as_a_linear_layer_does():
    torch.manual_seed(0)
    update = LowRank(400, 300, rank=50, alpha=1.0)
    bound = 1 / 400**0.5
    assert update.A.abs().max() <= bound
    assert update.A.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert update.B.count_nonzero() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda weight: LowRank(6, 5, rank=2, alpha=2.0),
        lambda weight: PrincipalLowRank(weight, rank=2, alpha=2.0),
        lambda weight: WeightDecomposedLowRank(weight, rank=2, alpha=2.0),
        lambda weight: InhibitedLowRank(6, 5, rank=2, alpha=2.0),
        lambda weight: SingularLowRank(6, 5, rank=2, alpha=2.0),
        lambda weight: VectorLowRank(SharedProjection(6, 5, rank=8, seed=0)),
        lambda weight: ScaleOutput(5),
        lambda weight: ScaleInput(6),
    ],
    ids=["LoRA", "PiSSA", "DoRA", "InA", "AdaLoRA", "VeRA", "output", "input"],
)
def test_under_autocast_a_map_gives_the_precision_that_it_gave_before(make):
    """DeBERTa masks scores by the smallest number of the query's precision, which has to be that of the scores."""
    base, x = nn.Linear(6, 5), torch.randn(2, 3, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make(base.weight)(base, x).dtype == base(x).dtype == torch.bfloat16


def test_under_autocast_a_parallel_adapter_gives_the_precision_of_the_sub_layer():
    adapter = ParallelBottleneck(Bottleneck(6, 4), scale=2.0, learned_scale=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = nn.Linear(6, 6)(torch.randn(2, 3, 6))
        assert adapter(output, torch.randn(2, 3, 6)).dtype == torch.bfloat16


def test_prefix_goes_in_front_in_the_precision_of_the_keys():
    prefix = Prefix(3, heads=2, head_size=4, init_std=1.0)
    key, value = torch.randn(5, 2, 7, 4, dtype=torch.bfloat16), torch.randn(5, 2, 7, 4, dtype=torch.bfloat16)
    longer_key, longer_value = prefix(key, value)
    assert longer_key.shape == longer_value.shape == (5, 2, 10, 4)
    assert longer_key.dtype == torch.bfloat16
    assert torch.equal(longer_key[:, :, 3:], key)
    assert torch.equal(longer_value[:, :, 3:], value)
    assert torch.equal(longer_key[2, 1, :3], prefix.key[:, 1].bfloat16())


def test_shifted_positions_read_further_on():
    table = nn.Embedding(10, 4)
    assert torch.equal(ShiftedPositions(3)(table, torch.tensor([[0, 1]])), table.weight[None, 3:5])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bottleneck(6, 0), "bottleneck is 0"),
        (lambda: Bottleneck(6, 4, init_std=-1.0), "init_std is -1"),
        (lambda: Bottleneck(6, 4, "wavy"), "activation 'wavy' is not known"),
        (lambda: LowRank(6, 5, rank=0, alpha=1.0), "rank is 0; give one between 1 and 5"),
        (lambda: LowRank(6, 5, rank=6, alpha=1.0), "rank is 6; give one between 1 and 5"),
        (lambda: LowRank(6, 5, rank=2, alpha=1.0, dropout=1.0), "dropout is 1"),
        (lambda: LowRank(6, 5, rank=2, alpha=0.0), "alpha is 0"),
        (lambda: Prefix(0, 2, 4), "prompt_length is 0"),
        (lambda: Prefix(3, 2, 4, init_std=-1.0), "init_std is -1"),
    ],
)
def test_impossible_options_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
