"""Children that are really killed: forked from this process, which has imported all that is slow to import."""

import os
import random
import signal
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable


def fork(work: Callable[[], None]) -> int:
    """Runs `work` in a child that inherits everything; returns its process number."""
    with warnings.catch_warnings():
        # Python warns where threads were started; the children only save and are killed.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def killed_while(work: Callable[[], None], seconds: float) -> None:
    """Runs `work` in a child and kills it with SIGKILL after so many seconds."""
    pid = fork(work)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself, with status {status}"


def killed_at_call(work: Callable[[], None], names: list[str], number: int) -> bool:
    """Runs `work` in a child that kills itself before its call with this number of the functions `os.NAME`.

    Returns:
        Whether there was such a call.
    """

    def dying() -> None:
        calls = 0

        def wrapped(original):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)

            return call

        for name in names:
            setattr(os, name, wrapped(getattr(os, name)))
        work()

    _, status = os.waitpid(fork(dying), 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or is a zombie that nobody has asked for its status yet."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not state or state.startswith("Z")


def random_moments(count: int, longest: float, seed: int = 0) -> list[float]:
    """Times in seconds up to `longest`, the same in every call."""
    generator = random.Random(seed)
    return [generator.uniform(0, longest) for _ in range(count)]
