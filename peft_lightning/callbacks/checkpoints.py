"""The two checkpoints of a run: the best weights, and all that is needed to go on."""

from lightning.pytorch.callbacks import ModelCheckpoint

from peft_lightning.runs.directory import RunDirectory


def checkpoint_callbacks(
    run: RunDirectory, monitor: str, mode: str, every_n_steps: int | None
) -> list[ModelCheckpoint]:
    """`best.ckpt`, the trained weights where `monitor` was best, and `last.ckpt` with optimizer and loop state.

    Args:
        run: Where to write.
        monitor: Logged name of the metric, for example `val/accuracy`.
        mode: `max` or `min`.
        every_n_steps: Write `last.ckpt` after so many steps; None means after every epoch.
    """
    best = ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor=monitor,
        mode=mode,
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=run.last_checkpoint.stem,
        every_n_train_steps=every_n_steps,
        every_n_epochs=None if every_n_steps else 1,
        save_on_train_epoch_end=None if every_n_steps else True,
        enable_version_counter=False,
    )
    return [best, last]
