"""What is written is small and complete; what does not fit is refused by name."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from peft_lightning import load_adapter
from peft_lightning.errors import UserError
from peft_lightning.methods import MAM, Houlsby, LoRA, PrefixTuning, PTuningV2, load_checkpoint
from peft_lightning.testing import TASK, Case, save_tiny_backbone
from peft_lightning.testing.probes import logits_of, save_checkpoint


@pytest.fixture
def case(tiny, tmp_path):
    return Case(Houlsby, tiny(), tmp_path, {"bottleneck": 8})


@pytest.fixture
def checkpoint(case):
    return save_checkpoint(case.trained(), case)


def change(path, edit):
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def test_weights_only_checkpoint_of_the_real_backbone_is_small(tmp_path):
    method = Houlsby(task=TASK, backbone="embedded:minilm-l6")
    path = save_checkpoint(method, Case(Houlsby, "embedded:minilm-l6", tmp_path))
    assert path.stat().st_size < 1.05 * 4 * method.parameter_report.trained + 32 * 1024


def test_a_checkpoint_of_another_method_is_refused(case, checkpoint, tiny, tmp_path):
    other = Case(LoRA, tiny(), tmp_path).build()
    with pytest.raises(UserError, match="trained by Houlsby, not by LoRA"):
        other.on_load_checkpoint(torch.load(checkpoint, weights_only=True))


def test_a_checkpoint_of_other_sizes_is_refused_by_name(case, checkpoint):
    with pytest.raises(UserError, match=r"down\.weight is \[8, 32\] there and \[4, 32\] here"):
        load_checkpoint(checkpoint, bottleneck=4)


def test_a_checkpoint_for_other_labels_is_refused(case, checkpoint):
    with pytest.raises(
        UserError, match=r"labels \['bad', 'good', 'dull'\], and the data has \['good', 'bad', 'dull'\]"
    ):
        load_checkpoint(checkpoint, task=TASK | {"labels": ["good", "bad", "dull"]})


def test_a_checkpoint_on_another_backbone_is_refused(case, checkpoint, tmp_path):
    other = save_tiny_backbone("bert", tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="trained on other pretrained weights"):
        load_checkpoint(checkpoint, backbone=str(other))


def test_the_same_backbone_under_another_name_is_accepted(case, checkpoint, tmp_path):
    same = save_tiny_backbone("bert", tmp_path / "same")
    assert torch.equal(
        logits_of(load_checkpoint(checkpoint, backbone=str(same)), case.batch()),
        logits_of(case.trained(), case.batch()),
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("peft_lightning"), "was not written by peft_lightning"),
        (lambda c: c["peft_lightning"].update(format=99), "format 99, which a newer version .* update peft_lightning"),
        (lambda c: c["peft_lightning"].update(method="os.system"), "trained by os.system, which is not imported"),
        (lambda c: c["hyper_parameters"].update(_class_path="this.Zen"), "the option '_class_path', which it"),
        (lambda c: c["hyper_parameters"].update(of_tomorrow=1), "option 'of_tomorrow', which it does not have in"),
        (lambda c: c.pop("hyper_parameters"), "was not written by peft_lightning"),
        (lambda c: c["peft_lightning"].pop("format"), "has format None"),
        (lambda c: c["state_dict"].popitem(), "missing: "),
    ],
)
def test_a_strange_checkpoint_is_refused(checkpoint, edit, message):
    change(checkpoint, edit)
    with pytest.raises(UserError, match=message):
        load_checkpoint(checkpoint)


def test_lightnings_own_loading_checks_too(checkpoint):
    change(checkpoint, lambda c: c["state_dict"].popitem())
    with pytest.raises(UserError, match="missing: "):
        Houlsby.load_from_checkpoint(checkpoint)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "bomb.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save({"peft_lightning": Bomb()}, tmp_path / "bomb2.ckpt")
    for name in ("bomb.ckpt", "bomb2.ckpt"):
        with pytest.raises(UserError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_or_missing_checkpoint_is_named(checkpoint, tmp_path):
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(UserError, match=r"method\.ckpt cannot be read"):
        load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"none\.ckpt cannot be read"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_the_adapter_is_two_files_with_nothing_of_the_backbone(case, tmp_path):
    method = case.trained()
    directory = method.save_adapter(tmp_path / "adapter")
    assert sorted(p.name for p in directory.iterdir()) == ["adapter.safetensors", "adapter_config.json"]
    assert load_file(directory / "adapter.safetensors").keys() == method.trained_state().keys()
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["hyper_parameters"]["bottleneck"] == 8
    assert config["hyper_parameters"]["task"]["labels"] == TASK["labels"]


@pytest.mark.parametrize("method", [PrefixTuning, MAM, PTuningV2])
def test_the_network_behind_a_prefix_is_resumed_but_not_exported(tiny, tmp_path, method):
    options = {"prompt_length": 5, "projection": True, "projection_size": 6}
    trained = Case(method, tiny(), tmp_path, options).trained()
    assert any("trunk" in name for name in trained.trained_state())
    adapter = trained.save_adapter(tmp_path / "adapter")
    held = load_file(adapter / "adapter.safetensors")
    prefixes = {name: tensor for name, tensor in held.items() if ".prefix." in name}
    assert {name.rpartition(".")[2] for name in prefixes} == {"key", "value"}
    assert sum(tensor.numel() for tensor in prefixes.values()) == 2 * 5 * 32 * 3
    loaded, batch = load_adapter(adapter), Case(method, tiny(), tmp_path).batch()
    assert loaded.hparams.projection is False
    assert torch.equal(logits_of(loaded, batch), logits_of(trained, batch))


def test_an_adapter_is_not_overwritten_by_accident(case, tmp_path):
    method = case.build()
    directory = method.save_adapter(tmp_path / "adapter")
    before = (directory / "adapter.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds an adapter already"):
        case.trained().save_adapter(directory)
    assert (directory / "adapter.safetensors").read_bytes() == before
    case.trained().save_adapter(directory, overwrite=True)
    assert (directory / "adapter.safetensors").read_bytes() != before


def test_every_key_of_an_adapter_is_checked(case, tmp_path):
    directory = case.trained().save_adapter(tmp_path / "adapter")
    weights = directory / "adapter.safetensors"
    state = load_file(weights)
    name = next(iter(state))
    for wrong, message in (
        ({k: t for k, t in state.items() if k != name}, f"missing: {name}"),
        (state | {"extra": torch.zeros(1)}, "unexpected: extra"),
    ):
        save_file(wrong, weights)
        with pytest.raises(UserError, match=message):
            load_adapter(directory)


def test_a_folder_without_adapter_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no readable adapter"):
        load_adapter(tmp_path)


def test_a_checkpoint_of_another_lightning_module_is_refused(case, tmp_path):
    foreign = {"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.6"}
    torch.save(foreign, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="was not written by peft_lightning"):
        Houlsby.load_from_checkpoint(tmp_path / "foreign.ckpt", task=TASK, backbone=str(case.backbone))


class Preset(Houlsby):
    """Fixes an option, as presets do."""

    def __init__(self, **kwargs):
        super().__init__(bottleneck=4, **kwargs)


def test_a_subclass_that_fixes_an_option_can_be_loaded(tiny, tmp_path):
    case = Case(Preset, tiny(), tmp_path, {"activation": "tanh"})
    method = case.trained()
    assert method.hparams.bottleneck == 4
    for loaded in (load_checkpoint(save_checkpoint(method, case)), load_adapter(method.save_adapter(tmp_path / "a"))):
        assert type(loaded) is Preset
        assert torch.equal(logits_of(loaded, case.batch()), logits_of(method, case.batch()))


def test_a_method_whose_module_was_moved_is_found_by_its_name(checkpoint, case):
    change(checkpoint, lambda c: c["peft_lightning"].update(method="somewhere.else.Houlsby"))
    assert torch.equal(logits_of(load_checkpoint(checkpoint), case.batch()), logits_of(case.trained(), case.batch()))
