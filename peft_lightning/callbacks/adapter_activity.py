"""How far a method moves the hidden states of its backbone, layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from peft_lightning.callbacks.activity import Activity, measure, measured_insertions
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod


class AdapterActivity(Callback):
    """Measures `||h' - h|| / ||h||` of every module in a layer, and the inhibited units of `InA`.

    h is what the place of a module gives without it and h' what it gives with it, both with all other modules in place:

    - after a site (`Houlsby`, `LoReFT`) or beside a sub-layer (`ParallelAdapter`): the site's output,
    - in place of a map or a LayerNorm (`LoRA`, `InA`, `IA3`, `Pfeiffer`): the output of what it replaces,
    - a prefix (`PrefixTuning`, `PTuningV2`): the output of its attention; shifted positions count as those of the text.

    The mean is over all tokens of the evaluated split that are not padding; the mean of ratios, not the ratio of means.
    For `InA` it is also measured which share of the r units lies below p times the largest, at each p of
    `inhibition_levels`: those that the threshold of an InA with this p inhibits.

    It acts in `validate` and `test`, and in every validation of `fit` but the sanity check, so that the files are those
    of the last one. Each batch of the main set is passed through the model once more. In the run directory (Lightning's
    `default_root_dir`): `adapter_activity_validation.csv`, `.png` and `.pdf`, or `_test`; and a figure in TensorBoard.

        peft-lightning validate RUN --trainer.callbacks+=AdapterActivity

    Args:
        inhibition_levels: Values of p; the paper of InA has 0.1, 0.3 and 0.9.

    Raises:
        UserError: A level is not in [0, 1).
    """

    def __init__(self, inhibition_levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)):
        super().__init__()
        for level in inhibition_levels:
            if not 0 <= level < 1:
                raise UserError(f"inhibition_levels holds {level}; give shares of at least 0 and below 1.")
        self.levels = list(inhibition_levels)
        self.activity: Activity | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that there is something to measure.

        Raises:
            UserError: The method has inserted nothing in layers, or a prompt.
        """
        assert isinstance(pl_module, AdaptationMethod)
        if stage != "predict":
            measured_insertions(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._start(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._start(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures one batch."""
        if not trainer.sanity_checking and dataloader_idx == 0:
            self._measure(trainer, pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures one batch."""
        if dataloader_idx == 0:
            self._measure(trainer, pl_module, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what was found."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what was found."""
        self._write(trainer, pl_module, "test")

    def _start(self, method: LightningModule) -> None:
        assert isinstance(method, AdaptationMethod)
        self.activity = Activity(len(measured_insertions(method)), len(self.levels), method.device)

    def _measure(self, trainer: Trainer, method: LightningModule, batch: Any) -> None:
        assert isinstance(method, AdaptationMethod)
        assert self.activity is not None
        # Autocast is off between the steps.
        with trainer.precision_plugin.forward_context():
            for part in method.task.parts(batch):
                measure(method, measured_insertions(method), part, self.levels, self.activity)

    def _write(self, trainer: Trainer, method: LightningModule, split: str) -> None:
        assert isinstance(method, AdaptationMethod)
        assert self.activity is not None
        tokens, moved, inhibited = (values.tolist() for values in self.activity.compute())  # on all devices
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Imported here because plots take a second to load.
        from peft_lightning.callbacks.activity_files import ActivityRow, write_activity

        rows = [
            ActivityRow(
                layer=insertion.site.layer or 0,
                site=insertion.site.name,
                module=type(insertion.module).__name__,
                tokens=round(tokens[number]),
                moved=moved[number],
                inhibited=dict(zip(self.levels, inhibited[number], strict=True))
                if hasattr(insertion.module, "inhibited")
                else {},
            )
            for number, insertion in enumerate(measured_insertions(method))
        ]
        stem = Path(trainer.default_root_dir) / f"adapter_activity_{split}"
        write_activity(rows, stem, split, trainer.loggers, trainer.global_step)
