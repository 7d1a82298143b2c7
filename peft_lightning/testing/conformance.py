"""The conformance suite: what every adaptation method must do, ours or yours.

In a test file of your own:

    @pytest.mark.parametrize("model_type", MODEL_TYPES)
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check, model_type, tmp_path):
        check(Case(MyMethod, save_tiny_backbone(model_type, tmp_path / model_type), tmp_path))

Each check builds the method on a tiny backbone that was saved and is loaded again, and raises an AssertionError that
says what went wrong.
"""

import copy
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from peft_lightning.backbone import SpanRemoval, load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods import load_adapter, load_checkpoint
from peft_lightning.testing.case import TEXTS, Case
from peft_lightning.testing.probes import (
    count_fresh,
    equal,
    hidden_states,
    layer_states,
    load_plain,
    logits_of,
    make_loader,
    make_trainer,
    refusal_of,
    require,
    require_close,
    save_checkpoint,
)


def dropout_is_on_in_training(case: Case) -> None:
    """Every dropout of backbone and method is in training mode inside `fit`, before and after a validation.

    So is every layer: some compute dropout as a function, which goes by the layer's mode.
    """
    modes: dict[str, bool] = {}

    class Watch(Callback):
        def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
            modes.update(
                {
                    f"{name} in step {trainer.global_step}": module.training
                    for name, module in pl_module.named_modules()
                    if isinstance(module, nn.Dropout) or module in layers
                }
            )

    method = case.build()
    layers = {method.backbone.layer_module(layer) for layer in method.backbone.layers}
    trainer = make_trainer(case, steps=3, callbacks=[Watch()], val_check_interval=1)
    trainer.validate(method, make_loader(case, 1), verbose=False)
    trainer.fit(method, make_loader(case, 3), make_loader(case, 1))
    require(len(modes) >= 3 * len(layers), "not every layer was looked at in every step")
    require(all(modes.values()), f"dropout is off in training: {[name for name, on in modes.items() if not on]}")


def only_declared_parameters_train(case: Case) -> None:
    """After three steps every trained parameter has moved, each has had a gradient, and nothing else has changed."""
    method = case.build()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    gradients: dict[str, bool] = {}

    class Watch(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step < 2:
                for name, parameter in pl_module.named_parameters():
                    if parameter.grad is not None and parameter.grad.count_nonzero():
                        gradients[name] = True

    make_trainer(case, steps=3, callbacks=[Watch()]).fit(method, make_loader(case, 3))
    trained = {name for name, p in method.named_parameters(remove_duplicate=False) if p.requires_grad}
    for name, tensor in method.state_dict().items():
        moved = not torch.equal(tensor, before[name])
        require(moved or name not in trained, f"{name} has not changed in training")
        require(not moved or name in method.trained_state(), f"{name} has changed in training")
    silent = [name for name, p in method.named_parameters() if p.requires_grad and name not in gradients]
    require(not silent, f"no gradient by the second step: {silent}")


def output_is_independent_of_padding(case: Case) -> None:
    """A row's logits do not change when the batch is padded further, or when the row is alone."""
    method, batch = case.trained(), case.batch()
    tokenizer = load_tokenizer(str(case.backbone))
    longer = tokenizer(list(TEXTS), padding="max_length", max_length=30, return_tensors="pt")
    alone = [tokenizer([text], return_tensors="pt") for text in TEXTS]
    logits = logits_of(method, batch)
    require_close(logits_of(method, dict(longer)), logits, 1e-4, "more padding changes the logits")
    require_close(
        torch.cat([logits_of(method, dict(row)) for row in alone]), logits, 1e-4, "other rows change the logits"
    )


def starts_at_the_identity_if_it_says_so(case: Case) -> None:
    """Before training the logits are those of the bare backbone, within `identity_tolerance`."""
    tolerance = case.method.identity_tolerance
    if tolerance is not None:
        method, batch = case.build(), case.batch()
        with method.disabled():
            bare = logits_of(method, batch)
        require_close(logits_of(method, batch), bare, tolerance, "the untrained method changes the logits")


def trained_method_changes_the_output(case: Case) -> None:
    """With weights that are not small the logits differ from those of the bare backbone, or nothing was adapted."""
    method, batch = case.trained(), case.batch()
    if method.parameter_report.method:
        with method.disabled():
            bare = logits_of(method, batch)
        require(float((logits_of(method, batch) - bare).abs().max()) > 1e-2, "the trained method changes nothing")


def files_give_the_model_back(case: Case) -> None:
    """Checkpoint and adapter hold exactly what was trained, and give bit-equal logits on a differently seeded head."""
    method, batch = case.trained(), case.batch()
    logits = logits_of(method, batch)
    checkpoint, adapter = (
        save_checkpoint(method, case),
        method.save_adapter(case.directory / "adapter", overwrite=True),
    )
    held = torch.load(checkpoint, weights_only=True)["state_dict"]
    require(held.keys() == method.trained_state().keys(), "the checkpoint holds more or less than what was trained")
    torch.manual_seed(1)
    for source, loaded in (("checkpoint", load_checkpoint(checkpoint)), ("adapter", load_adapter(adapter))):
        require(type(loaded) is case.method, f"the {source} gives back a {type(loaded).__name__}")
        require(torch.equal(logits_of(loaded, batch), logits), f"the {source} gives other logits")


def wrong_files_are_refused(case: Case) -> None:
    """A tensor that is missing, unknown or of another shape is named."""
    method = case.trained()
    state = method.trained_state()
    name, tensor = next(iter(state.items()))
    for fault, wrong in (
        ("missing", {key: value for key, value in state.items() if key != name}),
        ("unexpected", state | {f"{name}.copy": tensor}),
        ("other sizes", state | {name: torch.cat([tensor, tensor])}),
    ):
        message = refusal_of(partial(method.load_state_dict, wrong))
        require(
            fault in message and name in message,
            f"a state dict with a tensor {fault} is not refused by name: {message}",
        )


def disabling_is_exact_and_temporary(case: Case) -> None:
    """Disabled, the backbone is bit for bit the pretrained one; afterwards the method is as before, even on errors."""
    method, batch = case.trained(), case.batch()
    before = logits_of(method, batch)
    with method.disabled():
        require(
            equal(hidden_states(method.backbone.model, batch), hidden_states(load_plain(case), batch)),
            "disabled differs",
        )
    require(torch.equal(logits_of(method, batch), before), "disabled() does not undo itself")
    with suppress(KeyError), method.disabled():
        raise KeyError
    require(torch.equal(logits_of(method, batch), before), "disabled() does not undo itself after an error")
    with method.disabled():
        require("disabled" in refusal_of(method.trained_state), "it can be saved while it is disabled")


def layers_can_be_removed(case: Case) -> None:
    """Each layer can be taken out by itself, exactly and for a time; layers are not confused with one another.

    Without layer i all hidden states below it are as before, and the one behind it is not, if the layer is adapted. The
    layers of a decoder come behind those of its encoder.
    """
    method, batch = case.trained(), case.batch()
    before, state = layer_states(method, batch), copy.deepcopy(method.state_dict())
    require(len(before) == len(method.backbone.layers) + 1, "not every layer gives one output")
    adapted = {insertion.site.layer for insertion in method.backbone.insertions} | {
        layer.index
        for layer in method.backbone.layers
        for name in method.backbone.roles
        if name.startswith(f"{layer.path}.")
    }
    for layer in range(len(method.backbone.layers)):
        with method.layers_removed(layer, layer, layer_norms=True):
            without = layer_states(method, batch)
        for below in range(layer + 1):
            require(torch.equal(without[below], before[below]), f"removing layer {layer} changes what comes before it")
        changed = not torch.equal(without[layer + 1], before[layer + 1])
        require(
            changed == (layer in adapted), f"removing layer {layer} {'changes' if changed else 'does not change'} it"
        )
        require(equal(layer_states(method, batch), before), f"removing layer {layer} does not undo itself")
    require(
        all(torch.equal(tensor, state[name]) for name, tensor in method.state_dict().items()), "weights have changed"
    )


def spans_can_be_removed_together(case: Case) -> None:
    """Removing all spans of layers in shared passes gives what removing each by itself gives, and undoes itself.

    Where the layers are not one chain, as in encoder-decoders, there are no shared passes.
    """
    method, batch = case.trained(), case.batch()
    removal = SpanRemoval(method.backbone, max_rows=3 * len(batch["labels"]))
    if removal.obstacle:
        return
    logits = logits_of(method, batch)
    with torch.no_grad():
        together = {span: output.logits for span, output in removal.outputs(method, batch)}
    require(torch.equal(together[None], logits), "what is computed beside the spans differs from the intact model")
    for span in removal.spans:
        with method.layers_removed(span[0], span[1]):
            require_close(
                together[span], logits_of(method, batch), 1e-5, f"span {span} differs from what it is by itself"
            )
    require(torch.equal(logits_of(method, batch), logits), "the model is not what it was")


def removing_gives_the_original_back(case: Case) -> None:
    """`remove` leaves the modules, keys and values of the pretrained model, and the trained head."""
    method, batch = case.trained(), case.batch()
    head = list(method.backbone.head)
    state = {name: tensor.clone() for name, tensor in method.backbone.model.state_dict().items() if name in head}
    model, pretrained = method.remove(), load_plain(case)
    require(model.state_dict().keys() == pretrained.state_dict().keys(), "the removed model has other keys")
    for name, tensor in model.state_dict().items():
        require(torch.equal(tensor, state.get(name, pretrained.state_dict()[name])), f"{name} is not what it was")
    require(
        equal(hidden_states(model, batch), hidden_states(pretrained, batch)),
        "the removed model computes something else",
    )
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    require(sorted(names) == sorted(head), f"still trainable after removal: {sorted(set(names) - set(head))}")


def merging_is_exact_or_refused(case: Case) -> None:
    """`merge` gives a plain model with the same logits and leaves the method alone, or says why it cannot."""
    method, batch = case.trained(), case.batch()
    logits = logits_of(method, batch)
    try:
        merged = method.merge()
    except UserError as refusal:
        require("cannot be merged" in str(refusal), f"merge is refused without a reason: {refusal}")
        require(not case.merges, f"merge is refused: {refusal}")
        return
    require(case.merges is not False, "merge is not refused")
    require(merged.state_dict().keys() == load_plain(case).state_dict().keys(), "the merged model has other keys")
    with torch.no_grad():
        output = merged.eval()(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    require_close(output, logits, 1e-4, "the merged model gives other logits")
    require(torch.equal(logits_of(method, batch), logits), "merging has changed the method")


def parameter_report_is_right(case: Case) -> None:
    """The report adds up, agrees with `requires_grad`, and with the formula of the case."""
    method = case.build()
    report = method.parameter_report
    require(report.trained == report.method + report.head + report.layer_norm, f"the report does not add up: {report}")
    trainable = sum(p.numel() for p in set(method.parameters()) if p.requires_grad)
    require(report.trained == trainable, f"{trainable} parameters are trainable, reported are {report.trained}")
    pretrained = load_plain(case).base_model
    require(
        report.backbone == sum(p.numel() for p in pretrained.parameters()) - count_fresh(case, method),
        "backbone's size",
    )
    if case.count is not None:
        formula = case.count(method.backbone)
        require(report.method == formula, f"the method trains {report.method} parameters, the formula says {formula}")


def gradient_checkpointing_changes_nothing(case: Case) -> None:
    """With and without gradient checkpointing, and without dropout, all gradients are equal."""
    gradients = []
    for checkpointing in (False, True):
        method = case.trained(gradient_checkpointing=checkpointing).train()
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        require(method.backbone.model.is_activation_checkpointing == checkpointing, "the option does not switch it on")
        batch = case.batch()
        method.task.loss(method(batch), batch).backward()
        gradients.append({name: p.grad for name, p in method.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    for name, gradient in plain.items():
        other = recomputed[name]
        require((gradient is None) == (other is None), f"{name}: a gradient only without or only with checkpointing")
        if gradient is not None and other is not None:
            require_close(other, gradient, 1e-5, f"{name}: another gradient under checkpointing")


def copies_are_independent(case: Case) -> None:
    """A deep copy and a pickled copy compute the same, and changing them changes nothing here."""
    method, batch = case.trained(), case.batch()
    logits = logits_of(method, batch)
    for how, twin in (("deep", copy.deepcopy(method)), ("pickled", pickle.loads(pickle.dumps(method)))):
        require(torch.equal(logits_of(twin, batch), logits), f"the {how} copy gives other logits")
        with twin.disabled():
            require(torch.equal(logits_of(method, batch), logits), f"disabling the {how} copy disables the original")
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        twin.remove()
        require(torch.equal(logits_of(method, batch), logits), f"changing the {how} copy changes the original")


def mixed_precision_works(case: Case) -> None:
    """Under bfloat16 autocast a step gives finite gradients, and what is trained stays float32."""
    method, batch = case.build().train(), case.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.task.loss(method(batch), batch)
    loss.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            require(parameter.dtype == torch.float32, f"{name} is {parameter.dtype}")
            finite = parameter.grad is not None and bool(parameter.grad.isfinite().all())
            require(finite, f"{name} has no finite gradient in bfloat16")


def options_are_plain_values(case: Case) -> None:
    """The saved options are numbers, strings and lists, and build the same method again."""
    method = case.build()
    try:
        options = json.loads(json.dumps(dict(method.hparams)))
    except TypeError as error:
        raise AssertionError(f"an option is no plain value: {error}") from error
    again = case.method(**options)
    require(again.trained_state().keys() == method.trained_state().keys(), "the saved options build another method")
    given = dict(case.options)
    require(
        all(options[name] == json.loads(json.dumps(value)) for name, value in given.items()), "an option is not saved"
    )


CHECKS: tuple[Callable[[Case], None], ...] = (
    dropout_is_on_in_training,
    only_declared_parameters_train,
    output_is_independent_of_padding,
    starts_at_the_identity_if_it_says_so,
    trained_method_changes_the_output,
    files_give_the_model_back,
    wrong_files_are_refused,
    disabling_is_exact_and_temporary,
    layers_can_be_removed,
    spans_can_be_removed_together,
    removing_gives_the_original_back,
    merging_is_exact_or_refused,
    parameter_report_is_right,
    gradient_checkpointing_changes_nothing,
    copies_are_independent,
    mixed_precision_works,
    options_are_plain_values,
)
