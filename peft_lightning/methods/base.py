"""What all adaptation methods share: the steps, the optimizer, the trained state, the way back."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from transformers import Pipeline, PreTrainedModel

from peft_lightning.backbone import Backbone, load_tokenizer
from peft_lightning.errors import UserError
from peft_lightning.methods.adapter_file import write_adapter
from peft_lightning.methods.arguments import constructor_arguments
from peft_lightning.methods.optimization import Schedule, check_options, parameter_groups, warmup_and_decay
from peft_lightning.methods.parameters import ParameterReport
from peft_lightning.methods.scores import Scores
from peft_lightning.methods.trained_state import RECORD, check_identity, check_tensors, identity, trained_names
from peft_lightning.tasks import Batch, build_task


class AdaptationMethod(LightningModule):
    """A pretrained backbone, a task, and one way to adapt the one to the other.

    A method is a subclass that overrides `adapt`. Its constructor takes plain numbers, strings and lists, which it
    finds again in `self.hparams`, and hands all other arguments on:

        class Houlsby(AdaptationMethod):
            def __init__(self, bottleneck: int = 64, **kwargs):
                super().__init__(**kwargs)

            def adapt(self, backbone):
                for site in backbone.sites("attention_output", "ffn_output"):
                    backbone.insert_after(site, Bottleneck(backbone.width, self.hparams.bottleneck))

    Args:
        backbone: Hub id, local directory, or `embedded:minilm-l6`.
        revision: Branch, tag or commit of the backbone on the Hub.
        task: What the DataModule's `task_description` says; set by the command line.
        lr: Peak learning rate.
        weight_decay: AdamW's weight decay; biases and LayerNorms have none.
        betas: AdamW's two decay rates of the moments.
        eps: AdamW's term that keeps the denominator from 0.
        warmup: Fraction of all steps in which the learning rate rises from 0.
        schedule: After the warm-up: `linear` or `cosine` decay to 0, or `constant`.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time.

    """

    # How far logits may lie from those of the bare backbone before the first step; None claims nothing.
    identity_tolerance: ClassVar[float | None] = None
    # Arguments of the constructor that fit the modules as `save_adapter` writes them.
    exported_options: ClassVar[Mapping[str, Any]] = {}
    val_scores: Any
    test_scores: Any

    def __init__(
        self,
        task: dict[str, Any],
        backbone: str = "embedded:minilm-l6",
        revision: str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup: float = 0.1,
        schedule: Schedule = "linear",
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        # Called here, it finds the arguments of every subclass constructor on the way down as well.
        self.save_hyperparameters()
        self._arguments = constructor_arguments(self, inspect.currentframe())
        check_options(lr, weight_decay, betas, eps, warmup, schedule)
        self.task = build_task(task)
        self.backbone = Backbone(backbone, self.task, revision, gradient_checkpointing)
        self.adapt(self.backbone)
        self._check_declared()
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(
                f"{type(self).__name__} would train nothing: it trains the head alone, and the task "
                f"'{task['type']}' has none of its own; choose another method."
            )
        self._trained = trained_names(self, [insertion.module for insertion in self.backbone.insertions])
        # The frozen part is not in the file; `load_state_dict` checks the rest, so strictness would only be in the way.
        self.strict_loading = False
        self.val_scores, self.test_scores = (
            nn.ModuleList(Scores(self.task, name) for name in ("", *self.task.also)) for _ in range(2)
        )

    @property
    def hparams(self) -> Any:
        """The arguments of the constructor, as attributes."""
        return super().hparams

    def adapt(self, backbone: Backbone) -> None:
        """Inserts into the frozen backbone, and unfreezes there, whatever the method trains.

        Runs once, after the pretrained weights are loaded, so that loading re-initialises nothing.
        """
        raise UserError(
            f"{type(self).__name__} is no method: it does not override adapt(backbone); choose one that does."
        )

    # Steps

    def forward(self, batch: Batch) -> Any:
        """The output of the transformers model, with `logits`, for `input_ids [batch, length]` and its company."""
        return self.backbone(**self.task.inputs(batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = self.task.loss(self(batch), batch)
        size = self.task.size(batch)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=size)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Counts one batch for the `val/` metrics."""
        self._evaluate("val", self.val_scores[dataloader_idx], batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Counts one batch for the `test/` metrics."""
        self._evaluate("test", self.test_scores[dataloader_idx], batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """What the task reads from the output, one dict a row."""
        return self.task.decode(self.task.answer(self, batch), batch)

    def on_validation_epoch_start(self) -> None:
        """Starts counting anew."""
        for scores in self.val_scores:
            scores.start()

    def on_test_epoch_start(self) -> None:
        """Starts counting anew."""
        for scores in self.test_scores:
            scores.start()

    def _evaluate(self, stage: str, scores: Scores, batch: Batch) -> None:
        scores.count(self.task.answer(self, batch), batch)
        named = {f"{stage}/{name}": metric for name, metric in scores.named.items()}
        self.log_dict(named, batch_size=self.task.size(batch), add_dataloader_idx=False)

    # Training

    def setup(self, stage: str) -> None:
        """Checks that the longest input has room in the position table.

        Raises:
            UserError: It has not.
        """
        if self.backbone.position_room is None:
            return
        room = self.backbone.position_room - self.virtual_tokens
        if room < 1:
            raise UserError(
                f"{self.virtual_tokens} virtual tokens leave nothing of the {self.backbone.position_room} positions of "
                f"backbone '{self.backbone.name}' to the text; give a smaller --model.prompt_length."
            )
        virtual = f" beside {self.virtual_tokens} virtual tokens" if self.virtual_tokens else ""
        for option, length in self.task.longest.items():
            if length > room:
                raise UserError(
                    f"{option} is {length}, and backbone '{self.backbone.name}' has positions for {room} "
                    f"tokens{virtual}; give --data.{option} {room} or less."
                )

    @property
    def virtual_tokens(self) -> int:
        """The number of positions that the method takes away from the text."""
        return 0

    def on_fit_start(self) -> None:
        """Switches dropout on, whatever was evaluated before: Lightning trains in the mode that it finds."""
        self.train()

    def configure_optimizers(self) -> Any:
        """AdamW on the trained parameters, its learning rate set at every step."""
        options = self.hparams
        optimizer = torch.optim.AdamW(
            parameter_groups(self, options.weight_decay, options.lr, self.learning_rate_ratios()),
            lr=options.lr,
            betas=tuple(options.betas),
            eps=options.eps,
        )
        total = self.trainer.estimated_stepping_batches
        scheduler = warmup_and_decay(optimizer, options.schedule, options.warmup, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def learning_rate_ratios(self) -> Mapping[nn.Parameter, float]:
        """Parameters whose learning rate is not `lr`, each with the factor between the two."""
        return {}

    # What is trained, and its files

    @property
    def parameter_report(self) -> ParameterReport:
        """The numbers of parameters: method, head, LayerNorm, trained, backbone."""
        return ParameterReport.of(self.backbone)

    def trained_state(self) -> dict[str, Tensor]:
        """The trained tensors by name: all that tells this model from the pretrained one.

        Raises:
            UserError: The model does not have all of them at this moment.
        """
        return self._only_trained(self.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps frozen tensors out of the file and notes where the trained ones come from."""
        checkpoint["state_dict"] = self._only_trained(checkpoint["state_dict"])
        checkpoint["hyper_parameters"] = self._arguments
        checkpoint[RECORD] = identity(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the file was made by this method, on this backbone, for these labels.

        Raises:
            UserError: It was not.
        """
        check_identity(checkpoint.get(RECORD), self, "The checkpoint")
        theirs = checkpoint["hyper_parameters"].get("task", {}).get("labels")
        ours = self.hparams.task.get("labels")
        if theirs != ours:
            raise UserError(f"The checkpoint was trained for the labels {theirs}, and the data has {ours}.")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copies trained tensors; the frozen rest stays as it was loaded from the backbone.

        Raises:
            UserError: A trained tensor is missing, has another shape, or one that is not trained here is given.
        """
        check_tensors(state_dict, self.trained_state(), "The checkpoint", type(self).__name__)
        # Never assigned: the backbone keeps hold of the parameter objects that it has.
        super().load_state_dict(state_dict, strict=False)
        return _IncompatibleKeys([], [])

    def save_adapter(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Writes `adapter.safetensors`, the trained tensors with the head, and `adapter_config.json`.

        Modules that only training needs, as the network behind a prefix, are replaced by what they compute.

        Raises:
            UserError: The directory holds an adapter already and `overwrite` is false, or cannot be written.
        """
        tensors = self.trained_state()
        arguments = dict(self._arguments)
        for name, module in self.named_modules():
            if hasattr(module, "export"):
                tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{name}.")}
                tensors |= {f"{name}.{key}": tensor for key, tensor in module.export().items()}
                arguments |= self.exported_options
        config = {RECORD: identity(self), "hyper_parameters": arguments}
        return write_adapter(Path(directory), tensors, config, overwrite)

    # The way back, and out

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within this context the backbone computes what it computed when it was loaded; the head stays."""
        with self.backbone.without():
            yield

    @contextmanager
    def layers_removed(self, first: int, last: int, layer_norms: bool = False) -> Iterator[None]:
        """Within this context the layers `first` to `last`, both included, are not adapted.

        What was inserted outside the layers stays, so that removing all layers need not be the same as `disabled`.

        Args:
            first: Number of the first layer, counted from 0 at the input.
            last: Number of the last layer.
            layer_norms: Whether LayerNorms that were trained beside the method are removed in these layers too.

        Raises:
            UserError: There is no such span of layers.
        """
        count = len(self.backbone.layers)
        if not 0 <= first <= last < count:
            raise UserError(f"There is no span of layers {first} to {last}; layers are numbered 0 to {count - 1}.")
        with self.backbone.without(range(first, last + 1), layer_norms):
            yield

    def remove(self) -> PreTrainedModel:
        """Takes the adaptation out of this object for good.

        Returns:
            The transformers model with the modules and weights it was loaded with, and the trained head.
        """
        self.backbone.remove()
        return self.backbone.model

    def merge(self) -> PreTrainedModel:
        """Folds the adaptation into the backbone's own weights.

        Returns:
            A new transformers model without inserted modules that computes the same; this object stays as it is.

        Raises:
            UserError: The method is not a change of weights, or is disabled at this moment.
        """
        self._check_complete("merged")
        for insertion in self.backbone.insertions:
            if not hasattr(insertion.module, "merge"):
                reason = getattr(insertion.module, "cannot_merge", "its modules have no merge()")
                raise UserError(f"{type(self).__name__} cannot be merged into the backbone: {reason}.")
        merged = copy.deepcopy(self.backbone)
        for insertion in merged.insertions:
            insertion.module.merge(merged.base_at(insertion.site))  # type: ignore[operator]
        merged.roles.clear()
        merged.remove()
        return merged.model.requires_grad_(True).eval()

    def pipeline(self, device: str = "cpu") -> Pipeline:
        """A transformers pipeline with the run's label names, which cuts texts where training cut them.

        Args:
            device: Where to compute, for example `cuda:0`; the model moves there.

        Returns:
            The pipeline; it computes with this object's own model, which is in evaluation mode from now on.
        """
        tokenizer = load_tokenizer(self.backbone.name, self.backbone.revision)
        return self.task.pipeline(self.eval().backbone.model, tokenizer, device)

    def _only_trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._check_complete("saved")
        found = {name: tensor for name, tensor in state.items() if name in self._trained}
        if found.keys() != self._trained:
            lost = sorted(self._trained - found.keys())
            raise UserError(
                f"{len(lost)} trained tensors are not where they were, among them {lost[0]}, so that this "
                f"{type(self).__name__} cannot be saved or loaded; to compile it use method.compile(), in place."
            )
        return found

    def _check_complete(self, purpose: str) -> None:
        if not self.backbone.complete:
            raise UserError(
                f"This {type(self).__name__} is disabled or removed and cannot be {purpose} like that; leave the "
                "context first, or load it again."
            )

    def _check_declared(self) -> None:
        """Refuses a method whose tensors would be counted, saved or removed wrongly."""
        fixed = {id(p) for p in self.backbone.pretrained.values()}
        lost = [name for name, p in self.named_parameters() if not p.requires_grad and id(p) not in fixed]
        if lost:
            raise TypeError(
                f"{type(self).__name__}.adapt froze {lost[0]}, which no file would hold; make it a buffer with "
                "register_buffer, or train it."
            )
        declared = {id(p) for insertion in self.backbone.insertions for p in insertion.module.parameters()}
        declared |= {id(p) for p in self.backbone.head.values()}
        declared |= {id(self.backbone.pretrained[name]) for name in self.backbone.roles}
        stray = [name for name, p in self.named_parameters() if p.requires_grad and id(p) not in declared]
        if stray:
            raise TypeError(
                f"{type(self).__name__}.adapt left {stray[0]} trainable without a verb of the backbone; "
                "insert modules with insert_after, replace or prefix, and train pretrained weights with unfreeze."
            )
