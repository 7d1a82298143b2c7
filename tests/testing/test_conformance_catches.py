"""The conformance suite fails on methods that are wrong: one deliberate mistake for each check."""

from functools import partial

import pytest
import torch
from torch import nn

from peft_lightning.methods import AdaptationMethod, Houlsby, LoRA
from peft_lightning.modules import Bottleneck, LowRank
from peft_lightning.testing import CHECKS, Case


class Inserting(AdaptationMethod):
    """Inserts the class attribute `module` behind both sub-layers."""

    def adapt(self, backbone):
        for site in backbone.sites("attention_output", "ffn_output"):
            backbone.insert_after(site, self.module())


def inserting(name, module_class, **attributes):
    """A method that inserts modules of one class, as a class of this module."""
    made = type(name, (Inserting,), {"module": staticmethod(module_class), "__module__": __name__, **attributes})
    globals()[name] = made
    return made


class Scale(nn.Module):
    """A correct little module: h * (1 + w)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(32))

    def forward(self, h):
        return h * (1 + self.weight)


class MixesRows(Scale):
    def forward(self, h):
        return h * (1 + self.weight * h.mean(dim=(0, 1)))


class LooksBelow(Scale):
    """Adds what the module before it was given, which is another thing when layers are computed by themselves."""

    given = torch.zeros(1)

    def forward(self, h):
        below, LooksBelow.given = LooksBelow.given, h
        return h * (1 + self.weight) + below.mean()


class Idle(Scale):
    def forward(self, h):
        return h + 0 * self.weight


class Forgetful(Scale):
    """Multiplies by numbers that no file holds."""

    def __init__(self):
        super().__init__()
        self.numbers = torch.rand(32)

    def forward(self, h):
        return h * (1 + self.weight * self.numbers)


class Counting(Scale):
    """Computes something else at each call, so that recomputing gives other activations."""

    calls = 0

    def forward(self, h):
        self.calls += 1
        return h * (1 + self.weight * self.calls)


class WrongMerge(LowRank):
    def merge(self, base):
        with torch.no_grad():
            base.weight -= self.scale * (self.B @ self.A)


class HalfSilent(Scale):
    """Has a parameter that takes no part."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))


class DropoutOff(Houlsby):
    def on_train_batch_start(self, batch, batch_idx):
        self.eval()


class TouchesFrozen(Houlsby):
    def on_train_batch_end(self, *args):
        with torch.no_grad():
            next(iter(self.backbone.pretrained.values())).add_(1)


class LoadsAnything(Houlsby):
    def load_state_dict(self, state_dict, strict=True, assign=False):
        return nn.Module.load_state_dict(self, state_dict, strict=False)


class ChangesTheBase(Houlsby):
    def adapt(self, backbone):
        super().adapt(backbone)
        backbone.module_at(backbone.layers[0].sites["query"]).weight.data *= 2


class AlwaysRemovesTheLastLayer(Houlsby):
    def layers_removed(self, first, last, layer_norms=False):
        return super().layers_removed(2, 2, layer_norms)


class GoesBehindTheVerbs(Houlsby):
    def adapt(self, backbone):
        super().adapt(backbone)
        backbone.model.bert.encoder.layer[1].intermediate.extra = nn.BatchNorm1d(3, affine=False)


class MergesWrongly(LoRA):
    def adapt(self, backbone):
        for site in backbone.sites("query"):
            backbone.replace(site, WrongMerge(32, 32, rank=2, alpha=2.0))


class CountsWrongly(Houlsby):
    def adapt(self, backbone):
        super().adapt(backbone)
        backbone.insert_after(backbone.layers[0].sites["query"], Bottleneck(32, 2))


class NeverCopied(Scale):
    def __deepcopy__(self, memo):
        return self


class HalfPrecision(Scale):
    def __init__(self):
        super().__init__()
        self.weight.data = self.weight.data.bfloat16()


class OpaqueOption(Houlsby):
    def __init__(self, thing=frozenset({1}), **kwargs):
        super().__init__(**kwargs)


MISTAKES = {
    "dropout_is_on_in_training": DropoutOff,
    "only_declared_parameters_train": TouchesFrozen,
    "output_is_independent_of_padding": inserting("Mixing", MixesRows),
    "starts_at_the_identity_if_it_says_so": inserting(
        "NotIdentity", partial(Bottleneck, 32, 4, init_std=0.05), identity_tolerance=Houlsby.identity_tolerance
    ),
    "trained_method_changes_the_output": inserting("DoesNothing", Idle),
    "files_give_the_model_back": inserting("Forgetting", Forgetful),
    "wrong_files_are_refused": LoadsAnything,
    "disabling_is_exact_and_temporary": ChangesTheBase,
    "layers_can_be_removed": AlwaysRemovesTheLastLayer,
    "spans_can_be_removed_together": inserting("Looking", LooksBelow),
    "removing_gives_the_original_back": GoesBehindTheVerbs,
    "merging_is_exact_or_refused": MergesWrongly,
    "parameter_report_is_right": CountsWrongly,
    "gradient_checkpointing_changes_nothing": inserting("Recounting", Counting),
    "copies_are_independent": inserting("Entangled", NeverCopied),
    "mixed_precision_works": inserting("Half", HalfPrecision),
    "options_are_plain_values": OpaqueOption,
}


def case_of(method, tiny, tmp_path):
    return Case(method, tiny(), tmp_path, count=lambda _: 2 * 3 * (2 * 64 * 32 + 64 + 32))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_catches_its_mistake(check, tiny, tmp_path):
    with pytest.raises(AssertionError) as caught:
        check(case_of(MISTAKES[check.__name__], tiny, tmp_path))
    assert str(caught.value)


def test_a_parameter_without_gradient_is_caught(tiny, tmp_path):
    check = next(check for check in CHECKS if check.__name__ == "only_declared_parameters_train")
    with pytest.raises(AssertionError, match="unused"):
        check(case_of(inserting("Silent", HalfSilent), tiny, tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_base_of_these_mistakes_is_correct(check, tiny, tmp_path):
    check(Case(inserting("Correct", Scale, identity_tolerance=0.0), tiny(), tmp_path))


def test_a_method_that_should_merge_and_does_not_is_caught(tiny, tmp_path):
    check = next(check for check in CHECKS if check.__name__ == "merging_is_exact_or_refused")
    with pytest.raises(AssertionError, match="merge is refused"):
        check(Case(Houlsby, tiny(), tmp_path, merges=True))
