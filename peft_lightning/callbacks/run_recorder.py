"""Writes what a run was and what came out of it: `config.yaml`, `environment.json`, `result.json`."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from peft_lightning.callbacks.environment import describe_environment
from peft_lightning.callbacks.nonfinite_guard import NonFiniteGuard
from peft_lightning.callbacks.stop_on_signal import StoppedBySignal
from peft_lightning.callbacks.time_limit import TimeLimitReached
from peft_lightning.errors import OutOfMemoryError, TrainingError, UserError
from peft_lightning.memory import is_out_of_memory, peak_memory
from peft_lightning.methods import AdaptationMethod
from peft_lightning.runs.directory import RunDirectory, write_json, write_text


class RunRecorder(Callback):
    """Keeps the small files of a run directory up to date.

    `result.json` has a status: `running`, `done`, `stopped` (by a time limit), `interrupted` (by a signal), `nonfinite`
    (a loss, gradient or weight is not finite), `oom` (out of memory) or `failed`; and `recipes`, how metrics are
    computed, where there is more than one way.

    Args:
        run: Where to write.
        config: The configuration as YAML.
        seed: The seed of the run.
        recording: Whether metrics of an evaluation are those of the run, and not of other data or weights.
        deterministic: What `--trainer.deterministic` asks for.

    Attributes:
        is_out_of_memory_elsewhere: Whether training failed here because another process was out of memory.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: str,
        seed: int,
        recording: bool = True,
        deterministic: bool | str | None = None,
    ):
        super().__init__()
        self.run = run
        self.config = config
        self.seed = seed
        self.recording = recording
        self.deterministic = deterministic
        self.best: dict[str, float] = {}
        self.earlier_seconds = 0.0
        self.is_out_of_memory_elsewhere = False
        self._is_running = False
        self._started: float | None = None
        self._contents: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that the data is what it was when the run was started.

        Raises:
            UserError: It is not.
        """
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is None or not self.recording or not trainer.is_global_zero:
            return
        self._contents = datamodule.contents()
        before = self.run.read_environment().get("contents", {})
        for split, digest in self._contents.items():
            if before.get(split, digest) != digest:
                raise UserError(
                    f"Data '{datamodule.source}' ({split}) has changed since the run in {self.run.path} was started, "
                    "so that its splits and scores would no longer be the same; restore it, or choose another "
                    "--run_dir."
                )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describes the run, now that all is loaded and checked."""
        assert isinstance(pl_module, AdaptationMethod)
        self._is_running = True
        if trainer.is_global_zero:
            self._describe(trainer, pl_module)
        # No process may fail before there is a status that it could change.
        trainer.strategy.barrier()

    def _describe(self, trainer: Trainer, pl_module: AdaptationMethod) -> None:
        if not self.run.config.is_file():
            write_text(self.run.config, self.config)
        here = describe_environment(self.deterministic)
        before = self.run.read_environment()
        sizes = {"examples": getattr(getattr(trainer, "datamodule", None), "sizes", {}), "contents": self._contents}
        restarts = {"restarts": [*before.get("restarts", []), here]} if before else {}
        write_json(self.run.environment, (before or here) | sizes | restarts)
        write_json(
            self.run.result,
            {
                "status": "running",
                "method": type(pl_module).__name__,
                "backbone": pl_module.backbone.name,
                "seed": self.seed,
                "monitor": pl_module.task.monitor,
                "mode": pl_module.task.mode,
                **({"recipes": recipes} if (recipes := pl_module.task.recipes) else {}),
                "parameters": pl_module.parameter_report.as_dict(),
                # The batches, where they are smaller than what was asked for.
                **({"used": used} if (used := self.run.read_result().get("used")) else {}),
            },
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the metrics of the best validation, or records those of a validation by itself."""
        assert isinstance(pl_module, AdaptationMethod)
        metrics = _metrics(trainer, "val/")
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._record(trainer, {"metrics": metrics})
        elif not trainer.sanity_checking:
            monitor = f"val/{pl_module.task.monitor}"
            sign = 1 if pl_module.task.mode == "max" else -1
            # What is not a number is worse than any number.
            if not self.best or math.isnan(self.best[monitor]) or sign * metrics[monitor] > sign * self.best[monitor]:
                self.best = metrics

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the test metrics, and which data they are of."""
        self._record(trainer, {"metrics": _metrics(trainer, "test/")})
        environment = self.run.read_environment()
        if environment and self.recording and trainer.is_global_zero:
            contents = environment.get("contents", {}) | self._contents
            write_json(self.run.environment, environment | {"contents": contents})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the result."""
        if trainer.is_global_zero:
            self._log_to_tensorboard(trainer, pl_module)
        self._record(trainer, self._outcome("done" if _came_to_its_end(trainer) else "stopped") | _found(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Records that training came to no end, and why.

        A failure may be that of one process alone, from which the others learn only that it is gone: the first one to
        fail records it, whichever it is. Of what all processes decide alike, it is the first in order.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        recorded = self.run.read_result().get("status")
        if recorded == "running":
            status, why = _end(exception)
            alone = status in (OutOfMemoryError.status, "failed")
            self._record(trainer, self._outcome(status) | _found(trainer) | why, whichever=alone)
        elif self._is_running and trainer.world_size > 1:
            self.is_out_of_memory_elsewhere = recorded == OutOfMemoryError.status

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from an earlier start; its best metrics count only while its best checkpoint is here."""
        self.earlier_seconds = state_dict["seconds"]
        if self.run.best_checkpoint.is_file():
            self.best = state_dict["best"]

    @property
    def _seconds(self) -> float:
        return self.earlier_seconds + (time.monotonic() - self._started if self._started else 0.0)

    def _outcome(self, status: str) -> dict[str, Any]:
        best = self.run.best_checkpoint
        return {
            "status": status,
            "metrics": self.best,
            "seconds": round(self._seconds, 2),
            "peak_memory_bytes": peak_memory(),
            "checkpoint_bytes": best.stat().st_size if best.is_file() else None,
        }

    def _record(self, trainer: Trainer, changes: dict[str, Any], whichever: bool = False) -> None:
        if (trainer.is_global_zero or whichever) and self.recording:
            self.run.update_result(changes)

    def _log_to_tensorboard(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the metrics beside the options in TensorBoard's table of hyper-parameters."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(dict(pl_module.hparams), self.best)


def _end(exception: BaseException) -> tuple[str, dict[str, Any]]:
    """The status of a run that ends with an exception, and what more there is to tell."""
    if isinstance(exception, StoppedBySignal):
        return "interrupted", {"signal": exception.signal.name}
    if isinstance(exception, TimeLimitReached):
        return "stopped", {}
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        return "interrupted", {}
    if isinstance(exception, TrainingError):
        return exception.status, {"error": str(exception), **exception.details}
    if is_out_of_memory(exception):
        return OutOfMemoryError.status, {"error": str(exception)}
    return "failed", {"error": f"{type(exception).__name__}: {exception}"}


def _came_to_its_end(trainer: Trainer) -> bool:
    """Whether all steps or epochs were trained, or early stopping ended them; a time limit does not."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    return (
        (steps >= 0 and trainer.global_step >= steps)
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch)
        or any(isinstance(callback, EarlyStopping) and callback.stopped_epoch for callback in trainer.callbacks)  # type: ignore[attr-defined]
    )


def _found(trainer: Trainer) -> dict[str, Any]:
    """What the guard found."""
    guards = [callback for callback in trainer.callbacks if isinstance(callback, NonFiniteGuard)]  # type: ignore[attr-defined]
    return guards[0].outcome if guards else {}


def _metrics(trainer: Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
