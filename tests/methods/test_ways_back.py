"""What `disabled`, `layers_removed`, `remove` and `merge` mean, method by method."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from peft_lightning.backbone import Backbone
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod, FullFineTuning, Houlsby, LoRA, PTuningV2
from peft_lightning.tasks import build_task
from peft_lightning.testing import TASK, Case, save_tiny_backbone
from peft_lightning.testing.probes import logits_of, make_loader


def test_removed_layers_of_houlsby_lose_adapters_and_keep_layer_norms_unless_told(tiny, tmp_path):
    method, zeroed = (Case(Houlsby, tiny(), tmp_path, {"bottleneck": 8}).trained() for _ in range(2))
    batch = Case(Houlsby, tiny(), tmp_path).batch()
    with torch.no_grad():
        for insertion in zeroed.backbone.insertions:
            if insertion.site.layer in (1, 2):
                for parameter in insertion.module.up.parameters():
                    parameter.zero_()
    with method.layers_removed(1, 2):
        adapters_only = logits_of(method, batch)
    assert torch.equal(adapters_only, logits_of(zeroed, batch))
    with method.layers_removed(1, 2, layer_norms=True):
        assert not torch.equal(logits_of(method, batch), adapters_only)


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

    with pytest.raises(UserError, match="Forgetful is no method: it does not override adapt"):
        Case(Forgetful, tiny(), tmp_path).build()


@pytest.mark.parametrize("kind", [FullFineTuning, Houlsby, PTuningV2])
def test_nothing_is_saved_or_merged_while_disabled_or_after_removal(tiny, tmp_path, kind):
    method = Case(kind, tiny(), tmp_path).trained()
    with method.disabled():
        for action in (method.trained_state, method.merge, lambda: method.save_adapter(tmp_path / "a")):
            with pytest.raises(UserError, match="is disabled or removed"):
                action()
        with pytest.raises(UserError, match="cannot be removed while it is disabled"):
            method.remove()
    method.remove()
    with pytest.raises(UserError, match="is disabled or removed"):
        method.save_adapter(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_compiled_model_that_hides_its_tensors_is_not_saved_empty(tiny, tmp_path):
    method = Case(Houlsby, tiny(), tmp_path).build()
    method.backbone.model = torch.compile(method.backbone.model, backend="eager")
    with pytest.raises(UserError, match=r"trained tensors are not where they were.*method\.compile\(\)"):
        method.save_adapter(tmp_path / "a")


def test_compiling_in_place_changes_neither_output_nor_names(tiny, tmp_path):
    for kind in (Houlsby, LoRA, PTuningV2):
        case = Case(kind, tiny(), tmp_path)
        method, names = case.trained(), case.build().trained_state().keys()
        logits = logits_of(method, case.batch())
        method.backbone.model.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(logits_of(method, case.batch()), logits)
        assert method.trained_state().keys() == names


def test_disabling_under_autocast_does_not_compute_with_casted_leftovers(tiny, tmp_path):
    case = Case(FullFineTuning, tiny(), tmp_path)
    method, batch = case.trained(), case.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = method(batch).logits
        with method.disabled():
            inside = method(batch).logits
        again = method(batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16), method.disabled():
        alone = method(batch).logits
    assert torch.equal(inside, alone)
    assert torch.equal(again, trained)


def test_moving_inside_the_context_does_not_split_the_model(tiny, tmp_path):
    case = Case(Houlsby, tiny(), tmp_path)
    method = case.trained()
    with method.disabled():
        method.to(torch.float64)
    assert {p.dtype for p in method.parameters()} == {torch.float64}
    assert method(case.batch()).logits.isfinite().all()


def test_a_backbone_whose_files_have_changed_is_not_put_back(tmp_path):
    directory = save_tiny_backbone("bert", tmp_path / "backbone")
    case = Case(Houlsby, directory, tmp_path)
    method = case.trained()
    before = logits_of(method, case.batch())
    save_tiny_backbone("bert", directory, seed=1)
    with pytest.raises(UserError, match="have changed since it was loaded"), method.disabled():
        pass
    with pytest.raises(UserError, match="have changed since it was loaded"):
        method.remove()
    assert torch.equal(logits_of(method, case.batch()), before)


def test_a_method_that_freezes_what_no_file_holds_is_refused(tiny, tmp_path):
    class Frozen(AdaptationMethod):
        def adapt(self, backbone):
            projection = nn.Linear(32, 32)
            projection.weight.requires_grad_(False)
            backbone.insert_after(backbone.layers[0].sites["query"], projection)

    with pytest.raises(TypeError, match=r"Frozen\.adapt froze .*weight, which no file would hold"):
        Case(Frozen, tiny(), tmp_path).build()


def test_training_after_an_evaluation_in_inference_mode(tiny, tmp_path):
    """Lightning evaluates in inference mode; metrics that it reset there could not be counted up in `fit`."""
    case = Case(Houlsby, tiny(), tmp_path)
    method = case.build()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 1}
    for _ in range(2):
        trainer = Trainer(accelerator="cpu", enable_model_summary=False, **options)
        trainer.validate(method, make_loader(case, 2), verbose=False)
        trainer.fit(method, make_loader(case, 1), make_loader(case, 2))
    assert trainer.callback_metrics["val/loss"].isfinite()


def test_the_mean_loss_is_exact_in_bfloat16(tiny, tmp_path):
    """A sum kept in bfloat16 stops growing at 256."""
    case = Case(LoRA, tiny(), tmp_path)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    found = [
        Trainer(accelerator="cpu", precision=precision, **options).validate(
            case.build(), make_loader(case, 200), verbose=False
        )
        for precision in ("32-true", "bf16-true")
    ]
    assert found[1][0]["val/loss"] == pytest.approx(found[0][0]["val/loss"], rel=0.02)
