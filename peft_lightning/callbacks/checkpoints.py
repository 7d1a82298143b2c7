"""The two checkpoints of a run: the best weights, and all that is needed to go on."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from peft_lightning.runs.directory import RunDirectory
from peft_lightning.storage import generations

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """One file that is written again and again, and that the end of training never lacks.

    Args:
        path: The file.
        options: Arguments of `ModelCheckpoint`.
    """

    def __init__(self, path: Path, **options: Any):
        super().__init__(dirpath=path.parent, filename=path.stem, enable_version_counter=False, **options)
        self.path = str(Path(self.dirpath or ".") / path.name)
        self.saved_at: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Beside what Lightning remembers, the step of the file that the score belongs to."""
        return super().state_dict() | {"saved_at": self.saved_at}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Finds the best file that the resumed run remembers: since then others may have been saved, or damaged."""
        saved_at = checkpoint["callbacks"].get(self.state_key, {}).get("saved_at")
        if self.monitor is not None and saved_at is not None:
            if trainer.is_global_zero:
                self._go_back_to(saved_at, is_own=Path(self.path).parent == Path(str(trainer.ckpt_path)).parent)
            trainer.strategy.barrier()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers the earlier score if its file is here; the run may have been moved, or begun from another's."""
        if Path(self.path).is_file():
            here: dict[str, Any] = {"dirpath": self.dirpath, "best_model_path": self.path, "last_model_path": ""}
            if state_dict["best_k_models"]:
                [score] = state_dict["best_k_models"].values()
                here |= {"best_k_models": {self.path: score}, "kth_best_model_path": self.path}
            super().load_state_dict(state_dict | here)
            self.saved_at = state_dict.get("saved_at")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes `last.ckpt` as training ended, wherever the run was stopped; and `best.ckpt` if there is none."""
        super().on_train_end(trainer, pl_module)
        # Saving takes all processes, of which one may see what another one has just written.
        if trainer.strategy.broadcast(self.monitor is None or not Path(self.path).is_file()):
            self._save_checkpoint(trainer, self.path)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self.saved_at = trainer.global_step

    def _go_back_to(self, step: int, is_own: bool) -> None:
        path = Path(self.path)
        for generation in (path, generations.previous_path(path)):
            if generations.step_of(generation) == step and generations.fault_of(generation) is None:
                if generation != path:
                    log.warning(f"{path} is again that of step {step}: the later one is of steps that are lost.")
                    generations.go_back(path)
                return
        fault = generations.fault_of(path) or f"is not that of step {step}"
        rejected = generations.reject(path)
        if rejected or is_own:
            moved = f" (moved to {rejected.name})" if rejected else ""
            log.warning(f"{path} {fault}{moved}: the best checkpoint is chosen anew from here on.")


def checkpoint_callbacks(run: RunDirectory, monitor: str, mode: str, every_n_steps: int | None) -> list[RunCheckpoint]:
    """`best.ckpt`, the trained weights where `monitor` was best, and `last.ckpt` with optimizer and loop state.

    Without any validation `best.ckpt` has the weights at the end.

    Args:
        run: Where to write.
        monitor: Logged name of the metric, for example `val/accuracy`.
        mode: `max` or `min`.
        every_n_steps: Write `last.ckpt` after so many steps; None means after every epoch.
    """
    best = RunCheckpoint(
        run.best_checkpoint, monitor=monitor, mode=mode, save_weights_only=True, save_on_train_epoch_end=False
    )
    last = RunCheckpoint(
        run.last_checkpoint,
        every_n_train_steps=every_n_steps,
        every_n_epochs=None if every_n_steps else 1,
        save_on_train_epoch_end=None if every_n_steps else True,
    )
    return [best, last]


def save_last(trainer: Trainer) -> bool:
    """Writes `last.ckpt` as training stands at this moment; says whether the run has one."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, RunCheckpoint) and callback.monitor is None:
            callback._save_checkpoint(trainer, callback.path)
            return True
    return False
