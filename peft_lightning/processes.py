"""The processes of one run, when one of them fails."""

import signal

from lightning.pytorch import Trainer


def end_launched(trainer: Trainer) -> None:
    """Kills the processes that Lightning has started for this one; they would wait for it, perhaps for minutes.

    A process that waits for others handles no signal but SIGKILL.
    """
    launcher = trainer.strategy.launcher
    if processes := getattr(launcher, "procs", None):
        launcher.kill(signal.SIGKILL)  # type: ignore[union-attr]
        # The thread that watches them would kill this process for their exit status.
        processes.clear()
