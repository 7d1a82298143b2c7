"""All spans of layers are removed in shared passes; the conformance suite compares the outputs, method by method."""

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

from peft_lightning.backbone import SpanRemoval, every_span
from peft_lightning.backbone.span_removal import start_groups
from peft_lightning.methods import FullFineTuning, Houlsby
from peft_lightning.testing import MODEL_TYPES, Case, save_tiny_backbone


@pytest.mark.parametrize(("layers", "applications"), [(1, 2), (2, 6), (3, 13), (12, 376), (24, 2624)])
def test_each_distinct_state_is_computed_once(layers, applications, tmp_path):
    """A state that enters layer k is told by the spans that end below k; each is computed once, bare or adapted."""
    case = Case(Houlsby, save_tiny_backbone("bert", tmp_path, num_hidden_layers=layers), tmp_path, {"bottleneck": 2})
    method, batch = case.trained(), case.batch()
    removal = SpanRemoval(method.backbone)
    with torch.no_grad():
        found = list(removal.outputs(method, batch))
    assert len(found) == 1 + layers * (layers + 1) // 2
    assert removal.applied == applications


def test_starts_are_carried_together_as_far_as_they_fit():
    assert start_groups(4, 100) == [range(4)]
    assert start_groups(4, 7) == [range(2), range(2, 4)]
    assert start_groups(4, 1) == [range(n, n + 1) for n in range(4)]
    assert [start for group in start_groups(24, 60) for start in group] == list(range(24))


@pytest.mark.parametrize("max_rows", [1, 4, 9, 1000])
def test_no_more_rows_than_allowed_go_through_a_layer(max_rows, tiny, tmp_path):
    case = Case(Houlsby, tiny(), tmp_path)
    method, batch = case.trained(), case.batch()
    seen = []
    for layer in method.backbone.layer_stack:
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    removal = SpanRemoval(method.backbone, max_rows=max_rows)
    with torch.no_grad():
        outputs = dict(removal.outputs(method, batch))
    # The rows of one state, a whole batch, are the least there can be.
    assert max(seen) <= max(max_rows, len(batch["labels"]))
    assert sum(seen) == removal.applied * len(batch["labels"])
    assert outputs.keys() == {None, *every_span(3)}


@pytest.mark.parametrize("fails_at", [1, 5])
def test_the_model_is_as_before_after_an_error(fails_at, tiny, tmp_path):
    method, batch = Case(FullFineTuning, tiny(), tmp_path).trained(), Case(FullFineTuning, tiny(), tmp_path).batch()
    state = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    calls = []

    def call(given):
        calls.append(given)
        if len(calls) > fails_at:
            raise KeyError("broken off")
        return method(given)

    with torch.no_grad():
        before = method(batch).logits
        with pytest.raises(KeyError):
            list(SpanRemoval(method.backbone).outputs(call, batch))
        assert torch.equal(method(batch).logits, before)
    assert method.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items())


def test_layers_that_are_no_chain_say_why(tiny, tmp_path):
    obstacles = {
        name: SpanRemoval(Case(Houlsby, tiny(name), tmp_path).build().backbone).obstacle for name in MODEL_TYPES
    }
    assert {name for name, obstacle in obstacles.items() if obstacle} == {"bart", "mbart", "t5"}
    assert "decoder" in obstacles["bart"]
    convolution = save_tiny_backbone("deberta-v2", tmp_path / "convolution", conv_kernel_size=3)
    assert "convolution" in SpanRemoval(Case(Houlsby, convolution, tmp_path).build().backbone).obstacle


def test_values_that_were_read_in_an_evaluation_serve_training_too(tiny, tmp_path):
    """Pretrained values are read when they are first needed, which may be in inference mode."""
    case = Case(FullFineTuning, tiny(), tmp_path)
    method, batch = case.trained(), case.batch()
    with torch.inference_mode():
        list(SpanRemoval(method.backbone).outputs(method, batch))
    with method.layers_removed(0, 1):
        method.task.loss(method(batch), batch).backward()
    assert all(p.grad is not None for p in method.backbone.model.classifier.parameters())


def test_plain_hooks_on_a_plain_model_give_the_same(tmp_path):
    """Adapters as forward hooks on transformers' own model, left out in the span: no code of ours takes part."""
    directory = save_tiny_backbone("bert", tmp_path / "bert", num_hidden_layers=4)
    case = Case(Houlsby, directory, tmp_path, {"bottleneck": 4, "train_layer_norm": False})
    method, batch = case.trained(), case.batch()
    plain = BertForSequenceClassification.from_pretrained(directory, num_labels=3).eval()
    plain.load_state_dict(method.backbone.head, strict=False)
    removed = set()

    def add(number, adapter):
        def hook(module, inputs, output):
            if number in removed:
                return output
            return output + adapter.up(nn.functional.gelu(adapter.down(output)))

        return hook

    for insertion in method.backbone.insertions:
        plain.get_submodule(insertion.site.path).register_forward_hook(add(insertion.site.layer, insertion.module))
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        for span, output in SpanRemoval(method.backbone, max_rows=10).outputs(method, batch):
            removed.clear()
            removed.update(range(span[0], span[1] + 1) if span else ())
            torch.testing.assert_close(output.logits, plain(**inputs).logits, atol=1e-5, rtol=0)
