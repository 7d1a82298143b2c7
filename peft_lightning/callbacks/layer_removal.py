"""Layer removal: what a trained model loses without the adaptation of each span of its layers.

Houlsby et al. 2019, section 3.6 and Figure 6: the trained adapters of every contiguous span of layers [first, last] are
taken out, nothing is trained again, and the relative change of a validation metric is shown as a heatmap.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from peft_lightning.backbone import Span, SpanRemoval
from peft_lightning.callbacks.run_recorder import RunRecorder
from peft_lightning.callbacks.span_answers import span_answers
from peft_lightning.errors import UserError
from peft_lightning.methods import AdaptationMethod
from peft_lightning.methods.scores import Scores
from peft_lightning.runs.directory import write_json
from peft_lightning.runs.removal_table import Change, record_path, removal_path, rows_of, write_rows
from peft_lightning.storage.generations import read_manifest

EVALUATIONS = (TrainerFn.VALIDATING, TrainerFn.TESTING)


class LayerRemoval(Callback):
    """Evaluates the model without each span of layers while `validate` or `test` evaluates it; inactive within `fit`.

    Inserted modules of the span are switched off; pretrained weights that the method trains there have their pretrained
    values. The head stays, and so do LayerNorms that are trained beside the method, as in the paper, unless
    `layer_norms` is true. Afterwards the model is bit for bit what it was. Hidden states that spans share are computed
    once (`SpanRemoval`); where a model's layers are not one chain, the spans are evaluated one by one, and the log says
    so.

    Written into the run directory (the trainer's `default_root_dir`): `layer_removal.csv` with every metric of every
    span, a heatmap of each of `metrics` as PNG and PDF, the same in TensorBoard, and `layer_removal.json`, which says
    of which weights all this is. Of the test split the names begin with `layer_removal_test`, and `_layer_norms`
    follows where these are removed too.

    Args:
        metrics: Metrics to draw; by default accuracy if the task has it, as in the paper's figure (also for CoLA), else
            the one that chooses the best checkpoint.
        layer_norms: Whether LayerNorms that were trained beside the method are removed in the span too.
        change: Whether the heatmap shows `relative` changes, `(value - intact) / |intact|`, or `absolute` ones.
        limits: The lowest and the highest value of the colour bar; by default those of the changes, and 0.
        max_rows: The most rows (examples times states) that go through a layer at once; less takes less memory.
        overwrite: Whether files of an earlier evaluation are replaced.

    Raises:
        UserError: `max_rows` is not positive, the task lacks a metric, or files of an earlier evaluation are there.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None = None,
        layer_norms: bool = False,
        change: Change = "relative",
        limits: tuple[float, float] | None = None,
        max_rows: int = 256,
        overwrite: bool = False,
    ):
        super().__init__()
        if max_rows < 1:
            raise UserError(f"max_rows is {max_rows}; give at least 1.")
        self.metrics = metrics
        self.layer_norms = layer_norms
        self.change = change
        self.limits = limits
        self.max_rows = max_rows
        self.overwrite = overwrite
        self._removal: SpanRemoval | None = None
        # Of each evaluated set: one count for the intact model, whose span is None, and one for each span.
        self._scores: list[dict[Span | None, Scores]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the options against the task and the run directory, before anything is computed."""
        if trainer.state.fn not in EVALUATIONS:
            return
        assert isinstance(pl_module, AdaptationMethod)
        self._drawn(pl_module)
        table = self._table(trainer)
        if table.exists() and not self.overwrite and trainer.is_global_zero:
            raise UserError(f"{table} exists; move it away first, or give overwrite.")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._start(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting."""
        self._start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts one batch without each span."""
        self._count(trainer, pl_module, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts one batch without each span."""
        self._count(trainer, pl_module, batch, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes table and heatmaps."""
        self._finish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes table and heatmaps."""
        self._finish(trainer, pl_module)

    def _start(self, trainer: Trainer, method: LightningModule) -> None:
        if trainer.state.fn not in EVALUATIONS:
            return
        assert isinstance(method, AdaptationMethod)
        self._removal = SpanRemoval(method.backbone, self.layer_norms, self.max_rows)
        if self._removal.obstacle:
            rank_zero_warn(
                f"Layer removal: the {len(self._removal.spans)} spans are evaluated one by one, because of this "
                f"{method.backbone.model.config.model_type} model {self._removal.obstacle}."
            )
        if not method.backbone.adapted_layers:
            rank_zero_warn(
                f"{type(method).__name__} adapts nothing inside the layers, so that removing it there changes nothing."
            )
        self._scores = [
            {span: Scores(method.task, name).to(method.device) for span in (None, *self._removal.spans)}
            for name in ("", *method.task.also)
        ]
        for counts in self._scores:
            for scores in counts.values():
                scores.start()

    def _count(self, trainer: Trainer, method: LightningModule, batch: Any, number: int) -> None:
        if self._removal is None:
            return
        assert isinstance(method, AdaptationMethod)
        with trainer.precision_plugin.forward_context():
            for span, answer in span_answers(method, self._removal, batch):
                self._scores[number][span].count(answer, batch)

    def _finish(self, trainer: Trainer, method: LightningModule) -> None:
        if self._removal is None:
            return
        assert isinstance(method, AdaptationMethod)
        spans = self._removal.spans
        # On all devices, which count together.
        intact, *removed = (_values([counts[span] for counts in self._scores]) for span in (None, *spans))
        self._removal, self._scores = None, []
        if not trainer.is_global_zero:
            return
        # Imported here because plots take a second to load.
        from peft_lightning.runs.removal_heatmap import draw_heatmaps

        rows, table = rows_of(intact, dict(zip(spans, removed, strict=True))), self._table(trainer)
        record_path(table).unlink(missing_ok=True)
        write_rows(table, rows)
        write_json(record_path(table), _record(trainer))
        title = f"{type(method).__name__}, {_split(trainer)} split"
        draw_heatmaps(table, rows, self._drawn(method), self.change, title, self.limits)

    def _table(self, trainer: Trainer) -> Path:
        return removal_path(Path(trainer.default_root_dir), _split(trainer), self.layer_norms)

    def _drawn(self, method: AdaptationMethod) -> Sequence[str]:
        known = [str(metric) for metric in method.task.metrics()]
        known = ["loss", *known, *(f"{name}_{metric}" for name in method.task.also for metric in ["loss", *known])]
        if self.metrics is None:
            return ["accuracy" if "accuracy" in known else method.task.monitor]
        if unknown := [metric for metric in self.metrics if metric not in known]:
            raise UserError(f"This task has no metric '{unknown[0]}'; it has {', '.join(known)}.")
        return self.metrics


def _split(trainer: Trainer) -> str:
    return "validation" if trainer.state.fn == TrainerFn.VALIDATING else "test"


def _record(trainer: Trainer) -> dict[str, Any]:
    """Of which weights the table is, and whether of all the run's own data."""
    manifest = read_manifest(Path(trainer.ckpt_path)) if trainer.ckpt_path else None
    recorders = [callback for callback in trainer.callbacks if isinstance(callback, RunRecorder)]  # type: ignore[attr-defined]
    return {
        "checkpoint": manifest.sha256 if manifest else None,
        "of_the_run": any(recorder.recording for recorder in recorders),
    }


def _values(counts: Sequence[Scores]) -> dict[str, float]:
    return {name: float(metric.compute()) for scores in counts for name, metric in scores.named.items()}
