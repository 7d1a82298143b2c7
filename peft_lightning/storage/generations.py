"""Checkpoints in two generations, each with a manifest that tells whether the file is whole.

Beside `last.ckpt` stand `last.ckpt.json`, its manifest, and `last.previous.ckpt` with a manifest of its own. A manifest
gets its name when its file is on the disk, so that at every moment one generation is whole and known to be.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from peft_lightning.storage.writing import partial_path, sync, sync_directory, unwritable, write_text


@dataclass(frozen=True)
class Manifest:
    """What a file must be: its digest, its size in bytes, and the step after which it was saved."""

    sha256: str
    size: int
    step: int


def manifest_path(path: Path) -> Path:
    """`last.ckpt` -> `last.ckpt.json`."""
    return path.with_name(f"{path.name}.json")


def previous_path(path: Path) -> Path:
    """`last.ckpt` -> `last.previous.ckpt`."""
    return path.with_stem(f"{path.stem}.previous")


def save(path: Path, write: Callable[[BinaryIO], None], step: int) -> None:
    """Writes a new generation; the present one becomes the previous one.

    All that needs room on the disk is written beside; then names are changed, each change on the disk before the next:
    wherever it stops, the new, the present or both are whole with their manifests.

    Args:
        path: The file.
        write: Writes the content to an open file.
        step: The step after which it is saved.

    Raises:
        UserError: The disk is full or may not be written; the earlier generations are as they were.
    """
    data, description = partial_path(path), partial_path(manifest_path(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with data.open("wb") as file:
            hashed = _Hashed(file)
            write(hashed)  # type: ignore[arg-type]  # all that torch.save needs of a file
        sync(data)
        manifest = Manifest(hashed.digest.hexdigest(), data.stat().st_size, step)
        description.write_text(json.dumps(asdict(manifest)) + "\n", encoding="utf-8")
        sync(description)
        _keep_as_previous(path)
        os.replace(data, path)
        sync_directory(path.parent)
        os.replace(description, manifest_path(path))
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save reports that it could not write as a RuntimeError about positions in the file.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            raise unwritable(path, cause) from error
        raise
    finally:
        for partial in (data, description):
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Removes both generations."""
    for generation in (path, previous_path(path)):
        manifest_path(generation).unlink(missing_ok=True)
        generation.unlink(missing_ok=True)


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a file; None if there is none, or none that can be read."""
    try:
        content = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        return Manifest(str(content["sha256"]), int(content["size"]), int(content["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def step_of(path: Path) -> int | None:
    """The step after which a file was saved, if its manifest says so."""
    manifest = read_manifest(path)
    return manifest.step if manifest else None


def fault_of(path: Path) -> str | None:
    """What is wrong with a file or its manifest, as the end of a sentence; None if it is what was saved."""
    if is_there(path) and read_manifest(path) is None:
        manifest = manifest_path(path)
        what = "damaged" if is_there(manifest) else "missing, as after a save that was interrupted"
        return damage_of(path) or f"has no manifest to prove it ({manifest.name} is {what})"
    return damage_of(path)


def damage_of(path: Path) -> str | None:
    """What is wrong with the content of a file, by its manifest, or else by the checksums inside of it."""
    manifest = read_manifest(path)
    try:
        size = path.stat().st_size
        if size == 0:
            return "is empty"
        if manifest is None:
            return _wrong_checksum(path)
        if size != manifest.size:
            return f"has {size:,} bytes and its manifest says {manifest.size:,}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if digest == manifest.sha256 else "is damaged (its sha256 is not that of its manifest)"


def newest(paths: Iterable[Path]) -> tuple[Path | None, dict[Path, str]]:
    """The newest generation that is whole, of several files.

    One without a manifest whose own checksums are right is taken if there is no other: the first save of a run may have
    been interrupted before its manifest was there.

    Returns:
        The file, or None if none is whole; and what is wrong with those that would have come before it.
    """
    found = [g for path in paths if _any_of(path) for g in (path, previous_path(path)) if g == path or _any_at(g)]
    faults: dict[Path, str] = {}
    for path in sorted(found, key=_age):
        fault = fault_of(path)
        if fault is None:
            return path, faults
        faults[path] = fault
    return next((path for path in faults if damage_of(path) is None), None), faults


def reject(path: Path) -> Path | None:
    """Moves a file out of the way, as `last.rejected.ckpt`, so that it never counts as a generation again.

    Returns:
        Where it is now; None if there was none.
    """
    target = path.with_stem(f"{path.stem}.rejected")
    try:
        manifest_path(path).unlink(missing_ok=True)
        if not is_there(path):
            return None
        os.replace(path, target)
    except OSError as error:
        raise unwritable(path, error) from error
    sync_directory(path.parent)
    return target


def go_back(path: Path) -> None:
    """Makes the previous generation the present one again; both are then the same."""
    previous = previous_path(path)
    try:
        manifest_path(path).unlink(missing_ok=True)
        sync_directory(path.parent)
        _link(previous, path)
    except OSError as error:
        raise unwritable(path, error) from error
    write_text(manifest_path(path), manifest_path(previous).read_text(encoding="utf-8"))


def is_there(path: Path) -> bool:
    """Whether something is at a path, as far as can be seen: what may not be looked at counts as being there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _keep_as_previous(path: Path) -> None:
    """Makes the present generation the previous one, unless it is not whole: then the older one stays."""
    manifest = read_manifest(path)
    if manifest is None or not path.is_file() or path.stat().st_size != manifest.size:
        return
    _link(path, previous_path(path))
    os.replace(manifest_path(path), manifest_path(previous_path(path)))
    sync_directory(path.parent)


def _link(path: Path, target: Path) -> None:
    """Gives a file a second name, which may be that of another file; where there are no hard links it is copied."""
    partial = partial_path(target)
    partial.unlink(missing_ok=True)
    try:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)
            sync(partial)
        os.replace(partial, target)
        sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _any_at(path: Path) -> bool:
    return is_there(path) or is_there(manifest_path(path))


def _any_of(path: Path) -> bool:
    return _any_at(path) or _any_at(previous_path(path))


def _age(path: Path) -> tuple[float, float]:
    """Sorts the newest first: by the step, and what has none before all others, so that it is not passed over."""
    step = step_of(path)
    try:
        changed = path.stat().st_mtime
    except OSError:
        changed = 0.0
    return float("-inf") if step is None else -step, -changed


def _wrong_checksum(path: Path) -> str | None:
    """Holds the parts of the archive that `torch.save` writes against the checksums that it notes for them."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return "is truncated, or no checkpoint at all"
    return None if part is None else f"is damaged (the checksum of {part} in it is wrong)"


class _Hashed:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO):
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()
