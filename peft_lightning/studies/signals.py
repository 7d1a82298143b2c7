"""Signals to a study end the run that is being trained, with its checkpoint, and the study behind it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from peft_lightning.callbacks.stop_on_signal import EXIT_STATUS
from peft_lightning.slurm import requeue

# A terminal that is closed sends SIGHUP, which ends a run at once.
_PASSED_ON = (*EXIT_STATUS, signal.SIGHUP)


class StudySignals:
    """Passes SIGINT, SIGTERM, SIGUSR1 and SIGHUP on to the process of the present run, which knows what to do.

    Attributes:
        received: The first of them.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._to_pass_on: list[int] = []

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Within this context they are handled, where Python allows that: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # `nohup` has SIGHUP ignored.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        before = {number: signal.signal(number, self._receive) for number in _PASSED_ON if number not in ignored}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def execute(self, command: Sequence[str]) -> int:
        """Waits for a process, and passes on to it what is received meanwhile; returns its exit status."""
        # In a group of its own, because a terminal sends Ctrl-C to all processes of a group, and a run that gets a
        # second SIGINT does not wait for its checkpoint.
        with subprocess.Popen(command, process_group=0) as self._process:
            self._pass_on()
            status = self._process.wait()
        self._process = None
        return status

    def stop(self, run: str, status: int) -> SystemExit:
        """Says that the study ends here.

        Args:
            run: The run that was being trained.
            status: Its exit status.

        Returns:
            The end of the process, with the exit status of the signal, whoever has received it.
        """
        number = self.received or next((each for each, its in EXIT_STATUS.items() if its == status), None)
        number = number or signal.Signals(-status)
        code = EXIT_STATUS.get(number, 128 + number)
        print(f"Study stopped by {number.name} in {run}; the same command goes on from there.", file=sys.stderr)
        # A run that was stopped while it trained has asked for that itself.
        if self.received == signal.SIGUSR1 and status != code and (answer := requeue()):
            print(answer, file=sys.stderr)
        return SystemExit(code)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        self._to_pass_on.append(number)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._process and self._to_pass_on:
            self._process.send_signal(self._to_pass_on.pop(0))
