"""One process a directory: living holders are respected, dead ones are not waited for."""

import json
import os
import signal
import time

import pytest
from dying import fork, wait_for

from peft_lightning.errors import UserError
from peft_lightning.storage import lock
from peft_lightning.storage.lock import locked


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.lock"


def holding(path, seconds=60):
    def hold():
        with locked(path):
            time.sleep(seconds)

    return hold


def left_behind(path, **changes):
    """The lock of a process that was killed, perhaps with something changed in it."""
    pid = fork(holding(path))
    wait_for(path.exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_second_process_is_refused_until_the_first_has_ended(path):
    pid = fork(holding(path))
    try:
        wait_for(path.exists)
        with pytest.raises(UserError, match=f"is in use by process {pid} on .* since .*; wait for it"), locked(path):
            pass
        assert json.loads(path.read_text())["pid"] == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(path.parent.iterdir()) == []


def test_it_is_released_after_an_error(path):
    with pytest.raises(KeyboardInterrupt), locked(path):
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_taken_over_and_that_is_said(path, caplog):
    left_behind(path)
    holder = json.loads(path.read_text())
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"process {holder['pid']}, which had it since {holder['started']}, has ended" in caplog.text


def test_the_number_of_a_dead_process_may_be_that_of_another(path, caplog):
    """Process numbers are given again: this one lives, and is not the holder."""
    left_behind(path, pid=os.getppid())
    with locked(path):
        assert "has ended without releasing it" in caplog.text


@pytest.mark.parametrize("changes", [{"host": "node17"}, {"place": "another container"}], ids=["host", "container"])
def test_the_lock_of_another_machine_is_never_taken_over(path, changes):
    left_behind(path, **changes)
    before = path.read_text()
    with pytest.raises(UserError, match=f"alive cannot be seen from .*remove its lock: rm {path}"), locked(path):
        pass
    assert path.read_text() == before


def test_a_requeued_job_takes_over_its_own_lock_from_another_node(path, caplog, monkeypatch):
    left_behind(path, host="node17", job="4711", restart=0)
    for job, restart in (("4711", "0"), ("4712", "1")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
        with pytest.raises(UserError, match=r"process .* on node17"), locked(path):
            pass
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with locked(path):
        assert "an earlier start of the SLURM job 4711" in caplog.text


def test_a_damaged_lock_is_named(path):
    path.write_text("")
    with pytest.raises(UserError, match=f"{path} is damaged, .*remove it: rm {path}"), locked(path):
        pass


def test_without_hard_links_the_second_process_is_refused_too(path, monkeypatch):
    def refuses(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    with locked(path), pytest.raises(UserError, match="is in use by process"), locked(path):
        pass
    assert not path.exists()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_processes_at_once_one_gets_it(path, stale):
    """Also when all of them find the lock of a dead process."""
    if stale:
        left_behind(path)
    gate = path.with_name("go")

    def tries():
        lock.log.disabled = True
        wait_for(gate.exists)
        try:
            with locked(path):
                time.sleep(1.5)
        except UserError:
            os._exit(3)

    children = [fork(tries) for _ in range(8)]
    time.sleep(0.2)
    gate.touch()
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(ends) == [0] + [3] * 7


def test_a_lock_that_was_given_to_another_is_not_removed(path):
    with locked(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "node17"}))
    assert path.exists()
