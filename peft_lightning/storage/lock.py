"""One process a directory: a file that says who writes there.

It needs nothing but names that can be claimed once, which shared file systems give too: they often lack `fcntl`, and no
process can see whether one on another machine is alive.
"""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from peft_lightning.errors import UserError
from peft_lightning.storage.writing import partial_path, unwritable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: The name of its machine.
        place: Tells machines, and containers on them, from others of the same name.
        pid: Its number.
        birth: Tells it from a later process of the same number.
        started: When it took the lock.
        job: The number of its SLURM job; empty outside SLURM.
        restart: How often that job had been requeued.
    """

    host: str
    place: str
    pid: int
    birth: str
    started: str
    job: str
    restart: int


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path` until the block ends, however it ends.

    A lock of a process of this machine that is no longer there is taken over, as is that of an earlier start of the
    same SLURM job; the log says so.

    Raises:
        UserError: Another process holds it, or may hold it; or the file cannot be written.
    """
    own = _this_process()
    partial = partial_path(path)
    try:
        while not _claim(path, partial, own):
            _make_way(path, own)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    try:
        yield
    finally:
        if _read(path) == own and own.pid == os.getpid():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _claim(path: Path, partial: Path, own: Holder) -> bool:
    """Writes the lock, complete from the beginning, if there is none."""
    content = json.dumps(asdict(own), indent=2) + "\n"
    partial.write_text(content, encoding="utf-8")
    try:
        os.link(partial, path)
    except (FileExistsError, FileNotFoundError):  # not found: the holder has just removed what looked left behind
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            return False
    return True


def _make_way(path: Path, own: Holder) -> None:
    """Removes a lock whose holder has certainly ended.

    Raises:
        UserError: It may not have.
    """
    holder = _read(path)
    if holder is None:
        if not path.exists():
            return  # released a moment ago
        raise UserError(
            f"The lock {path} is damaged, so that it does not say which process uses {path.parent}; if none does, "
            f"remove it: rm {path}"
        )
    reason = _why_it_ended(holder, own)
    if reason is None:
        raise UserError(_refusal(path, holder, own))
    # Renamed first, so that of two processes that come here only one removes what both have read.
    taken = partial_path(path).with_suffix(".stale.partial")
    with suppress(FileNotFoundError):
        os.replace(path, taken)
        found = _read(taken)
        if found == holder:
            log.warning(f"Taking over {path}: process {holder.pid}, which had it since {holder.started}, {reason}.")
            taken.unlink()
        elif found is not None:
            _claim(path, taken, found)


def _why_it_ended(holder: Holder, own: Holder) -> str | None:
    if holder.job and holder.job == own.job and holder.restart < own.restart:
        return f"was of an earlier start of the SLURM job {own.job}"
    if _is_near(holder, own) and holder.birth != _birth(holder.pid):
        return "has ended without releasing it"
    return None


def _refusal(path: Path, holder: Holder, own: Holder) -> str:
    used = f"{path.parent} is in use by process {holder.pid} on {holder.host} since {holder.started}"
    if _is_near(holder, own):
        return f"{used}; wait for it to end or stop it, or choose another --run_dir."
    return (
        f"{used}; whether that process is alive cannot be seen from {own.host}. Wait for it to end, choose another "
        f"--run_dir, or, if it has certainly ended, remove its lock: rm {path}"
    )


def _is_near(holder: Holder, own: Holder) -> bool:
    """Whether both are of one machine and one container, so that one can see whether the other is alive."""
    return (holder.host, holder.place) == (own.host, own.place)


def _this_process() -> Holder:
    return Holder(
        host=platform.node(),
        place=_place(),
        pid=os.getpid(),
        birth=_birth(os.getpid()),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        job=os.environ.get("SLURM_JOB_ID", ""),
        restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


def _place() -> str:
    """The machine, by the digest of its id, and the container; what the system does not tell is left out."""
    machine = container = ""
    with suppress(OSError):
        machine = hashlib.sha256(Path("/etc/machine-id").read_bytes()).hexdigest()[:16]
    with suppress(OSError):
        container = os.readlink("/proc/self/ns/pid")
    return f"{machine} {container}"


def _birth(pid: int) -> str:
    """When a process was started, as boot of the machine and ticks of its clock since; empty if there is none.

    Where there is no `/proc`, a living process has the birth `alive`.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return "alive" if _is_alive(pid) else ""
    try:
        # The name, in brackets, may hold blanks; behind it the state is field 3, the start field 22.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot} {fields[19]}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
