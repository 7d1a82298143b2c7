"""Whatever happens to a checkpoint, the newest that is whole is found, and what is wrong with the others is said."""

import errno
import os
import resource
from pathlib import Path

import pytest
import torch
from dying import fork, killed_at_call, killed_while, random_moments

from peft_lightning.callbacks import CheckpointFiles
from peft_lightning.errors import UserError
from peft_lightning.runs import RunDirectory
from peft_lightning.storage import generations
from peft_lightning.storage.generations import manifest_path, newest, previous_path
from peft_lightning.storage.writing import write_text

STEPS = ["link", "replace", "fsync", "unlink"]


def content(step, size=1000):
    return {"global_step": step, "state_dict": {"weight": torch.full((size,), float(step))}}


def save(path, step, size=1000):
    CheckpointFiles().save_checkpoint(content(step, size), path)


def loaded(path, size=1000):
    """The step of a file, after a check that its tensor is all of that step."""
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["state_dict"]["weight"], torch.full((size,), float(found["global_step"])))
    return found["global_step"]


@pytest.fixture
def path(tmp_path):
    """A file with the generations 1 and 2."""
    file = tmp_path / "last.ckpt"
    for step in (1, 2):
        save(file, step)
    return file


def flip(path, position=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(bytes(data))


def test_two_generations_are_kept_each_with_a_manifest(path):
    save(path, 3)
    assert [loaded(generation) for generation in (path, previous_path(path))] == [3, 2]
    assert [generations.fault_of(generation) for generation in (path, previous_path(path))] == [None, None]
    assert len(list(path.parent.iterdir())) == 4


def test_every_name_changes_when_what_it_names_is_on_the_disk(path, monkeypatch):
    """A machine that loses power must not find the new names with the old content, or in another order."""
    calls = []
    for name in STEPS[:3]:
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, f=original, n=name: (calls.append(n), f(*args))[1])
    save(path, 3)
    wait = ["fsync"]
    assert calls == [*wait * 2, "link", "replace", *wait, "replace", *wait, "replace", *wait, "replace", *wait]
    calls.clear()
    write_text(path.with_name("result.json"), "{}")
    assert calls == [*wait, "replace", *wait]


def test_the_newest_is_that_of_the_last_step_whatever_the_times_of_the_files_are(path):
    """Copying a run directory gives all files new times, in any order."""
    other = path.with_name("hpc_ckpt_1.ckpt")
    save(other, 3)
    for number, file in enumerate((other, path, previous_path(path))):
        os.utime(file, (number, number))
    assert newest([path, other]) == (other, {})
    flip(other)
    assert newest([path, other])[0] == path


DAMAGES = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:700]), "has 700 bytes and its manifest says"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "flipped": (flip, "is damaged (its sha256"),
    "missing": (lambda p: p.unlink(), "is missing"),
    "a directory": (lambda p: (p.unlink(), p.mkdir()), "manifest says"),
    "without a manifest": (lambda p: manifest_path(p).unlink(), "no manifest to prove it (last.ckpt.json is missing"),
    "with a damaged manifest": (lambda p: manifest_path(p).write_text("{"), "(last.ckpt.json is damaged"),
    "with an empty manifest": (lambda p: manifest_path(p).write_bytes(b""), "(last.ckpt.json is damaged"),
    "with the manifest of another": (lambda p: flip(manifest_path(p), 20), "sha256 is not that of its manifest"),
    "both missing": (lambda p: (p.unlink(), manifest_path(p).unlink()), "is missing"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_and_the_previous_generation_found(path, damage, words):
    damage(path)
    found, faults = newest([path])
    assert loaded(found) == 1
    assert words in faults[path]
    # What is not whole never takes the place of the older generation that is.
    generations.reject(path)
    save(path, 2)
    assert [loaded(generation) for generation in (path, previous_path(path))] == [2, 1]


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_nothing_is_found_where_both_generations_are_damaged(path, damage, words):
    damage(path)
    flip(previous_path(path))
    found, faults = newest([path])
    if ("manifest" in words and "no manifest" in words) or words.startswith("(last"):
        assert found == path  # its own checksums prove it
        flip(path)
        found, faults = newest([path])
    assert found is None
    assert len(faults) == 2


def test_a_flipped_bit_is_found_wherever_it_is(path):
    original = path.read_bytes()
    for position in range(0, len(original), 97):
        flip(path, position)
        assert newest([path])[0] == previous_path(path), position
        path.write_bytes(original)
    assert newest([path]) == (path, {})


def test_what_may_not_be_read_is_named(tmp_path):
    """As a user who is not root, for whom permissions do not count."""
    file = tmp_path / "last.ckpt"

    def unprivileged():
        os.chdir(tmp_path)
        if os.geteuid() == 0:
            os.chown(tmp_path, 65534, 65534)
            os.setgid(65534)
            os.setuid(65534)
        here = Path(file.name)
        for step in (1, 2):
            save(here, step)
        here.chmod(0)
        found, faults = newest([here])
        assert faults[here] == "cannot be read (Permission denied)"
        assert loaded(found) == 1
        Path(".").chmod(0o500)
        with pytest.raises(UserError, match=r"new\.ckpt cannot be written \(Permission denied\)"):
            save(Path("new.ckpt"), 3)

    assert os.waitpid(fork(unprivileged), 0)[1] == 0


def test_a_full_disk_is_named_and_leaves_both_generations(path):
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=rf"{path} cannot be written \({os.strerror(errno.EFBIG)}\)"):
            save(path, 3, size=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_full_disk_after_the_file_leaves_both_generations_too(path, monkeypatch):
    """The manifest needs room as well, and has it before any name is changed."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        save(path, 3)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_without_hard_links_files_are_copied(path, monkeypatch):
    def refuses(*args, **kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuses)
    save(path, 3)
    assert [loaded(generation) for generation in (path, previous_path(path))] == [3, 2]
    assert newest([path]) == (path, {})


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("first", [True, False], ids=["the first save", "a later save"])
def test_killed_between_any_two_steps_of_saving(tmp_path, monkeypatch, first, links):
    """Before each change of a name and each wait for the disk the process dies; one of the two steps is there."""
    if not links:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", lambda *args: (_ for _ in ()).throw(OSError(errno.EPERM, "no")), raising=False)
    number, found = 0, set()
    while True:
        number += 1
        run = RunDirectory(tmp_path / str(number))
        run.path.mkdir()
        if not first:
            save(run.last_checkpoint, 1)
            save(run.last_checkpoint, 2)
        died = killed_at_call(lambda: save(run.last_checkpoint, 3), STEPS, number)  # noqa: B023
        with run.claimed():
            newest_one, faults = run.newest_checkpoint()
        step = loaded(newest_one) if newest_one else None
        assert step in ({3, None} if first else {3, 2})
        assert first or generations.fault_of(newest_one) is None  # proven by its manifest
        found.add(step)
        assert not list(run.checkpoints.glob(".*"))
        # From what was found the run can go on.
        for path in faults:
            if path != newest_one:
                generations.reject(path)
        save(run.last_checkpoint, 4)
        assert loaded(run.newest_checkpoint()[0]) == 4
        if not died:
            break
    assert number > (6 if first else 9)
    assert found == ({3, None} if first else {3, 2})


@pytest.mark.parametrize(
    ("kills", "size"), [(12, 200_000), pytest.param(250, 500_000, marks=pytest.mark.long)], ids=["12", "250"]
)
def test_killed_at_random_moments_of_saving_nothing_is_lost(tmp_path, monkeypatch, kills, size):
    """TMPDIR is another file system, where Lightning's own way of saving loses checkpoints."""
    monkeypatch.setenv("TMPDIR", "/dev/shm" if os.path.isdir("/dev/shm") else str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    confirmed, amid, steps = 0, 0, []
    for moment in random_moments(kills, 0.15):
        reading, writing = os.pipe()

        def saves(start=confirmed, writing=writing):
            for step in range(start + 1, start + 1000):
                save(run.last_checkpoint, step, size)
                os.write(writing, f"{step} ".encode())

        killed_while(saves, moment)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            confirmed = max([confirmed, *map(int, pipe.read().split())])
        amid += bool(list(run.checkpoints.glob(".*.partial")))
        with run.claimed():
            newest_one, faults = run.newest_checkpoint()
        assert not list(run.checkpoints.glob(".*"))
        for path in faults:
            if path != newest_one:
                generations.reject(path)
        step = loaded(newest_one, size) if newest_one else 0
        assert step in (confirmed, confirmed + 1)
        confirmed = step
        steps.append(step)
    print(f"{kills} kills, {amid} of them while a file was half written, {confirmed} checkpoints saved, none lost")
    assert amid > kills / 4
    assert steps[-1] > 0
