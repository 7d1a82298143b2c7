"""Files that are either the old ones or the new ones, whenever the process or the machine stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peft_lightning.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a file to write, which takes the place of `path` when the block ends well.

    It stands beside `path`, because moving a file from another file system, as that of TMPDIR, is copying it.

    Raises:
        UserError: It cannot be written; `path` is as it was.
    """
    partial = partial_path(path)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync_directory(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Writes a file that is either the old one or the new one, whenever the process is stopped.

    Raises:
        UserError: It cannot be written; the old one stays.
    """
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")


def partial_path(path: Path) -> Path:
    """Where a file stands until it is complete."""
    # The number comes first because Lightning reads the last one in `hpc_ckpt_1.ckpt` as a version.
    return path.with_name(f".{os.getpid()}.{path.name}.partial")


def remove_partials(directory: Path) -> None:
    """Removes what processes that were killed have left; no other may be writing there."""
    for path in directory.glob(".*.partial"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until the content of a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Waits until the names in a directory are on the disk, where its file system can do that."""
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def unwritable(path: Path, error: OSError) -> UserError:
    """What to tell of a file that could not be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); make room there or mend the permissions, then give "
        "the same command again: what was written before is kept."
    )
