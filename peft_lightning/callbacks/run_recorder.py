"""Writes what a run was and what came out of it: `config.yaml`, `environment.json`, `result.json`."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from peft_lightning.callbacks.environment import describe_environment
from peft_lightning.methods import AdaptationMethod
from peft_lightning.runs.directory import RunDirectory, write_json, write_text


class RunRecorder(SaveConfigCallback):
    """Keeps the small files of a run directory up to date.

    Args:
        parser: Turns the configuration back into YAML.
        config: The parsed configuration.
        run: Where to write.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, run: RunDirectory):
        super().__init__(parser, config, save_to_log_dir=False)
        self.run = run
        self.best: dict[str, float] = {}
        self.earlier_seconds = 0.0
        self._started: float | None = None

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called by Lightning on one process, once data and model are ready and before anything is trained."""
        if stage == "fit":
            if not self.run.config.is_file():
                write_text(self.run.config, self.parser.dump(self.config, skip_unset=False))
            datamodule = getattr(trainer, "datamodule", None)
            sizes = getattr(datamodule, "sizes", {})
            write_json(self.run.environment, describe_environment() | {"examples": sizes})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        assert isinstance(pl_module, AdaptationMethod)
        self._started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        facts = {
            "status": "running",
            "method": type(pl_module).__name__,
            "backbone": pl_module.backbone.name,
            "seed": self.config.seed_everything,
            "monitor": pl_module.task.monitor,
            "parameters": pl_module.parameter_report.as_dict(),
        }
        if trainer.is_global_zero:
            self.run.start_result(facts)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the metrics of the best validation, or records those of a validation by itself."""
        assert isinstance(pl_module, AdaptationMethod)
        metrics = _metrics(trainer, "val/")
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._update(trainer, {"metrics": metrics})
        elif not trainer.sanity_checking:
            monitor = f"val/{pl_module.task.monitor}"
            sign = 1 if pl_module.task.mode == "max" else -1
            if not self.best or sign * metrics[monitor] > sign * self.best[monitor]:
                self.best = metrics

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the test metrics."""
        self._update(trainer, {"metrics": _metrics(trainer, "test/")})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the result."""
        if trainer.is_global_zero:
            self._log_to_tensorboard(trainer, pl_module)
        self._update(trainer, self._costs() | {"status": "done", "metrics": self.best})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Records that training came to no end, and why."""
        if trainer.state.fn == TrainerFn.FITTING:
            status = "interrupted" if isinstance(exception, KeyboardInterrupt | SystemExit) else "failed"
            error = f"{type(exception).__name__}: {exception}"
            self._update(trainer, self._costs() | {"status": status, "error": error})

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from an earlier start."""
        self.best, self.earlier_seconds = state_dict["best"], state_dict["seconds"]

    @property
    def _seconds(self) -> float:
        return self.earlier_seconds + (time.monotonic() - self._started if self._started else 0.0)

    def _costs(self) -> dict[str, Any]:
        best = self.run.best_checkpoint
        return {
            "seconds": round(self._seconds, 2),
            "peak_memory_bytes": _peak_memory(),
            "checkpoint_bytes": best.stat().st_size if best.is_file() else None,
        }

    def _update(self, trainer: Trainer, changes: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.run.update_result(changes)

    def _log_to_tensorboard(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the metrics beside the options in TensorBoard's table of hyper-parameters."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(dict(pl_module.hparams), self.best)


def _metrics(trainer: Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _peak_memory() -> int:
    """Bytes: of the GPU if there is one, else the most that the process has held."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
