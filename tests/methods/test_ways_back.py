"""What `disabled`, `layers_removed`, `remove` and `merge` mean, method by method."""

import pytest
import torch
from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod, FullFineTuning, Houlsby, LoRA, PTuningV2
from peft_lightning.tasks import build_task
from peft_lightning.testing import Case
from peft_lightning.testing.conformance import TASK, _logits


def test_removed_layers_of_houlsby_lose_adapters_and_keep_layer_norms_unless_told(tiny, tmp_path):
    method, zeroed = (Case(Houlsby, tiny(), tmp_path, {"bottleneck": 8}).trained() for _ in range(2))
    batch = Case(Houlsby, tiny(), tmp_path).batch()
    with torch.no_grad():
        for insertion in zeroed.backbone.insertions:
            if insertion.site.layer in (1, 2):
                for parameter in insertion.module.up.parameters():
                    parameter.zero_()
    with method.layers_removed(1, 2):
        adapters_only = _logits(method, batch)
    assert torch.equal(adapters_only, _logits(zeroed, batch))
    with method.layers_removed(1, 2, layer_norms=True):
        assert not torch.equal(_logits(method, batch), adapters_only)


def test_removed_layers_of_full_fine_tuning_have_pretrained_values(tiny, tmp_path):
    method = Case(FullFineTuning, tiny(), tmp_path).trained()
    pretrained = Backbone(str(tiny()), build_task(TASK)).model.state_dict()
    trained = {name: tensor.clone() for name, tensor in method.backbone.model.state_dict().items()}
    with method.layers_removed(1, 1):
        for name, tensor in method.backbone.model.state_dict().items():
            wanted = pretrained if ".layer.1." in name else trained
            assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (2, 1), (0, 3)])
def test_a_span_that_does_not_exist_is_refused(tiny, tmp_path, first, last):
    method = Case(Houlsby, tiny(), tmp_path).build()
    with pytest.raises(UserError, match="layers are numbered 0 to 2"), method.layers_removed(first, last):
        pass


def test_merging_non_linear_methods_says_why(tiny, tmp_path):
    for kind, reason in ((Houlsby, "non-linear adapter"), (PTuningV2, "adds positions")):
        with pytest.raises(UserError, match=f"{kind.__name__} cannot be merged into the backbone: .*{reason}"):
            Case(kind, tiny(), tmp_path).build().merge()


def test_the_merged_model_is_an_ordinary_transformers_model(tiny, tmp_path):
    case = Case(LoRA, tiny(), tmp_path)
    method = case.trained()
    method.merge().save_pretrained(tmp_path / "merged")
    loaded = type(method.backbone.model).from_pretrained(tmp_path / "merged")
    batch = {name: tensor for name, tensor in case.batch().items() if name != "labels"}
    torch.testing.assert_close(loaded(**batch).logits, method(batch).logits, atol=1e-4, rtol=0)


def test_a_method_that_trains_what_it_did_not_declare_is_refused(tiny, tmp_path):
    class Secretive(AdaptationMethod):
        def adapt(self, backbone):
            backbone.model.bert.pooler.requires_grad_(True)

    class Stowaway(AdaptationMethod):
        def adapt(self, backbone):
            backbone.model.bert.extra = nn.Linear(2, 2)

    for kind, name in ((Secretive, "pooler"), (Stowaway, "extra")):
        with pytest.raises(TypeError, match=rf"{kind.__name__}\.adapt left .*{name}.* trainable without a verb"):
            Case(kind, tiny(), tmp_path).build()


def test_a_method_without_adapt_is_refused(tiny, tmp_path):
    class Forgetful(AdaptationMethod):
        pass

    with pytest.raises(NotImplementedError, match="Forgetful has to override adapt"):
        Case(Forgetful, tiny(), tmp_path).build()
